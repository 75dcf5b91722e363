"""What every method owes: the same numbers from a file, by gene, and under one seed."""

import numpy as np
import pytest

from chrep_model.errors import SettingsError
from chrep_model.methods.base import leave_section_out
from chrep_model.methods.method_settings import make_method
from chrep_model.methods.registry import BUILT_IN, find


@pytest.fixture
def fit(all_small, few_trees):
    """Fit a method by name: ``fit(name, table, seed=0)``."""

    def fit(name, table, seed=0):
        return make_method(name, all_small).fit(table, seed=seed)

    return fit


@pytest.fixture(scope="module")
def kept():
    return {}


@pytest.fixture
def fitted(name, fit, table, kept):
    """A method fitted to `table`, once for all tests. Only to be read."""
    if name not in kept:
        kept[name] = fit(name, table)
    return kept[name]


def test_the_names_are_those_of_the_command_line():
    rivals = ("bleep", "mclstexp", "heclip", "hage_like")
    assert list(BUILT_IN) == ["mean", "knn", "ridge", "trees", *rivals, "chrep"]
    assert [make_method(name).name for name in BUILT_IN] == list(BUILT_IN)
    with pytest.raises(SettingsError, match="nonsense") as caught:
        make_method("nonsense")
    assert "ridge" in caught.value.remedy
    assert find("nonsense") is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_method_survives_its_arrays(name, fitted, unseen):
    arrays = {key: np.ascontiguousarray(value).copy() for key, value in fitted.arrays().items()}
    assert all(value.dtype.kind in "fiu" for value in arrays.values())  # plain numbers, no objects
    again = find(name).fitted_class.from_arrays(arrays, fitted.gallery)
    assert again.variants == fitted.variants
    first, second = fitted.respond(unseen.features), again.respond(unseen.features)
    for variant in fitted.variants:
        expected = fitted.read(first, variant)
        assert expected.shape == unseen.targets.shape
        assert expected.dtype == np.float32
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(again.read(second, variant), expected)


@pytest.mark.parametrize("name", BUILT_IN)
def test_arrays_that_do_not_fit_are_noticed(name, fitted):
    with pytest.raises((KeyError, ValueError)):
        find(name).fitted_class.from_arrays({}, fitted.gallery)


@pytest.mark.parametrize("name", BUILT_IN)
def test_some_genes_are_columns_of_all(name, fitted, unseen):
    response = fitted.respond(unseen.features)
    for variant in fitted.variants:
        every = fitted.read(response, variant)
        for genes in (np.array([3]), np.array([14, 0, 7, 7]), slice(2, 9)):
            np.testing.assert_allclose(fitted.read(response, variant, genes), every[:, genes], atol=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_tiles_do_not_hear_of_each_other(name, fitted, unseen):
    whole = fitted.respond(unseen.features)
    order = np.random.default_rng(0).permutation(len(unseen))
    for rows in (order, order[:1], order[:7]):
        part = fitted.respond(unseen.features[rows])
        np.testing.assert_allclose(part["distance"], whole["distance"][rows], atol=1e-5)
        for variant in fitted.variants:
            np.testing.assert_allclose(
                fitted.read(part, variant), fitted.read(whole, variant)[rows], atol=1e-5
            )


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_seed_decides_where_chance_does(name, fit, table, unseen):
    one, same, other = (fit(name, table, seed).predict(unseen.features) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert make_method(name).random == bool(np.abs(one - other).max() > 1e-6)


@pytest.mark.parametrize("name", [m for m in BUILT_IN if m != "mean"])
def test_it_learns_something(name, fit, make_table):
    """Better than the mean on spots from the same source; CHRep's last variant, few epochs or not."""
    fitted = fit(name, make_table(sections=4, spots=100))
    unseen = make_table(sections=1, spots=200, seed=7)
    error = np.mean((fitted.predict(unseen.features) - unseen.targets) ** 2)
    assert error < 0.97 * unseen.targets.var()


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_gallery_knows_where_its_spots_come_from(name, fitted, table):
    gallery = fitted.gallery
    np.testing.assert_array_equal(gallery.expression, table.targets)
    np.testing.assert_array_equal(gallery.section, table.section)
    np.testing.assert_array_equal(gallery.position, table.position)
    assert gallery.section_names == table.section_names
    np.testing.assert_allclose(np.linalg.norm(gallery.z, axis=1), 1, rtol=1e-4)


@pytest.mark.parametrize("name", BUILT_IN)
def test_distance_is_zero_at_a_training_spot_and_grows_away_from_it(name, fitted, table, unseen):
    if name not in ("bleep", "mclstexp"):  # these compare images with codes of expression
        np.testing.assert_allclose(fitted.respond(table.features)["distance"], 0, atol=1e-5)
    assert fitted.respond(unseen.features)["distance"].mean() > 0.01
    assert fitted.respond(unseen.features)["distance"].max() <= 2


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_prediction_is_the_sum_of_its_terms(name, fitted, unseen):
    response = fitted.respond(unseen.features)
    genes = np.array([2, 9])
    total = sum(term.weight * term.answer for term in fitted.terms(response, genes))
    np.testing.assert_allclose(total, fitted.read(response, fitted.variants[-1], genes), atol=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_neighbours_have_weights_where_the_value_comes_from_them(name, fitted, table, unseen):
    response = fitted.respond(unseen.features)
    found, weights = fitted.neighbours(response), fitted.weights(response)
    cosine = fitted.compare(unseen.features) @ fitted.gallery.z.T
    np.testing.assert_allclose(found.similarity, np.take_along_axis(cosine, found.index, 1), atol=1e-5)
    assert (weights is None) == (fitted.k is None) == (name in ("mean", "ridge", "trees", "hage_like"))
    if weights is not None:
        assert weights.shape == found.index.shape == (len(unseen), min(fitted.k, len(table)))
        np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
        if name != "chrep":
            mean = np.einsum("nk,nkg->ng", weights, fitted.gallery.expression[found.index])
            np.testing.assert_allclose(fitted.predict(unseen.features), mean, atol=1e-5)


@pytest.mark.parametrize("name", BUILT_IN)
def test_no_tile_no_value(name, fitted):
    assert fitted.predict(np.empty((0, 12), np.float32)).shape == (0, 15)


@pytest.mark.parametrize("name", BUILT_IN)
def test_two_sections_suffice(name, fit, make_table, unseen):
    assert np.isfinite(fit(name, make_table(sections=2, spots=30)).predict(unseen.features)).all()


def test_leaving_sections_out(make_table):
    table = make_table()
    folds = leave_section_out(table)
    assert len(folds) == 3
    for train, test in folds:
        assert not (train & test).any()
        assert (train | test).all()
        assert len(set(table.section[test])) == 1
        assert not set(table.section[test]) & set(table.section[train])
    with pytest.raises(SettingsError, match="two"):
        leave_section_out(make_table(sections=1))
