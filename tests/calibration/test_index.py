"""An index of a gallery: what it finds, how that is measured, and when it is not worth it."""

import dataclasses

import numpy as np
import pytest

from chrep_model.calibration import index as indexing
from chrep_model.calibration import index_making
from chrep_model.calibration.gallery import Gallery
from chrep_model.calibration.index import Index, IndexFacts
from chrep_model.calibration.index_making import make_index
from chrep_model.calibration.search import nearest
from chrep_model.progress import SILENT
from chrep_model.statistics import unit_rows

pytest.importorskip("faiss")

N, DIM, K = 40_000, 48, 20


def tissue(seed, n, inner=6):
    """Rows near a curved sheet of few dimensions, as embeddings of tissue are."""
    sheet = np.random.default_rng(7)
    rng = np.random.default_rng(seed)
    to_waves, to_rows = sheet.normal(size=(inner, 64)), sheet.normal(size=(64, DIM))
    rows = np.sin(rng.normal(size=(n, inner)) @ to_waves * 0.5) @ to_rows
    return unit_rows((rows + 0.05 * rng.normal(size=rows.shape)).astype(np.float32))


def gallery_of(z, sections=4):
    number = np.sort(np.arange(len(z)) % sections)
    return Gallery(
        z, np.zeros((len(z), 1), np.float32), number, number, np.zeros((len(z), 2)),
        tuple(f"S{i}" for i in range(sections)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def gallery():
    return gallery_of(tissue(0, N))


def timed(monkeypatch, *seconds):
    """Let the exact search, and then every look into the index, seem to take so long."""
    clock = iter(seconds)
    monkeypatch.setattr(index_making, "_timed", lambda work: (work(), next(clock)))


@pytest.fixture(scope="module")
def made(gallery):
    with pytest.MonkeyPatch.context() as patch:
        timed(patch, 1.0, *[0.1] * 20)
        return make_index(gallery, K)


def recall(found, expected):
    return np.mean([len(np.intersect1d(*pair)) / K for pair in zip(found, expected, strict=True)])


def test_it_finds_the_promised_share_of_the_nearest_of_tiles_that_it_never_saw(gallery, made):
    queries = tissue(1, 300)
    index, similarity = made.nearest(queries, gallery.z, K)
    expected, exact = nearest(queries, gallery.z, K)
    assert recall(index, expected) > index_making.RECALL - 0.02
    assert made.facts.recall >= index_making.RECALL
    assert made.facts.probes < made.facts.lists == 400
    assert (np.diff(similarity, axis=1) <= 0).all()
    same = index == expected
    np.testing.assert_array_equal(similarity[same], exact[same])  # to the bit


def test_ranking_all_rows_of_all_lists_is_the_exact_search(gallery, made, monkeypatch):
    monkeypatch.setattr(indexing, "_SPARE", N // K)
    everything = Index(made.lists, made.facts.model_copy(update={"probes": made.facts.lists}))
    queries = tissue(2, 50)
    for ours, exact in zip(
        everything.nearest(queries, gallery.z, K), nearest(queries, gallery.z, K), strict=True
    ):
        np.testing.assert_array_equal(ours, exact)


def test_recall_is_that_of_spots_that_look_outside_of_their_own_section(gallery, made):
    own = np.sort(np.random.default_rng(5).choice(N, 200, replace=False))
    expected = gallery.search(gallery.z[own], K, exclude="section", section=gallery.section[own]).index
    list_of = made.lists.quantizer.search(gallery.z, 1)[1][:, 0]
    looked_at = made.lists.quantizer.search(gallery.z[own], made.facts.probes)[1]
    within = [np.isin(list_of[rows], lists).mean() for rows, lists in zip(expected, looked_at, strict=True)]
    assert np.mean(within) - 0.03 < made.facts.recall < np.mean(within) + 0.01


def test_rows_of_an_odd_number_of_numbers(monkeypatch):
    timed(monkeypatch, 1.0, *[0.1] * 20)
    assert make_index(gallery_of(unit_rows(tissue(0, 5000)[:, 1:])), K).facts.recall >= index_making.RECALL


def test_spots_of_a_single_section_look_for_the_others(monkeypatch):
    timed(monkeypatch, 1.0, *[0.1] * 20)
    made = make_index(gallery_of(tissue(0, 5000), sections=1), K)
    assert made.facts.recall >= index_making.RECALL


def test_none_is_made_where_all_spots_are_looked_at_as_fast(gallery, monkeypatch):
    timed(monkeypatch, 1.0, 0.5, 1.0)
    assert make_index(gallery, K) is None


def test_queries_whose_lists_hold_too_few_are_looked_for_exactly(gallery, made):
    one = Index(made.lists, made.facts.model_copy(update={"probes": 1}))
    queries = tissue(4, 20)
    index, similarity = one.nearest(queries, gallery.z, 2000)
    assert np.isfinite(similarity).all()
    np.testing.assert_array_equal(index, nearest(queries, gallery.z, 2000)[0])


def test_it_is_the_same_from_a_file_and_for_a_mapped_gallery(gallery, made, tmp_path):
    made.save(tmp_path / "index.faiss")
    again = Index.open(tmp_path / "index.faiss", IndexFacts.model_validate_json(made.facts.model_dump_json()))
    rows = np.memmap(tmp_path / "rows", "<f4", "w+", shape=gallery.z.shape)
    rows[:] = gallery.z
    queries = tissue(5, 100)
    for ours, theirs in zip(
        made.nearest(queries, gallery.z, K), again.nearest(queries, rows, K), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_what_cannot_be_written_or_read_is_said(made, tmp_path):
    with pytest.raises(OSError, match="the disk may be full"):
        made.save(tmp_path / "nowhere" / "index.faiss")
    (tmp_path / "torn.faiss").write_bytes(b"IwPf")
    with pytest.raises(RuntimeError):
        Index.open(tmp_path / "torn.faiss", made.facts)


def test_a_gallery_goes_by_its_index_where_nothing_is_excluded(gallery, made):
    with_index = dataclasses.replace(
        gallery, index=Index(made.lists, made.facts.model_copy(update={"probes": 1}))
    )
    queries = gallery.z[:200]
    assert recall(with_index.search(queries, K).index, gallery.search(queries, K).index) < 0.99
    asked = {"exclude": "section", "section": gallery.section[:200]}
    np.testing.assert_array_equal(
        with_index.search(queries, K, **asked).index, gallery.search(queries, K, **asked).index
    )
    assert (gallery.recall, with_index.recall) == (1.0, made.facts.recall)


def test_the_same_seed_finds_the_same(gallery, made):
    other = Index(index_making._filled(gallery.z, np.random.default_rng(0), 0, SILENT), made.facts)
    queries = tissue(3, 40)
    np.testing.assert_array_equal(
        made.nearest(queries, gallery.z, K)[0], other.nearest(queries, gallery.z, K)[0]
    )
