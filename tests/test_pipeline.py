"""Training and calibrating from a cohort to a bundle: settings, refusals, and what is left behind."""

import numpy as np
import pytest
import torch

from chrep_model import pipeline
from chrep_model.bundle import load_bundle
from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.config import read_yaml, validated
from chrep_model.errors import BundleError, Cancelled, CohortError, GeneError, SettingsError
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.pipeline import TrainSettings, calibrate, partial_training, train
from chrep_model.progress import Progress
from chrep_model.training import checkpoint
from chrep_model.training.features import section_features

SMALL = ChrepSettings(
    trees=5,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)
STOPPED = Progress(cancelled=lambda: True)


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "TREES", 5)
        yield


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def settings(**changes):
    facts = {"tile_um": 100, "mpp": 2.0, "context_um": (200.0,), "genes": 20, "chrep": SMALL}
    return TrainSettings.model_validate(facts | {"method": "ridge"} | changes)


@pytest.fixture
def run(cohort, cache, tmp_path):
    """Train: ``run(method="knn", ...)``; keywords of `train` go into `how`."""

    def run(name="m.chrep", where=cohort, how=(), **changes):
        return train(where, settings(**changes), tmp_path / name, device="cpu", cache=cache, **dict(how))

    return run


@pytest.fixture(scope="module")
def chrep(cohort, cache, tmp_path_factory):
    """A small CHRep bundle, only to be read."""
    out = tmp_path_factory.mktemp("chrep") / "small.chrep"
    return train(cohort, settings(method="chrep", note="SYNTHETIC"), out, device="cpu", cache=cache)


def test_one_seed_gives_one_model(run):
    first, again, other = (run(f"{i}.chrep", method="trees", seed=s) for i, s in enumerate((1, 1, 2)))
    assert first.card.files == again.card.files
    assert first.card.files["weights.safetensors"] != other.card.files["weights.safetensors"]
    assert (first.card.seed, other.card.seed) == (1, 2)


def test_the_card_says_what_was_trained_on_what(chrep, cohort):
    card = load_bundle(chrep.path).card
    assert (card.name, card.method, card.encoder, card.cohort, card.genes) == (
        "small", "chrep", "stainbank", "tiny", 20,
    )  # fmt: skip
    assert card.note == "SYNTHETIC"
    assert [s["name"] for s in card.sections] == list(cohort.names)
    assert [s["spots"] for s in card.sections] == [len(s) for s in cohort]
    assert [s["mpp"] for s in card.sections] == [s.mpp for s in cohort]
    assert ChrepSettings.model_validate(card.settings["chrep"]) == SMALL
    assert card.settings["genes"] == 20


def test_listed_genes_in_their_order_and_no_path_on_the_card(run, cohort, tmp_path):
    genes = cohort.sections[0].genes[5:0:-1]
    (tmp_path / "panel.txt").write_text("\n".join(genes))
    bundle = run(genes=tmp_path / "panel.txt")
    assert bundle.genes == genes
    assert bundle.card.settings["genes"] == "panel.txt"
    assert str(tmp_path) not in (bundle.path / "card.json").read_text()


def test_an_unknown_gene_is_refused_before_anything_is_encoded(cohort, tmp_path):
    (tmp_path / "panel.txt").write_text("NOSUCH1")
    wrong, asked = settings(genes=tmp_path / "panel.txt"), []
    with pytest.raises(GeneError, match="NOSUCH1"):
        train(
            cohort, wrong, tmp_path / "m.chrep", device="cpu", cache=tmp_path / "cache",
            progress=Progress(advance=lambda *tiles: asked.append(tiles)),
        )  # fmt: skip
    assert not asked and not (tmp_path / "cache").exists()


def test_excluded_sections(run, cohort):
    bundle = run(exclude_sections=(cohort.names[0],))
    assert bundle.model.fitted.gallery.section_names == cohort.names[1:]
    with pytest.raises(CohortError, match="at least two sections"):
        run(exclude_sections=cohort.names[:2])
    with pytest.raises(CohortError, match="NOSUCH"):
        run(exclude_sections=("NOSUCH",))


def test_progress_and_report(run):
    tiles, lines = [], []
    progress = Progress(message=lines.append, advance=lambda *step: tiles.append(step))
    run(method="chrep", how={"progress": progress}, tile_um=90)  # tiles that nothing else here looks at
    assert tiles
    assert lines[-1] == "all sections"
    assert sum("without section" in line for line in lines) == 3
    assert all(0 < done <= total for done, total, _ in tiles)


def test_cancelling_leaves_no_bundle(cohort, tmp_path):
    """Before anything, among the tiles, and among the fits of the combination."""
    lines = []
    for moment, asked in (("start", 0), ("tiles", 3), ("fit", 10**6)):
        count = iter(range(asked))
        progress = Progress(
            message=lines.append,
            cancelled=lambda count=count: next(count, None) is None or len(lines) == 2,
        )
        with pytest.raises(Cancelled):
            train(
                cohort, settings(method="chrep", batch_size=8), tmp_path / "m.chrep", device="cpu",
                cache=tmp_path / "cache", progress=progress,
            )  # fmt: skip
        assert not list(tmp_path.glob("m.chrep*")), moment
        assert len(lines) == (2 if moment == "fit" else 0)


def test_cancelling_leaves_the_former_bundle(run):
    former = run()
    with pytest.raises(Cancelled):
        run(seed=1, how={"progress": STOPPED})
    assert load_bundle(former.path).hash == former.hash


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"method": "nonsense"}, SettingsError, "nonsense"),
        ({"encoder": "nonsense_net"}, SettingsError, "nonsense_net"),
        ({"genes": 0}, GeneError, "0 genes"),
        ({"tile_um": 5}, SettingsError, "no room"),
    ],
)
def test_settings_that_cannot_be(run, tmp_path, change, error, match):
    with pytest.raises(error, match=match):
        run(**change)
    assert not list(tmp_path.glob("m.chrep*"))


def test_the_place_is_looked_at_before_the_slides(run, tmp_path, monkeypatch, chrep, cohort):
    (tmp_path / "m.chrep").mkdir()
    monkeypatch.setattr(pipeline, "section_features", lambda *a, **k: pytest.fail("hours were spent first"))
    with pytest.raises(BundleError, match="something else"):
        run()
    with pytest.raises(BundleError, match="something else"):
        calibrate(chrep, cohort, tmp_path / "m.chrep", device="cpu")


def test_calibrating_needs_chrep_and_two_sections(run, chrep, cohort, cache, tmp_path):
    with pytest.raises(BundleError, match="ridge has no calibration") as caught:
        calibrate(run(), cohort, tmp_path / "new.chrep", device="cpu", cache=cache)
    assert "chrep" in caught.value.remedy
    with pytest.raises(CohortError, match="two sections"):
        calibrate(chrep, cohort.only(cohort.names[:1]), tmp_path / "new.chrep", device="cpu", cache=cache)
    assert not (tmp_path / "new.chrep").exists()


def test_calibrating_in_place_and_again(chrep, cohort, cache, tmp_path):
    """The bundle may take its own place, and a calibrated one can be calibrated."""
    import shutil

    copy = load_bundle(shutil.copytree(chrep.path, tmp_path / "site.chrep"))
    site = cohort.only(cohort.names[1:])
    once = calibrate(copy, site, copy.path, device="cpu", cache=cache)
    assert once.model.fitted.gallery.section_names == site.names
    assert "calibrated on tiny from small" in once.card.note
    twice = calibrate(once, site, tmp_path / "twice.chrep", device="cpu", cache=cache)
    assert twice.card.files["weights.safetensors"] == once.card.files["weights.safetensors"]
    with pytest.raises(Cancelled):
        calibrate(once, site, tmp_path / "no.chrep", device="cpu", cache=cache, progress=STOPPED)
    assert not (tmp_path / "no.chrep").exists()


def test_settings_from_yaml(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("method: chrep\ngenes: 50\ncontext_um: [100, 200]\nchrep:\n  phase1: {epochs: 3}\n")
    read = validated(TrainSettings, read_yaml(path), path=path)
    assert (read.method, read.genes, read.context_um, read.chrep.phase1.epochs) == (
        "chrep",
        50,
        (100, 200),
        3,
    )


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("methode: chrep", "methode"),
        ("chrep: {phase1: {epochs: -1}}", "chrep.phase1.epochs"),
        ("tile_um: wide", "tile_um"),
        ("- method", "names and values"),
        ("method: [unclosed", "YAML"),
        ("a: !!python/object/apply:os.getcwd []", "YAML"),
    ],
)
def test_faults_in_settings_name_the_file_and_the_setting(tmp_path, text, match):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=match) as caught:
        validated(TrainSettings, read_yaml(path), path=path)
    assert caught.value.path == str(path)


@pytest.fixture
def tuned(run, tiny_encoder):
    """Train with a fine-tuned encoder: as `run`."""
    name, weights = tiny_encoder
    how = {"method": "chrep", "encoder": name, "weights": weights, "finetune": {"epochs": 3, "lr": 1e-3}}
    return lambda *args, **changes: run(*args, **(how | changes))


def dying(part, number, warned):
    """Give a `progress` that is interrupted with the epoch of a part."""

    def on_epoch(epoch):
        if (epoch.part, epoch.number) == (part, number):
            raise KeyboardInterrupt

    return Progress(epoch=on_epoch, warn=warned.append)


def test_a_fine_tuned_encoder_is_the_bundles_own(tuned, cohort, tiny_encoder):
    bundle = tuned()
    own, start = bundle.path / "encoder.safetensors", tiny_encoder[1]
    assert own.read_bytes() != start.read_bytes()
    assert bundle.card.settings["finetune"]["epochs"] == 3
    assert bundle.card.settings["weights"] == start.name
    encoder = bundle.encoder()
    features = section_features(cohort.sections[:1], encoder, bundle.context_um)[cohort.names[0]]
    predicted = bundle.model.read(bundle.model.respond(features), "calibrated")
    assert predicted.shape == (len(cohort.sections[0]), 20) and np.isfinite(predicted).all()
    assert [p.name for p in bundle.path.parent.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize(
    ("part", "number"),
    [
        ("encoder", 2),
        pytest.param("without SYNTHETIC_P1B/member 1", 1, marks=pytest.mark.slow),
        pytest.param("all sections/corrector", 1, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_ended_early_goes_on_to_the_same_model(tuned, monkeypatch, tmp_path, part, number):
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    whole = tuned("whole.chrep")
    epochs, warned, trained = [], [], []
    with pytest.raises(KeyboardInterrupt):
        tuned(how={"progress": dying(part, number, warned)})
    left = partial_training(tmp_path / "m.chrep")
    assert left.name == "m.chrep.partial-training" and any(left.iterdir())
    assert str(left) in warned[0] and "--resume" in warned.pop()
    step = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: (trained.append(1), step(*a, **k))[1])
    again = tuned(how={"progress": Progress(epoch=epochs.append, warn=warned.append), "resume": True})
    assert again.card.files == whole.card.files
    assert not warned and not left.exists()
    assert [e.number for e in epochs if e.part == "encoder"] == [1, 2, 3]  # the curve is whole
    steps = len(trained)
    trained.clear()
    tuned("other.chrep")
    assert 0 < steps < len(trained)


def test_without_resume_what_was_left_is_discarded_with_a_word(run, tmp_path):
    left = partial_training(tmp_path / "m.chrep")
    left.mkdir()
    warned = []
    run(how={"progress": Progress(warn=warned.append)})
    (line,) = warned
    assert line.startswith(f"{left}: ") and "discarded" in line and "--resume" in line
    run(how={"progress": Progress(warn=warned.append), "resume": True})
    assert "no half-finished training to go on with" in warned[1]
    assert [p.name for p in tmp_path.iterdir()] == ["m.chrep"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"encoder": "stainbank", "weights": None}, "built-in encoder has no weights to fine-tune"),
        ({"method": "ridge"}, "ridge has nothing to fine-tune an encoder by"),
        ({"finetune": {"held_out": "C9"}}, "'C9' cannot be held out"),
    ],
)
def test_what_cannot_be_fine_tuned(tuned, tmp_path, change, match):
    with pytest.raises(SettingsError, match=match) as caught:
        tuned(**change)
    assert caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_cancelling_the_fine_tuning_leaves_nothing(tuned, tmp_path):
    """A folder to go on from is for those who did not mean to stop."""
    asked = iter(range(20))
    with pytest.raises(Cancelled):
        tuned(how={"progress": Progress(cancelled=lambda: next(asked, None) is None)})
    assert not list(tmp_path.iterdir())


def test_weights_from_the_hub_travel_with_the_bundle(tiny_cohort, tiny_encoder, tmp_path, monkeypatch):
    name, _ = tiny_encoder
    import timm
    import torch

    create = timm.create_model

    def hub(name, *, pretrained=False, **options):
        torch.manual_seed(5)  # stands for what the hub has
        return create(name, pretrained=False, **options)

    settings = TrainSettings(encoder=name, method="ridge", genes=8, context_um=())
    monkeypatch.setattr(timm, "create_model", hub)
    bundle = train(open_cohort(tiny_cohort), settings, tmp_path / "m.chrep", device="cpu", cache=tmp_path)
    assert not partial_training(bundle.path).exists()
    tiles = np.random.default_rng(0).integers(0, 256, (2, bundle.spec.px, bundle.spec.px, 3), np.uint8)
    expected = settings.open("cpu").encode(tiles, {})

    def offline(name, *, pretrained=False, **options):
        if pretrained:
            raise OSError("Name or service not known")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    np.testing.assert_array_equal(load_bundle(bundle.path).encoder().encode(tiles, {}), expected)
