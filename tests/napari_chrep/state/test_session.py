"""What a viewer is looking at."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from chrep_model.bundle import load_bundle
from chrep_model.errors import GeneError, ScaleError


@pytest.fixture
def photo(desk, tmp_path, tissue):
    """The layer of a slide without a scale."""
    path = tmp_path / "photo.png"
    Image.fromarray(tissue).save(path)
    return desk.open(path)


def test_a_scale_moves_the_layer_to_micrometres(desk, photo):
    changes = []
    desk.session.slide_changed.connect(lambda: changes.append(desk.session.slide))
    desk.session.set_mpp(0.7)
    assert tuple(photo.scale) == (0.7, 0.7)
    assert [str(unit) for unit in photo.units] == ["micrometer", "micrometer"]
    assert [(slide.mpp.value, slide.mpp.source) for slide in changes] == [(0.7, "user")]


def test_an_implausible_scale_is_refused(desk, photo):
    with pytest.raises(ScaleError):
        desk.session.set_mpp(-1.0)
    assert tuple(photo.scale) == (1, 1)


def test_a_new_scale_drops_the_prediction(desk, photo, tiny_bundle):
    desk.session.set_mpp(0.7)
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    assert desk.session.prediction.indices.size > 0
    desk.session.set_mpp(0.65)
    assert desk.session.prediction is None


def test_a_removed_slide_is_forgotten(desk, photo):
    desk.viewer.layers.remove(photo)
    assert desk.session.slide is None and desk.session.slide_layer is None


def test_an_unknown_gene_is_refused_with_the_nearest_names(desk, tiny_bundle):
    desk.load(tiny_bundle)
    known = desk.session.gene
    with pytest.raises(GeneError, match=known):
        desk.session.show_gene(known + "X")
    assert desk.session.gene == known


def test_coming_back_to_a_bundle_keeps_its_prediction(desk, tiny_bundle, write_tissue, bundle):
    desk.open(write_tissue())
    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    kept, values = desk.session.prediction, desk.session.prediction.map(bundle.genes[0])
    desk.session.predictor = None  # as after another bundle was in use
    desk.session._restore_prediction()
    desk.engine.predict(None)
    desk.wait()
    assert desk.session.prediction is kept
    np.testing.assert_array_equal(kept.map(bundle.genes[0]), values)


def test_a_signature_follows_to_a_bundle_that_knows_its_genes(desk, tiny_bundle, trusting_bundle):
    desk.load(tiny_bundle)
    fewer = load_bundle(trusting_bundle)
    common = next(gene for gene in desk.session.bundle.genes if gene in fewer.genes)
    only_here = next(gene for gene in desk.session.bundle.genes if gene not in fewer.genes)
    changes = []
    desk.session.signature_changed.connect(lambda: changes.append(desk.session.signature))
    desk.session.show_signature("mine", [common, only_here, "unheard-of"])
    desk.session.set_bundle(fewer)
    assert (changes[-1].genes, changes[-1].unknown) == ((common,), (only_here, "unheard-of"))
    desk.load(tiny_bundle)
    assert changes[-1].genes == (common, only_here)
    desk.session.show_signature("mine", [only_here])
    desk.session.set_bundle(fewer)
    assert changes[-1] is None and desk.session.signature is None
