"""Retrieval and its weights: exact, in a fixed order, and never what is excluded."""

import numpy as np
import pytest

from chrep_model.calibration import search as module
from chrep_model.calibration.gallery import Gallery, neighbour_spread, weighted_mean
from chrep_model.errors import SettingsError
from chrep_model.statistics import unit_rows

N, DIM, GENES = 40, 6, 5
SECTION = np.repeat([0, 1, 2, 3], 10)
PATIENT = SECTION // 2


@pytest.fixture(scope="module")
def gallery():
    rng = np.random.default_rng(0)
    return Gallery(
        z=unit_rows(rng.standard_normal((N, DIM)).astype(np.float32)),
        expression=rng.standard_normal((N, GENES)).astype(np.float32),
        section=SECTION,
        patient=PATIENT,
        position=rng.uniform(0, 1000, (N, 2)),
        section_names=tuple("ABCD"),
    )


@pytest.fixture(scope="module")
def queries():
    return unit_rows(np.random.default_rng(1).standard_normal((25, DIM)).astype(np.float32))


def estimate(gallery, found, temperature=0.05):
    return weighted_mean(found, temperature, gallery.expression)


def test_neighbours_are_those_of_a_full_sort(gallery, queries):
    found = gallery.search(queries, 7)
    cosine = queries.astype(np.float64) @ gallery.z.T
    expected = np.argsort(-cosine, axis=1)[:, :7]
    np.testing.assert_array_equal(found.index, expected)
    np.testing.assert_allclose(found.similarity, np.take_along_axis(cosine, expected, 1), atol=1e-6)


def test_queries_in_chunks_are_the_same_queries(gallery, queries, monkeypatch):
    own = np.arange(25) % 4
    whole = gallery.search(queries, 5, exclude="section", section=own)
    monkeypatch.setattr(module, "QUERIES", 4)
    parts = gallery.search(queries, 5, exclude="section", section=own)
    np.testing.assert_array_equal(parts.index, whole.index)
    np.testing.assert_allclose(parts.similarity, whole.similarity, atol=1e-6)


def test_one_neighbour_without_exclusion_is_the_spot_itself(gallery):
    found = gallery.search(gallery.z, 1)
    np.testing.assert_array_equal(found.index[:, 0], np.arange(N))
    np.testing.assert_allclose(estimate(gallery, found), gallery.expression, atol=1e-6)


def test_weights_are_a_softmax_and_the_estimate_its_mean(gallery, queries):
    found = gallery.search(queries, 6)
    w = np.exp(found.similarity.astype(np.float64) / 0.05)
    w /= w.sum(1, keepdims=True)
    np.testing.assert_allclose(found.weights(0.05), w, rtol=1e-4)
    expected = [sum(w[i, j] * gallery.expression[found.index[i, j]] for j in range(6)) for i in range(25)]
    np.testing.assert_allclose(estimate(gallery, found), expected, atol=1e-5)


def test_a_hot_gallery_is_its_mean_and_a_cold_one_the_nearest(gallery, queries):
    every = gallery.search(queries, N)
    mean = np.broadcast_to(gallery.expression.mean(0), (25, GENES))
    np.testing.assert_allclose(estimate(gallery, every, 1e9), mean, atol=1e-5)
    np.testing.assert_allclose(every.weights(1e9), 1 / N, rtol=1e-5)
    nearest = gallery.expression[every.index[:, 0]]
    np.testing.assert_allclose(estimate(gallery, every, 1e-9), nearest, atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-9, 1e-3, 0.05, 1.0, 1e9])
def test_weights_sum_to_one_at_any_temperature(gallery, queries, temperature):
    w = gallery.search(queries, 10, exclude="section", section=np.zeros(25, int)).weights(temperature)
    np.testing.assert_allclose(w.sum(1), 1, rtol=1e-5)
    assert (w >= 0).all()
    assert (np.diff(w, axis=1) <= 0).all()  # the most similar weighs most


@pytest.mark.parametrize("k", [1, 9, 25, N])
@pytest.mark.parametrize("exclude", ["self", "section", "patient"])
def test_what_is_excluded_has_no_weight(gallery, exclude, k):
    found = gallery.search(gallery.z, k, exclude=exclude, section=SECTION, patient=PATIENT)
    barred = {
        "self": np.eye(N, dtype=bool),
        "section": SECTION[:, None] == SECTION[None, :],
        "patient": PATIENT[:, None] == PATIENT[None, :],
    }[exclude]
    retrieved = np.isfinite(found.similarity)
    np.testing.assert_array_equal(retrieved.sum(1), np.minimum(k, (~barred).sum(1)))
    assert not (np.take_along_axis(barred, found.index, 1) & retrieved).any()
    assert not found.weights(0.05)[~retrieved].any()
    # and the answer does not change when the excluded spots say something else
    for row in (0, 17, 39):
        rows = np.where(barred[row])[0]
        lies = gallery.expression.copy()
        lies[rows] = 1e6
        np.testing.assert_array_equal(
            weighted_mean(found, 0.05, lies)[row], weighted_mean(found, 0.05, gallery.expression)[row]
        )


def test_excluding_without_saying_whose_the_query_is(gallery, queries):
    with pytest.raises(SettingsError, match="patient"):
        gallery.search(queries, 3, exclude="patient")


def test_nothing_left_to_retrieve(gallery, queries):
    alone = Gallery(
        gallery.z[:10], gallery.expression[:10], SECTION[:10], PATIENT[:10], gallery.position[:10], ("A",)
    )
    with pytest.raises(SettingsError, match="nothing is left"):
        alone.search(queries, 3, exclude="section", section=np.zeros(25, int))
    assert np.isfinite(alone.search(queries, 3, exclude="section", section=np.ones(25, int)).similarity).all()


def test_more_neighbours_than_spots_are_all_spots(gallery, queries):
    found = gallery.search(queries, 1000)
    assert found.index.shape == (25, N)
    np.testing.assert_array_equal(np.sort(found.index, axis=1), np.tile(np.arange(N), (25, 1)))


def test_equal_spots_come_in_the_order_of_the_gallery(gallery):
    z = gallery.z.copy()
    z[[3, 8, 21, 33]] = z[8]
    twins = Gallery(z, gallery.expression, SECTION, PATIENT, gallery.position, gallery.section_names)
    found = twins.search(np.repeat(z[8:9], 5, axis=0), 4)
    np.testing.assert_array_equal(found.index, np.tile([3, 8, 21, 33], (5, 1)))
    np.testing.assert_allclose(found.weights(0.05), 0.25, rtol=1e-5)


def test_zero_vectors_are_equally_far_from_everything(gallery):
    zero = unit_rows(np.zeros((2, DIM), np.float32))
    assert not zero.any()
    found = gallery.search(zero, N)
    np.testing.assert_array_equal(found.similarity, 0)
    np.testing.assert_allclose(
        estimate(gallery, found), np.broadcast_to(gallery.expression.mean(0), (2, GENES)), atol=1e-5
    )
    z = gallery.z.copy()
    z[5] = 0
    holed = Gallery(z, gallery.expression, SECTION, PATIENT, gallery.position, gallery.section_names)
    assert np.isfinite(estimate(holed, holed.search(gallery.z, 10))).all()


def test_no_query_no_neighbour(gallery):
    found = gallery.search(np.empty((0, DIM), np.float32), 3)
    assert found.index.shape == (0, 3)
    assert estimate(gallery, found).shape == (0, GENES)


def test_spread_is_the_sd_around_the_estimate(gallery, queries):
    many = np.tile(queries, (11, 1))  # more than one part of the memory
    found = gallery.search(many, 6)
    w = found.weights(0.1).astype(np.float64)
    near = gallery.expression[found.index]
    mean = np.einsum("nk,nkg->ng", w, near)
    expected = np.sqrt(np.einsum("nk,nkg->ng", w, (near - mean[:, None]) ** 2))
    np.testing.assert_allclose(neighbour_spread(found, 0.1, gallery.expression), expected, atol=1e-5)


def test_a_single_neighbour_has_no_spread(gallery, queries):
    assert not neighbour_spread(gallery.search(queries, 1), 0.05, gallery.expression).any()
