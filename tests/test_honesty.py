"""Nothing of a test section reaches the model that is tested on it.

A fold is fitted by the benchmark itself, once as it is and once with the test section's counts or pixels
replaced, and the two models are compared bit by bit. The same comparison with a *training* section changed
shows that it would notice.
"""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import sparse

from chrep_model.bundle import load_bundle
from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.evaluation import benchmark
from chrep_model.evaluation import fits as jobs
from chrep_model.evaluation.benchmark import EvaluateSettings, evaluate
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings
from chrep_model.methods.registry import BUILT_IN
from chrep_model.pipeline import TrainSettings, calibrate, train
from chrep_model.training.features import section_features

TEST, TRAIN = "SYNTHETIC_P2A", "SYNTHETIC_P1A"
CONTEXT = (200.0,)
# Methods of which every run of the tests asks; `make test-all` asks of all.
ALWAYS = ("ridge", "chrep")
REST = tuple(method for method in BUILT_IN if method not in ALWAYS)
TOGETHER = pytest.mark.parametrize(
    "methods", [ALWAYS, pytest.param(REST, marks=pytest.mark.slow)], ids=["always", "rest"]
)
SMALL = ChrepSettings(
    trees=5,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)
TILES = {"tile_um": 100, "mpp": 2.0, "context_um": CONTEXT}
SETTINGS = EvaluateSettings(genes=20, test_sections=(TEST,), chrep=SMALL, **TILES)


@pytest.fixture(scope="module", autouse=True)
def _few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "TREES", 5)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: what is stored of one cohort must not leak into another either."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


def replaced(cohort: Cohort, name: str, **changes: Any) -> Cohort:
    sections = tuple(dataclasses.replace(s, **changes) if s.name == name else s for s in cohort.sections)
    return Cohort(cohort.path, cohort.name, sections)


def with_other_counts(cohort: Cohort, name: str) -> Cohort:
    """Random counts, deeper and of other genes' abundance."""
    section = cohort[name]
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.5, 40, section.counts.shape[1])
    counts = sparse.csr_matrix(rng.poisson(rates, section.counts.shape).astype(np.float32))
    return replaced(cohort, name, counts=counts)


def with_other_pixels(cohort: Cohort, name: str, folder) -> Cohort:
    """Another section's picture, upside down and darker."""
    other = next(s for s in cohort.sections if s.name != name)
    with Image.open(other.slide_path) as image:
        pixels = np.asarray(image.convert("RGB"))[::-1, ::-1]
    path = folder / f"{name}.png"
    Image.fromarray((255 * (pixels / 255.0) ** 1.5).astype(np.uint8)).save(path)
    return replaced(cohort, name, slide_path=path)


@pytest.fixture(scope="module")
def changed(cohort, tmp_path_factory):
    """The cohort with something of one section replaced: ``changed(kind, name)``."""

    def make(kind: str, name: str) -> Cohort:
        if kind == "counts":
            return with_other_counts(cohort, name)
        return with_other_pixels(cohort, name, tmp_path_factory.mktemp("pixels"))

    return make


def by_method(but: str = "") -> pytest.MarkDecorator:
    rest = [pytest.param(method, marks=pytest.mark.slow) for method in REST if method != but]
    return pytest.mark.parametrize("method", [*ALWAYS, *rest])


def settings_of(methods: tuple[str, ...]) -> EvaluateSettings:
    return SETTINGS.model_copy(update={"methods": methods})


class Watched:
    """What the benchmark fitted and answered on one fold."""

    def __init__(self, cohort: Cohort, methods: tuple[str, ...], cache, out, monkeypatch) -> None:
        self.models: dict[str, Any] = {}
        self.features: dict[str, Any] = {}
        fit_model, section_features = jobs.fit_model, benchmark.section_features

        def embed(*args, **kwargs):
            self.features = section_features(*args, **kwargs)
            return self.features

        def fit(method, sections, features, *args, **kwargs):
            assert TEST not in {s.name for s in sections}
            assert TEST not in features
            self.models[method.name] = fit_model(method, sections, features, *args, **kwargs)
            return self.models[method.name]

        with monkeypatch.context() as patch:
            patch.setattr(jobs, "fit_model", fit)
            patch.setattr(benchmark, "section_features", embed)
            patch.setattr(benchmark, "write_report", lambda path, *of: path.touch())  # fits matter here
            self.scores = evaluate(cohort, settings_of(methods), out, device="cpu", cache=cache).scores

    def answers(self, method: str) -> dict[str, np.ndarray]:
        """What the model says of the test section, by variant."""
        model = self.models[method]
        response = model.respond(self.features[TEST])
        return {variant: model.read(response, variant) for variant in model.fitted.variants}

    def numbers(self, method: str) -> dict[str, Any]:
        """Everything that a model consists of, by name."""
        model = self.models[method]
        gallery = vars(model.fitted.gallery)
        parts = {"genes": model.panel.genes, "mean": model.panel.mean, "sd": model.panel.sd}
        parts |= {"scale mean": model.scale.mean, "scale sd": model.scale.sd}
        parts |= {f"gallery {name}": values for name, values in gallery.items()}
        return parts | {f"weights {name}": values for name, values in model.fitted.arrays().items()}


def difference(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """Names of the numbers that differ in a single bit."""
    assert set(a) == set(b)
    return {
        name
        for name in a
        if (a[name].tobytes() != b[name].tobytes() if isinstance(a[name], np.ndarray) else a[name] != b[name])
    }


@pytest.fixture(scope="module")
def run(changed, cohort, cache, tmp_path_factory):
    """Evaluate a method, and its like, once per change: ``run("knn")``, ``run("knn", "counts", TEST)``."""
    runs: dict[tuple[Any, ...], Watched] = {}

    def run(method: str, *change: str) -> Watched:
        methods = ALWAYS if method in ALWAYS else REST
        if (methods, change) not in runs:
            with pytest.MonkeyPatch.context() as patch:
                where = tmp_path_factory.mktemp("out") / "e"
                other = changed(*change) if change else cohort
                runs[methods, change] = Watched(other, methods, cache, where, patch)
        return runs[methods, change]

    return run


@pytest.mark.parametrize("kind", ["counts", "pixels"])
@by_method()
def test_the_model_of_a_fold_does_not_know_its_test_section(run, method, kind):
    before, after = run(method), run(method, kind, TEST)
    assert len(before.numbers(method)) > 10
    assert not difference(before.numbers(method), after.numbers(method))


@by_method()
def test_what_it_says_comes_from_pixels_alone(run, method):
    """Other counts of the test section move the scores, and no prediction; other pixels move that."""
    before, counts, pixels = run(method), run(method, "counts", TEST), run(method, "pixels", TEST)
    for variant, values in before.answers(method).items():
        np.testing.assert_array_equal(counts.answers(method)[variant], values)
        if method != "mean":
            assert np.abs(pixels.answers(method)[variant] - values).max() > 1e-3
    rows = (before.scores["method"] == method) & (before.scores["metric"] == "mse")
    assert (before.scores["value"][rows] != counts.scores["value"][rows]).all()


@by_method(but="mean")
def test_the_comparison_notices_a_training_section(run, method):
    """Else the tests above could not fail."""
    before, counts, pixels = (
        run(method, *change).numbers(method) for change in ((), ("counts", TRAIN), ("pixels", TRAIN))
    )
    weights = {name for name in before if name.startswith("weights ") and before[name].size > 1}
    by_counts = difference(before, counts) if before.keys() == counts.keys() else set()
    assert {"genes", "mean", "sd", "gallery expression"} <= by_counts
    assert {"scale mean", "scale sd", "gallery z"} <= difference(before, pixels)
    if method != "knn":  # whose only weights are k and temperature
        assert weights & by_counts
        assert weights & difference(before, pixels)


@TOGETHER
def test_the_test_sections_counts_are_not_touched_while_fitting(
    methods, cohort, cache, tmp_path, monkeypatch
):
    armed = False

    class Guarded(Section):
        def __getattribute__(self, name):
            if armed and name in ("counts", "xy", "spot_ids", "open_slide", "slide_path"):
                pytest.fail(f"{name} of the test section was read while a model was fitted")
            return super().__getattribute__(name)

    sections = tuple(Guarded(**vars(s)) if s.name == TEST else s for s in cohort.sections)
    fit_model = jobs.fit_model

    def fit(*args, **kwargs):
        nonlocal armed
        armed = True
        try:
            return fit_model(*args, **kwargs)
        finally:
            armed = False

    monkeypatch.setattr(jobs, "fit_model", fit)
    guarded = Cohort(cohort.path, cohort.name, sections)
    assert len(evaluate(guarded, settings_of(methods), tmp_path / "e", device="cpu", cache=cache).scores)
    armed = True  # the guard does guard
    with pytest.raises(pytest.fail.Exception):
        _ = sections[cohort.names.index(TEST)].counts


@pytest.mark.parametrize("kind", ["counts", "pixels"])
def test_features_of_training_sections_do_not_hear_of_another_section(cohort, changed, kind):
    """Without a cache: stain, standardisation and context are every slide's own."""
    encoder = EvaluateSettings(**TILES).open("cpu")
    before = section_features(cohort.sections, encoder, CONTEXT)
    after = section_features(changed(kind, TEST).sections, encoder, CONTEXT)
    for name in cohort.names:
        same = before[name].tobytes() == after[name].tobytes()
        assert same == (name != TEST or kind == "counts"), name
    alone = section_features([cohort[TRAIN]], encoder, CONTEXT)
    assert alone[TRAIN].tobytes() == before[TRAIN].tobytes()


@TOGETHER
def test_a_gene_of_the_test_section_alone_is_never_chosen(methods, cohort, cache, tmp_path, monkeypatch):
    section = cohort[TEST]
    rng = np.random.default_rng(0)
    wild = sparse.csr_matrix(rng.poisson(rng.gamma(0.3, 100, (len(section), 1))).astype(np.float32))
    counts = sparse.hstack([section.counts, wild]).tocsr()
    wilder = replaced(cohort, TEST, counts=counts, genes=(*section.genes, "ONLY_HERE"))
    for other in (name for name in cohort.names if name != TEST):  # measured there too, and never counted
        counts = sparse.hstack([cohort[other].counts, sparse.csr_matrix((len(cohort[other]), 1))]).tocsr()
        wilder = replaced(wilder, other, counts=counts, genes=(*cohort[other].genes, "ONLY_HERE"))
    assert "ONLY_HERE" in GenePanel.fit(wilder.sections, 20).genes  # with the test section it would be
    after = Watched(wilder, methods, cache, tmp_path / "e", monkeypatch)
    for method in methods:
        assert "ONLY_HERE" not in after.models[method].panel.genes


# Training and calibrating


def test_an_excluded_section_is_never_looked_at(cohort, cache, tmp_path):
    """Its picture need not even be there."""
    settings = TrainSettings(method="ridge", genes=20, exclude_sections=(TEST,), **TILES)
    with_it = train(cohort, settings, tmp_path / "a.chrep", device="cpu", cache=cache)
    gone = replaced(with_other_counts(cohort, TEST), TEST, slide_path=tmp_path / "gone.jpg")
    without = train(gone, settings, tmp_path / "b.chrep", device="cpu", cache=cache)
    assert with_it.card.files["weights.safetensors"] == without.card.files["weights.safetensors"]
    assert with_it.card.files["gallery.zarr"] == without.card.files["gallery.zarr"]
    assert with_it.panel.hash == without.panel.hash
    assert TEST not in {s["name"] for s in with_it.card.sections}


def test_calibrating_leaves_encoder_panel_and_heads_alone(cohort, cache, tmp_path):
    settings = TrainSettings(method="chrep", genes=20, chrep=SMALL, **TILES)
    old = train(cohort.without([TEST]), settings, tmp_path / "old.chrep", device="cpu", cache=cache)
    before = {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file()}
    site = cohort.without([TRAIN])
    calibrate(old, site, tmp_path / "new.chrep", device="cpu", cache=cache)
    new = load_bundle(tmp_path / "new.chrep")

    assert {p: p.read_bytes() for p in old.path.rglob("*") if p.is_file()} == before
    assert new.card.encoder_id == old.card.encoder_id
    assert (new.spec, new.context_um, new.panel.hash) == (old.spec, old.context_um, old.panel.hash)
    for name in ("mean", "sd"):
        assert getattr(new.model.scale, name).tobytes() == getattr(old.model.scale, name).tobytes()
    ours, theirs = load_bundle(old.path).model.fitted.arrays(), new.model.fitted.arrays()
    heads = [name for name in ours if name.startswith(("phase1.", "forest.", "simple."))]
    assert len(heads) > 10
    assert not [name for name in heads if ours[name].tobytes() != theirs[name].tobytes()]
    # what is renewed is renewed, from the new sections alone
    assert ours["corrector.readout.weight"].tobytes() != theirs["corrector.readout.weight"].tobytes()
    assert ours["combination.weights"].tobytes() != theirs["combination.weights"].tobytes()
    gallery = new.model.fitted.gallery
    assert gallery.section_names == site.names
    expected = np.concatenate([new.panel.standardise(new.panel.expression(s)) for s in site])
    np.testing.assert_array_equal(gallery.expression, expected)
    assert [s["name"] for s in new.card.sections] == list(site.names)


def test_a_copy_elsewhere_gives_the_same_model(cohort, tiny_cohort, cache, tmp_path):
    """Neither paths nor what is in the cache decide anything."""
    settings = TrainSettings(method="chrep", genes=20, chrep=SMALL, **TILES)
    here = train(cohort, settings, tmp_path / "a.chrep", device="cpu", cache=cache)
    moved = open_cohort(shutil.copytree(tiny_cohort, tmp_path / "tiny"))
    there = train(moved, settings, tmp_path / "b.chrep", device="cpu", cache=tmp_path / "cache")
    assert here.card.files == there.card.files
