"""What the child process does, in this one: what it says and what it makes."""

from __future__ import annotations

import pytest

from chrep_model.bundle import load_bundle
from chrep_model.errors import CohortError
from chrep_model.pipeline import calibrate
from chrep_model.progress import SILENT, Progress
from napari_chrep.retrain.effort import Rates, effort_of, in_words
from napari_chrep.retrain.messages import Curve, StageBegun
from napari_chrep.retrain.request import RetrainRequest, Workspace, free_place
from napari_chrep.retrain.work import Work


@pytest.fixture
def work(small_bundle, small_cohort, tmp_path):
    """Do a job: ``work("calibrate", cohort=..., folds=1)`` gives the workspace, the job and the messages."""

    def work(preset, cohort=small_cohort, **facts):
        job = RetrainRequest(preset=preset, in_use=small_bundle, out=tmp_path / "new.chrep", **facts)
        space, messages = Workspace.beside(job.out), []
        space.begin(job, cohort)
        Work(space, messages.append, SILENT).run()
        assert not job.out.exists()  # that is for the user to say
        return space, job, messages

    return work


def test_calibrating(work, small_bundle, small_cohort, tmp_path):
    before = load_bundle(small_bundle).hash
    space, job, messages = work("calibrate")
    names = small_cohort.names
    comparison = space.read_comparison()
    assert {row.section: row.seen for row in comparison.rows} == {
        names[2]: "no", names[0]: "section", names[1]: "section",
    }  # fmt: skip
    assert "flatters" in comparison.how and "it keeps the heads" in comparison.how
    assert [row.kept for row in comparison.rows] == [False, True, True]
    stages = [m for m in messages if isinstance(m, StageBegun)]
    assert [(s.number, s.of) for s in stages] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert stages[-1].what == "new model" and stages[0].what == f"without {names[2]}"
    curves = [m for m in messages if isinstance(m, Curve)]
    assert {c.stage for c in curves} == {s.what for s in stages}
    watched = {c.part for c in curves if c.held_out is not None and c.stage == "new model"}
    assert watched == {f"without {name}/corrector" for name in names}
    found = load_bundle(space.result(job))
    expected = calibrate(load_bundle(small_bundle), small_cohort, tmp_path / "by_hand.chrep", device="cpu")
    assert found.card.files == expected.card.files and found.card.name == "new"
    assert load_bundle(small_bundle).hash == before


def test_training_with_other_genes(work, small_bundle, small_cohort):
    space, job, messages = work("train", genes=12, folds=1, seed=3)
    new, old = load_bundle(space.result(job)), load_bundle(small_bundle)
    assert len(new.genes) == 12 and new.card.seed == 3
    assert new.card.encoder_id == old.card.encoder_id and new.context_um == old.context_um
    assert [s["name"] for s in new.card.sections] == list(small_cohort.names)
    assert new.card.settings["chrep"] == old.card.settings["chrep"]
    (row,) = space.read_comparison().rows
    assert 0 < row.genes <= 12 and row.seen == "no"
    parts = {m.part for m in messages if isinstance(m, Curve) and m.held_out is not None}
    assert {f"without {name}/member 1" for name in small_cohort.names} <= parts


def test_the_same_genes(work, small_bundle):
    space, job, _ = work("train", folds=0)
    new, old = load_bundle(space.result(job)), load_bundle(small_bundle)
    assert new.genes == old.genes
    comparison = space.read_comparison()
    assert comparison.rows == () and "no section was to be held out" in comparison.how


def test_the_open_sections_spots(work, small_cohort):
    section = small_cohort.names[2]
    space, job, _ = work("add", cohort=small_cohort.only([section]))
    gallery = load_bundle(space.result(job)).model.fitted.gallery
    assert gallery.section_names == small_cohort.names
    comparison = space.read_comparison()
    assert comparison.rows == () and "flatter" in comparison.how


def test_fine_tuning_stops_when_asked(small_cohort, tiny_encoder, tmp_path):
    """One trial without a section, then the new encoder; each stops at an epoch, with its best weights."""
    from chrep_model.pipeline import TrainSettings, train

    from .conftest import COARSE

    name, weights = tiny_encoder
    settings = TrainSettings(**COARSE | {"encoder": name, "weights": weights, "note": "SYNTHETIC"})
    two = small_cohort.only(small_cohort.names[:2])
    in_use = train(two, settings, tmp_path / "timm.chrep", device="cpu", cache=tmp_path / "cache")
    job = RetrainRequest(preset="finetune", in_use=in_use.path, out=tmp_path / "new.chrep", epochs=3)
    space, messages = Workspace.beside(job.out), []
    space.begin(job, small_cohort)
    Work(space, messages.append, Progress(enough=lambda: True)).run()
    assert len(space.read_comparison().rows) == 1
    epochs = [m.number for m in messages if isinstance(m, Curve) and m.part == "encoder"]
    assert epochs == [1, 1]
    new = load_bundle(space.result(job))
    assert new.card.encoder_id != in_use.card.encoder_id
    assert (new.path / "encoder.safetensors").exists()


def test_one_section_is_too_few(work, small_cohort):
    with pytest.raises(CohortError, match="two sections"):
        work("train", cohort=small_cohort.only(small_cohort.names[:1]))


def test_effort_and_words(small_bundle, small_cohort, tmp_path):
    card = load_bundle(small_bundle).card
    n = {s.name: len(s) for s in small_cohort}
    total, first = sum(n.values()), n[small_cohort.names[2]]  # the one that is held out first

    def effort(preset, **facts):
        return effort_of(
            RetrainRequest(preset=preset, in_use=small_bundle, out=tmp_path / "x.chrep", **facts),
            small_cohort,
            card,
        )

    # every section but one, of two and of three, and all of them
    one = effort("calibrate", folds=1)
    assert (one.models, one.fits, one.tuned) == (2, 3 + 4, 0)
    assert one.spots == pytest.approx(2 * (total - first) + 3 * total)
    assert effort("train", folds=0).fits == 4  # the settings are those of the card: no search
    tuned = effort("finetune", epochs=3)
    assert tuned.models == 2 and tuned.tuned == 3 * (2 * total - first)
    assert effort("add").fits == 0
    rates = Rates(tile={"stainbank": 0.1}, spot={"calibrate": 0.01})
    low, high = rates.seconds(one, "calibrate", "stainbank", 1200)
    assert low < 6 + 120 + 0.01 * one.spots < high < 2 * low
    assert in_words((61.0, 170.0), one, 1200) == (
        "About 1–3 min: 1,200 tiles to encode, 2 models (7 fits), 1 of them for the comparison."
    )
    assert in_words((10.0, 26.0), one, 0).startswith("About 10–25 s: no tile to encode")
    assert (
        Rates().seconds(one, "calibrate", "stainbank", 0)[1] > 2 * Rates().seconds(one, "calibrate", "", 0)[0]
    )


def test_a_name_that_is_free(small_bundle, tmp_path):
    first = free_place(small_bundle, "calibrate", tmp_path)
    assert first == tmp_path / "small_calibrated.chrep"
    Workspace.beside(first).folder.mkdir()
    assert free_place(small_bundle, "calibrate", tmp_path).name == "small_calibrated-2.chrep"
