"""Prediction of slides: a tile's value depends on its place alone, however it was asked for."""

import numpy as np
import pytest
from PIL import Image

from chrep_model.bundle import load_bundle
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.embeddings import SlideEmbeddings
from chrep_model.encoders.stainbank import StainbankEncoder
from chrep_model.errors import GeneError, PredictionError, ScaleError, SlideError
from chrep_model.geometry import Rect
from chrep_model.pipeline import TrainSettings, train
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.predictor import Predictor
from chrep_model.progress import Progress
from chrep_model.slides.slide import open_slide

CONTEXT = (200.0,)


@pytest.fixture(scope="module")
def bundle(tiny_cohort, tmp_path_factory):
    """A ridge on coarse tiles: quick, and every part of a prediction is there."""
    folder = tmp_path_factory.mktemp("ridge")
    settings = TrainSettings(method="ridge", tile_um=100, mpp=2.0, context_um=CONTEXT, genes=20)
    train(open_cohort(tiny_cohort), settings, folder / "ridge.chrep", device="cpu", cache=folder / "cache")
    return load_bundle(folder / "ridge.chrep")


@pytest.fixture(scope="module")
def pixels(tiny_cohort):
    """A synthetic section of 1075 µm with glass on its right."""
    with Image.open(sorted(tiny_cohort.glob("*.jpg"))[0]) as image:
        quarter = np.asarray(image.convert("RGB"))
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    whole = np.concatenate([half, half[::-1]], axis=0).copy()
    whole[:, 1200:] = 244
    return whole


@pytest.fixture(scope="module")
def slide(pixels, tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "slide.png"
    Image.fromarray(pixels).save(path)
    with open_slide(path) as slide:
        yield slide.with_mpp(0.7)


@pytest.fixture
def make(bundle, tmp_path):
    """Make a predictor with a cache of its own: ``make(batch_size=32, cache="a")``."""

    def make(batch_size=32, cache="cache"):
        return Predictor(bundle, device="cpu", batch_size=batch_size, cache_dir=tmp_path / cache)

    return make


@pytest.fixture(scope="module")
def whole(bundle, slide, tmp_path_factory):
    """The whole slide, predicted once."""
    predictor = Predictor(bundle, device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))
    return predictor.predict(slide)


def assert_agree(some, whole):
    """Check that two predictions say the same of the tiles that both have."""
    rows = {int(i): row for row, i in enumerate(whole.indices)}
    order = [rows[int(i)] for i in some.indices]
    np.testing.assert_allclose(some.values(slice(None)), whole.values(slice(None))[order], atol=1e-5)
    np.testing.assert_allclose(some.distance(), whole.distance()[order], atol=1e-5)


def test_every_tissue_tile_is_predicted_once_and_glass_is_not(whole, slide):
    assert 50 < len(whole) < whole.grid.size
    assert len(set(whole.indices)) == len(whole.indices) == len(whole)
    assert (whole.grid.centres(whole.indices)[:, 0] < 1300).all()
    values = whole.values(slice(None))
    assert np.isfinite(values).all()
    assert values.std(0).min() > 1e-3  # and not the same everywhere


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_values_do_not_depend_on_batches_or_order(make, slide, whole, batch_size):
    predictor = make(batch_size)
    context = predictor.prepare(slide)
    prediction = Prediction(predictor.bundle, context.grid, slide)
    shuffled = np.random.default_rng(0).permutation(context.tissue)
    sizes = []
    for part in predictor.stream(context, shuffled):
        sizes.append(len(part.indices))
        prediction.add(part)
    assert max(sizes) == min(batch_size, len(shuffled))
    np.testing.assert_array_equal(prediction.indices, shuffled)
    assert len(prediction) == len(whole)
    assert_agree(prediction, whole)


def test_a_region_says_what_the_whole_slide_says(make, slide, whole):
    rect = Rect(301.5, 420, 350, 300)
    region = make().predict(slide, rect)
    assert 3 < len(region) < len(whole) / 2
    assert_agree(region, whole)
    expected = np.intersect1d(whole.indices, whole.grid.indices_in(rect))
    np.testing.assert_array_equal(np.sort(region.indices), expected)


def test_what_is_looked_at_comes_centre_outwards(make, slide):
    rect = Rect(301.5, 420, 350, 300)
    predictor = make(batch_size=4)
    context = predictor.prepare(slide)
    parts = list(predictor.stream(context, context.tiles(rect)))
    indices = np.concatenate([part.indices for part in parts])
    distance = np.linalg.norm(context.grid.centres(indices) - rect.centre, axis=1)
    assert (np.diff(distance) >= -1e-9).all()
    given = list(predictor.stream(context, iter([part.indices for part in parts])))
    assert [part.indices.tolist() for part in given] == [part.indices.tolist() for part in parts]


@pytest.mark.parametrize("stride", [0.5, 2.0])
def test_at_another_stride_the_tiles_that_coincide_are_the_same(make, slide, whole, stride):
    other = make().predict(slide, Rect(0, 0, 700, 700) if stride < 1 else None, stride=stride)
    here, there = (
        {tuple(np.round(xy, 6)): row for row, xy in enumerate(p.grid.centres(p.indices))}
        for p in (other, whole)
    )
    both = sorted(set(here) & set(there))
    assert len(both) > 10
    np.testing.assert_allclose(
        other.values(slice(None))[[here[xy] for xy in both]],
        whole.values(slice(None))[[there[xy] for xy in both]],
        atol=1e-5,
    )


def test_values_are_the_models_on_the_slides_features(make, bundle, slide, whole):
    embeddings = SlideEmbeddings(slide, bundle.encoder(), cache=None)
    some = whole.indices[:12]
    features = embeddings.at(embeddings.grid.centres(some), CONTEXT)
    model = bundle.model
    z = ((features - model.scale.mean) / model.scale.sd) @ model.fitted.w + model.fitted.b
    expected = np.maximum(z * bundle.panel.sd + bundle.panel.mean, 0)  # no log10(1 + x) is below
    np.testing.assert_allclose(whole.values(slice(None))[:12], expected, atol=1e-4)


def test_a_second_predictor_finds_everything_in_the_cache(make, slide, whole, monkeypatch):
    make().predict(slide)
    monkeypatch.setattr(
        StainbankEncoder, "encode", lambda *args: pytest.fail("the encoder ran for a tile that was stored")
    )
    assert_agree(make(batch_size=5).predict(slide), whole)


def test_the_same_picture_as_a_pyramid_of_other_levels(make, pixels, whole, write_pyramid):
    """Lossless levels in another format: what is read is the same tissue at the same scale."""
    path = write_pyramid(pixels, mpp=0.7, levels=2)
    with open_slide(path) as pyramid:
        prediction = make().predict(pyramid)
    common = np.intersect1d(prediction.indices, whole.indices)
    assert len(common) > 0.95 * len(whole)
    a, b = (p.on_grid(p.values(np.array([0]))[:, 0]).ravel()[common] for p in (prediction, whole))
    assert np.corrcoef(a, b)[0, 1] > 0.95


def test_cancelling_keeps_the_batches_that_are_done(make, slide, whole):
    predictor = make(batch_size=4)
    context = predictor.prepare(slide)
    prediction = Prediction(predictor.bundle, context.grid, slide)
    progress = Progress(cancelled=lambda: len(prediction) >= 12)
    for part in predictor.stream(context, context.tiles(), progress=progress):
        prediction.add(part)
    assert len(prediction) == 12
    assert_agree(prediction, whole)
    for part in predictor.stream(context, prediction.missing(context.tiles())):
        prediction.add(part)
    assert len(prediction) == len(whole)
    assert_agree(prediction, whole)


def test_progress_ends_at_the_number_of_tiles(make, slide):
    seen = []
    prediction = make().predict(slide, progress=Progress(advance=lambda *step: seen.append(step)))
    assert seen[-1] == (len(prediction), len(prediction), "predicting slide")


# Refusals


def test_a_slide_without_scale(make, slide):
    with open_slide(slide.path) as unknown, pytest.raises(ScaleError, match="µm per pixel") as caught:
        make().prepare(unknown)
    assert caught.value.path == str(slide.path)


def test_a_slide_too_coarse_for_the_model(make, slide):
    with pytest.raises(ScaleError, match="coarse") as caught:
        make().prepare(slide.with_mpp(2.3))
    assert caught.value.remedy
    make().prepare(slide.with_mpp(2.1))  # within a tenth


def test_a_slide_without_tissue(make, write_pyramid):
    path = write_pyramid(np.full((900, 900, 3), 245, np.uint8), mpp=0.7)
    with open_slide(path) as glass, pytest.raises(SlideError, match="no tissue") as caught:
        make().prepare(glass)
    assert caught.value.path == str(path)


def test_a_region_without_tissue(make, slide):
    with pytest.raises(PredictionError, match="no tissue"):
        make().predict(slide, Rect(1400, 300, 80, 80))
    with pytest.raises(PredictionError, match="no tissue"):
        make().predict(slide, Rect(9000, 9000, 80, 80))


# The prediction itself


def test_one_gene_is_a_column_and_lies_on_the_grid(whole):
    gene = whole.genes[7]
    values = whole.gene(gene)
    np.testing.assert_allclose(values, whole.values(slice(None))[:, 7], atol=1e-6)
    plane = whole.map(gene)
    assert plane.shape == whole.grid.shape
    np.testing.assert_array_equal(plane.ravel()[whole.indices], values)
    assert np.isnan(plane).sum() == whole.grid.size - len(whole)
    np.testing.assert_array_equal(np.isnan(whole.on_grid(whole.distance())), np.isnan(plane))


def test_unknown_genes_and_variants(whole):
    with pytest.raises(GeneError, match="NOSUCH"):
        whole.gene("NOSUCH")
    with pytest.raises(PredictionError, match="calibrated") as caught:
        whole.gene(whole.genes[0], "calibrated")  # a ridge has none
    assert "raw" in caught.value.remedy


def test_tiles_that_are_known_are_not_taken_twice(make, slide, whole):
    predictor = make(batch_size=6)
    context = predictor.prepare(slide)
    prediction = Prediction(predictor.bundle, context.grid, slide)
    tiles = context.tiles()[:12]
    for part in predictor.stream(context, tiles):
        prediction.add(part)
        prediction.add(part)
    (overlap,) = predictor.stream(context, np.concatenate([tiles[10:12], context.tiles()[12:16]]))
    prediction.add(overlap)
    np.testing.assert_array_equal(prediction.indices, context.tiles()[:16])
    assert len(prediction) == 16
    assert int(tiles[3]) in prediction
    assert int(context.tiles()[16]) not in prediction
    np.testing.assert_array_equal(prediction.missing(context.tiles()[14:18]), context.tiles()[16:18])
    assert_agree(prediction, whole)


def test_nothing_predicted_yet(bundle, whole, slide):
    empty = Prediction(bundle, whole.grid, slide)
    assert len(empty) == 0
    assert empty.gene(bundle.genes[0]).shape == (0,)
    assert np.isnan(empty.map(bundle.genes[0])).all()
    assert np.isnan(empty.on_grid(empty.distance())).all()


def test_as_anndata(whole):
    genes = (whole.genes[3], whole.genes[0])
    table = whole.to_anndata(genes)
    assert list(table.var_names) == list(genes)
    assert list(table.layers) == ["raw"]
    np.testing.assert_array_equal(table.X, table.layers["raw"])
    order = np.argsort(whole.indices)
    np.testing.assert_allclose(table.layers["raw"][:, 0], whole.gene(genes[0])[order], atol=1e-6)
    np.testing.assert_array_equal(table.obsm["spatial"], whole.grid.centres(np.sort(whole.indices)))
    np.testing.assert_array_equal(
        table.obs["row"] * whole.grid.shape[1] + table.obs["col"], np.sort(whole.indices)
    )
    facts = table.uns["chrep"]
    assert facts["bundle_hash"] == whole.bundle.hash
    assert (facts["mpp"], facts["mpp_source"], facts["tile_um"]) == (0.7, "user", 100.0)
