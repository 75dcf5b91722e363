"""Features of spots: those of the tiles around them, in memory or, where they are many, on the disk."""

import numpy as np
import pytest

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.embeddings import SlideEmbeddings
from chrep_model.methods import model
from chrep_model.methods.model import FeatureScale, spot_table
from chrep_model.training import features, streamed
from chrep_model.training.features import EncoderSettings, section_features


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def encoder():
    return EncoderSettings(tile_um=100, mpp=2.0).open("cpu")


def test_features_are_the_embeddings_at_the_spots(cohort, encoder):
    section = cohort.sections[1]
    found = section_features([section], encoder, (200.0, 90.0))[section.name]
    with section.open_slide() as slide:
        expected = SlideEmbeddings(slide, encoder, cache=None).at(section.xy, (200.0, 90.0))
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (len(section), 3 * encoder.dim)


def test_features_and_targets_of_many_spots_lie_on_the_disk(cohort, encoder, monkeypatch):
    panel = GenePanel.fit(cohort.sections, 10)
    none = FeatureScale(np.zeros(1, np.float32), np.ones(1, np.float32))
    in_memory = section_features(cohort.sections, encoder, (200.0,))
    few = spot_table(cohort.sections, in_memory, panel, none)
    for unit in (features, model, streamed):
        monkeypatch.setattr(unit, "LARGE", len(few) - 1)
    on_disk = section_features(cohort.sections, encoder, (200.0,))
    assert on_disk.keys() == in_memory.keys()
    for name, values in on_disk.items():
        assert isinstance(values, np.memmap)
        np.testing.assert_array_equal(values, in_memory[name])
    many = spot_table(cohort.sections, on_disk, panel, none)
    assert isinstance(many.features, streamed.Streamed)
    assert isinstance(many.targets, np.memmap)
    np.testing.assert_array_equal(many.targets, few.targets)
    np.testing.assert_array_equal(many.features[:], few.features)
