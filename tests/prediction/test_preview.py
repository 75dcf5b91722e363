"""The rough map that stands in until tiles are predicted."""

import numpy as np
import pytest

from chrep_model.bundle import load_bundle
from chrep_model.prediction.predictor import PREVIEW_TILES, Predictor, spread_evenly
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import open_slide
from chrep_model.slides.tiles import TileGrid, TileSpec


@pytest.fixture
def grid():
    return TileGrid((1000, 1000), 1.0, TileSpec(1.0, 10))  # 100 x 100 tiles


def test_the_few_are_spread_evenly(grid):
    few = spread_evenly(grid, np.arange(grid.size), 64)
    rows, cols = np.divmod(few, 100)
    assert 40 <= len(few) <= 64
    assert set(np.diff(np.unique(rows))) == set(np.diff(np.unique(cols))) == {np.diff(np.unique(rows))[0]}


def test_there_is_one_at_least_however_few_are_asked_for(grid):
    assert len(spread_evenly(grid, np.array([7]), 64)) == 1
    in_a_row = np.arange(300, 400)
    few = spread_evenly(grid, in_a_row, 10)
    assert 0 < len(few) <= 10 and np.isin(few, in_a_row).all()


class CountingPredictor(Predictor):
    """Counts what the encoder sees."""

    def prepare(self, slide, **options):
        context = super().prepare(slide, **options)
        encode = context.embeddings.encoder.encode
        self.encoded = 0

        def counted(tiles, state):
            self.encoded += len(tiles)
            return encode(tiles, state)

        context.embeddings.encoder.encode = counted
        return context


@pytest.fixture
def predictor(trusting_bundle, tmp_path):
    return CountingPredictor(load_bundle(trusting_bundle), device="cpu", batch_size=8, cache_dir=tmp_path)


def test_it_encodes_no_more_than_its_few_tiles_and_stands_in_for_all(predictor, striped_slide, monkeypatch):
    monkeypatch.setattr("chrep_model.prediction.predictor.PREVIEW_TILES", 6)
    monkeypatch.setattr("chrep_model.embeddings.slide.SAMPLE", 2)
    context = predictor.prepare(open_slide(striped_slide, mpp=0.7))
    tiles = context.tiles()
    preview = predictor.preview(context, tiles)
    assert 0 < len(preview.prediction) <= 6 < PREVIEW_TILES
    assert predictor.encoded <= 6
    out = np.full(context.grid.shape, np.nan, np.float32)
    known = tiles[0]
    out.reshape(-1)[known] = 100
    values = np.arange(len(preview.prediction), dtype=np.float32)
    preview.fill(values, out)
    assert out.reshape(-1)[known] == 100
    assert np.array_equal(np.flatnonzero(np.isfinite(out)), np.sort(tiles))
    few = preview.prediction.indices
    free = few != known
    np.testing.assert_array_equal(out.reshape(-1)[few[free]], values[free])  # each stands in for itself


def test_there_is_none_where_the_first_batch_is_as_soon(predictor, striped_slide):
    context = predictor.prepare(open_slide(striped_slide, mpp=0.7))
    for _ in predictor.stream(context, context.tiles()):
        pass  # everything is encoded now
    assert predictor.preview(context, context.tiles()) is None


def test_it_changes_nothing_of_what_is_predicted_afterwards(predictor, striped_slide, monkeypatch):
    monkeypatch.setattr("chrep_model.prediction.predictor.PREVIEW_TILES", 6)
    monkeypatch.setattr("chrep_model.embeddings.slide.SAMPLE", 2)
    slide = open_slide(striped_slide, mpp=0.7)
    context = predictor.prepare(slide)
    before = predictor.preview(context, context.tiles())
    gene = predictor.bundle.genes[0]
    with_preview = np.concatenate(
        [predictor.bundle.model.read(part.response, "raw")
         for part in predictor.stream(context, context.tiles())]
    )  # fmt: skip
    fresh = Predictor(predictor.bundle, device="cpu", batch_size=8, cache_dir=predictor.cache_dir / "other")
    context = fresh.prepare(slide)
    without = np.concatenate(
        [fresh.bundle.model.read(part.response, "raw") for part in fresh.stream(context, context.tiles())]
    )
    np.testing.assert_array_equal(with_preview, without)
    assert np.isfinite(before.prediction.gene(gene)).all()


def test_it_can_be_cancelled(predictor, striped_slide, monkeypatch):
    monkeypatch.setattr("chrep_model.prediction.predictor.PREVIEW_TILES", 1)
    monkeypatch.setattr("chrep_model.embeddings.slide.SAMPLE", 2)
    context = predictor.prepare(open_slide(striped_slide, mpp=0.7))
    assert predictor.preview(context, context.tiles(), progress=Progress(cancelled=lambda: True)) is None
    assert predictor.preview(context, context.tiles()[:1], progress=SILENT) is not None
