"""More spots in a gallery: they are found, and nothing else is another."""

import numpy as np
import pytest

from chrep_model.bundle import load_bundle
from chrep_model.bundle.extending import with_section
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.errors import BundleError, GeneError
from chrep_model.pipeline import TrainSettings, train
from chrep_model.training.features import section_features


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def bundle(cohort, small_settings, tmp_path_factory):
    """CHRep on the first and the last section; the second is of the first one's patient."""
    folder = tmp_path_factory.mktemp("extending")
    facts = {"tile_um": 100, "mpp": 2.0, "context_um": (200.0,), "genes": 20, "chrep": small_settings}
    part = cohort.only([cohort.names[0], cohort.names[2]])
    return train(part, TrainSettings(**facts), folder / "old.chrep", device="cpu", cache=folder / "cache")


@pytest.fixture
def extend(bundle, cohort, tmp_path):
    def extend(number, name="new.chrep", of=bundle):
        section, encoder = cohort.sections[number], of.encoder()
        features = section_features([section], encoder, of.context_um)[section.name]
        return with_section(of, section, features, encoder, tmp_path / name), features

    return extend


def test_the_new_spots_are_found_and_all_else_is_as_before(bundle, cohort, extend):
    new, features = extend(1)
    section, before = cohort.sections[1], bundle.model.fitted.gallery
    gallery = load_bundle(new.path).model.fitted.gallery
    assert gallery.section_names == (*before.section_names, section.name)
    assert len(gallery) == len(before) + len(section)
    np.testing.assert_array_equal(gallery.z[: len(before)], before.z)
    assert set(gallery.patient[len(before) :]) == set(before.patient[before.section == 0])  # the same patient
    old_says, new_says = bundle.model.respond(features), new.model.respond(features)
    own = len(before) + np.arange(len(section))
    assert (new_says["neighbours"][:, 0] == own).all() and (new_says["distance"] < 1e-4).all()
    for variant in ("raw",):
        np.testing.assert_array_equal(new.model.read(new_says, variant), bundle.model.read(old_says, variant))
    truth = new.panel.expression(section)
    error = [
        np.mean((m.read(r, "estimate") - truth) ** 2)
        for m, r in ((bundle.model, old_says), (new.model, new_says))
    ]
    assert error[1] < error[0]
    for name, array in bundle.model.fitted.arrays().items():
        np.testing.assert_array_equal(new.model.fitted.arrays()[name], array)
    for name, array in bundle.trust.arrays().items():
        np.testing.assert_array_equal(new.trust.arrays()[name], array)
    assert f"{len(section)} measured spots of {section.name} were added" in new.card.note
    assert [s["name"] for s in new.card.sections] == [cohort.names[0], cohort.names[2], section.name]
    assert [s["name"] for s in new.card.of_heads] == [cohort.names[0], cohort.names[2]]


def test_a_section_that_is_there_is_replaced(bundle, cohort, extend):
    again, _ = extend(0)
    gallery, before = again.model.fitted.gallery, bundle.model.fitted.gallery
    assert gallery.section_names == before.section_names and len(gallery) == len(before)
    assert len(again.card.sections) == 2
    order = np.argsort(gallery.section, kind="stable")
    np.testing.assert_allclose(gallery.z[order], before.z, atol=1e-5)


def test_what_takes_no_spots(cohort, extend, trusting_bundle, bundle, tmp_path):
    with pytest.raises(BundleError, match="takes no further spots"):
        extend(1, of=load_bundle(trusting_bundle))
    section = open_cohort(cohort.path).sections[1]
    object.__setattr__(section, "genes", tuple(f"ENSG{i}" for i in range(len(section.genes))))
    with pytest.raises(GeneError):
        with_section(
            bundle, section, np.zeros((len(section), 1), np.float32), bundle.encoder(), tmp_path / "x"
        )
    assert not list(tmp_path.iterdir())
