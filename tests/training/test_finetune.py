"""Fine-tuning: a smaller loss, other weights, the same ones after a kill and on two processes."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.encoders.opening import open_encoder
from chrep_model.errors import Cancelled, SettingsError, TrainingError
from chrep_model.methods.method_settings import make_method
from chrep_model.methods.model import FeatureScale, spot_table
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.tiles import TileReader
from chrep_model.training import finetune as module
from chrep_model.training.augmentation import Augmentation
from chrep_model.training.finetune import FinetuneSettings, finetune, read_tiles
from chrep_model.training.objective import Objective
from chrep_model.training.run import Run

SHORT = {"epochs": 2, "spots_per_section": 12, "lr": 1e-3}


@pytest.fixture(scope="module")
def cohort(tiny_cohort):
    return open_cohort(tiny_cohort)


@pytest.fixture(scope="module")
def table(cohort):
    panel = GenePanel.fit(cohort.sections, 8)
    none = np.empty(0, np.float32)
    blank = {s.name: np.empty((len(s), 0), np.float32) for s in cohort}
    return spot_table(cohort.sections, blank, panel, FeatureScale(none, none))


def opened(named):
    name, weights = named
    return open_encoder(name, weights=weights, mpp=2.0)


@pytest.fixture
def tune(cohort, table, tiny_encoder, make_line, tmp_path):
    """Fine-tune: gives the bytes of the weights, the epochs and the objective."""

    def tune(seed=0, on=table, objective=None, told=SILENT, **changes):
        encoder = opened(tiny_encoder)
        objective, epochs = objective or make_line(encoder.dim, 8), []
        settings = FinetuneSettings.model_validate(SHORT | changes)
        run = Run(replace(told, epoch=epochs.append))
        out = tmp_path / "tuned.safetensors"
        finetune(encoder, objective, cohort.sections, on, settings, out, seed=seed, run=run)
        return out.read_bytes(), epochs, objective

    return tune


def test_the_loss_falls_and_the_weights_are_an_encoder(tune, tiny_encoder, tmp_path, table):
    _, epochs, _ = tune(epochs=4, spots_per_section=6)
    assert epochs[-1].loss < epochs[0].loss
    assert all(-1 <= e.held_out <= 1 for e in epochs)
    start, end = load_file(tiny_encoder[1]), load_file(tmp_path / "tuned.safetensors")
    assert set(start) == set(end)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert "conv_stem.weight" in changed and "conv_head.weight" in changed
    assert not any("running" in name for name in changed)  # batch norm is trained in eval mode
    old = opened(tiny_encoder)
    new = opened((tiny_encoder[0], tmp_path / "tuned.safetensors"))
    assert (new.spec, new.dim) == (old.spec, old.dim) and new.id != old.id
    tiles = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    assert np.abs(new.encode(tiles, {}) - old.encode(tiles, {})).max() > 1e-4


def test_the_seed_decides(tune):
    one, same, other = (tune(seed, epochs=1)[0] for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("name", ["bleep", "mclstexp", "heclip", "hage_like", "chrep"])
def test_every_network_trains_an_encoder(name, tune, tiny_encoder, tmp_path):
    torch.manual_seed(0)
    objective = make_method(name).objective(opened(tiny_encoder).dim, 8)
    _, epochs, trained = tune(epochs=1, spots_per_section=8, objective=objective)
    assert trained is objective
    assert np.isfinite(epochs[0].loss)
    start, end = load_file(tiny_encoder[1]), load_file(tmp_path / "tuned.safetensors")
    assert not torch.equal(start["conv_stem.weight"], end["conv_stem.weight"])


def test_a_held_out_section_teaches_nothing_but_when_to_stop(tune, table):
    """With a single epoch there is nothing to choose."""
    targets = table.targets.copy()
    targets[table.section == 1] = 9.0
    other = replace(table, targets=targets)
    held = table.section_names[1]
    assert tune(epochs=1, held_out=held)[0] == tune(epochs=1, held_out=held, on=other)[0]
    assert tune(epochs=1)[0] != tune(epochs=1, on=other)[0]  # then the last section is held out


def test_the_best_epoch_is_kept(tune):
    """A rate at which later epochs only do harm."""
    _, epochs, _ = tune(epochs=6, patience=2, lr=0.05, head_lr=0.3)
    scores = [e.held_out for e in epochs]
    best = int(np.argmax(scores))
    assert len(epochs) == best + 3 < 6


def test_an_unknown_section_cannot_be_held_out(tune):
    with pytest.raises(SettingsError, match="'C9' cannot be held out of fine-tuning on SYNTHETIC_P1A"):
        tune(held_out="C9")


def test_cancelling_between_batches(tune, tmp_path):
    asked = iter(range(12))
    with pytest.raises(Cancelled):
        tune(told=Progress(cancelled=lambda: next(asked, None) is None))
    assert not list(tmp_path.iterdir())


def test_progress_is_told_by_batches(tune):
    told = []
    tune(epochs=1, told=Progress(advance=lambda *step: told.append(step)))
    tiles = [step for step in told if step[2].startswith("tiles of")]
    batches = [step[:2] for step in told if "fine-tuning" in step[2]]
    assert [t[0] for t in tiles] == [t[1] for t in tiles]
    assert batches == [(i + 1, len(batches)) for i in range(len(batches))] and batches


def test_targets_that_are_no_numbers_are_named(tune, table):
    targets = table.targets.copy()
    targets[3] = np.nan
    with pytest.raises(TrainingError, match=r"the targets of section SYNTHETIC_P1A \(rows 3\)"):
        tune(on=replace(table, targets=targets), spots_per_section=99)


def test_features_that_are_no_numbers_are_named(tune, monkeypatch):
    draw = Augmentation.draw.__func__

    def broken(cls, n, jitter):
        drawn = draw(cls, n, jitter)
        drawn.gain[0] = torch.nan
        return drawn

    monkeypatch.setattr(Augmentation, "draw", classmethod(broken))
    with pytest.raises(
        TrainingError, match=r"epoch 1, batch 1: the inputs of section \w+ \(rows \d+\) are not"
    ):
        tune()


class Looking(Objective):
    """Looks at all spots before each epoch."""

    def __init__(self):
        super().__init__()
        self.line, self.seen = nn.Linear(256, 8), []

    def before_epoch(self, x, targets):
        self.seen.append((x.numpy(), targets))

    def loss(self, x, batch):
        assert x.shape == (len(batch.rows), 256)
        return (self.line(x) - batch.targets).pow(2).mean()


def test_an_objective_may_look_at_all_spots_standardised_per_section(tune, table):
    _, epochs, objective = tune(objective=Looking())
    trained = table.section != 2
    (x, targets), (later, _) = objective.seen
    np.testing.assert_array_equal(targets, table.targets[trained])
    assert x.shape == (trained.sum(), 256) and np.abs(x).max() <= 6
    for s in (0, 1):
        rows = table.section[trained] == s
        np.testing.assert_allclose(x[rows].mean(0), 0, atol=0.2)  # cut at 6 standard deviations
        assert np.median(x[rows].std(0)) == pytest.approx(1, abs=0.1)
    assert np.abs(later - x).max() > 1e-3
    assert [e.held_out for e in epochs] == [None, None]  # it predicts nothing by itself


def test_layers_learn_the_slower_the_earlier_they_are(monkeypatch, tune):
    seen = {}

    def watched(task, **how):
        names = {id(p): name for name, p in task.module.named_parameters()}
        seen.update({names[id(p)]: g["lr"] for g in task.groups for p in g["params"]})
        assert set(seen) == set(names.values())

    monkeypatch.setattr(module, "run_epochs", watched)
    tune(lr=1e-4, head_lr=1e-2, layer_decay=0.5)
    assert seen["encoder.conv_stem.weight"] < seen["encoder.blocks.1.0.conv_exp.weight"] < 1e-4
    assert seen["encoder.conv_head.weight"] == 1e-4
    assert seen["objective.line.weight"] == 1e-2


def test_tiles_are_those_of_the_reader_in_memory_and_beside_it(cohort, tiny_encoder, monkeypatch):
    encoder = opened(tiny_encoder)
    held = read_tiles(cohort.sections, encoder)
    monkeypatch.setattr(module, "IN_MEMORY", 0)
    beside = read_tiles(cohort.sections, encoder)
    assert isinstance(beside, np.memmap) and not isinstance(held, np.memmap)
    np.testing.assert_array_equal(held, beside)
    last = cohort.sections[-1]
    with last.open_slide() as slide:
        np.testing.assert_array_equal(held[-len(last) :], TileReader(slide, encoder.spec).read(last.xy))


# Every fit is a process of its own, forked after the slow imports: one whole, one that is killed in the
# middle of the second epoch and goes on, and one on two processes.
FITS = """
import os, signal, socket, sys
from pathlib import Path
import numpy as np
import torch
from conftest import Line
from chrep_model.cohorts.cohort import open_cohort
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.methods.model import FeatureScale, spot_table
from chrep_model.encoders.opening import open_encoder
from chrep_model.training import checkpoint
from chrep_model.training.distributed import process_group
from chrep_model.training.finetune import FinetuneSettings, finetune
from chrep_model.training.run import Run

folder, name_of_encoder, weights = Path(sys.argv[1]), sys.argv[3], Path(sys.argv[4])
cohort, checkpoint.EVERY_S = open_cohort(sys.argv[2]), 0.0
panel, none = GenePanel.fit(cohort.sections, 8), np.empty(0, np.float32)
blank = {s.name: np.empty((len(s), 0), np.float32) for s in cohort}
table = spot_table(cohort.sections, blank, panel, FeatureScale(none, none))
table.graph()
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
open_encoder(name_of_encoder, weights=weights, mpp=2.0)

def fit(name, kill_at=None):
    torch.manual_seed(0)
    encoder, batches = open_encoder(name_of_encoder, weights=weights, mpp=2.0), 0
    objective = Line(encoder.dim, 8, dropout=0.3)
    loss = objective.loss

    def watched(x, batch):
        nonlocal batches
        batches += 1
        if batches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(x, batch)

    objective.loss = watched
    settings = FinetuneSettings(epochs=3, spots_per_section=12)
    with process_group() as ranks:
        out = folder / (name if ranks.first else f"{name} of the other")
        run = Run(checkpoints=folder / f"{name} kept")
        finetune(encoder, objective, cohort.sections, table, settings, out, seed=0, run=run, ranks=ranks)
        (folder / f"{name} {ranks.rank}").write_bytes(encoder.weights_file())
        (folder / f"{name} {ranks.rank} batches").write_text(str(batches))

def forked(*args, **environment):
    if (child := os.fork()) == 0:
        os.environ |= environment
        fit(*args)
        os._exit(0)
    return child

def ended(child):
    return os.waitpid(child, 0)[1]

assert ended(forked("whole")) == 0
assert ended(forked("killed", 6)) == signal.SIGKILL
assert not (folder / "killed").exists()
assert ended(forked("killed")) == 0
with socket.socket() as free:
    free.bind(("localhost", 0))
    port = str(free.getsockname()[1])
two = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
assert [ended(child) for child in [forked("two", RANK=str(rank), **two) for rank in range(2)]] == [0, 0]
"""


@pytest.fixture(scope="module")
def fits(script, tiny_cohort, tiny_encoder, tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("the program forks")
    folder = tmp_path_factory.mktemp("fits")
    script(FITS, folder, tiny_cohort, *tiny_encoder)
    return folder


@pytest.mark.slow
def test_killed_in_the_second_epoch_it_ends_at_the_same_bytes(fits):
    assert (fits / "killed").read_bytes() == (fits / "whole").read_bytes()
    whole, after = (int((fits / f"{name} 0 batches").read_text()) for name in ("whole", "killed"))
    assert (whole, after) == (12, 8)  # the first epoch's four batches were kept


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(fits):
    one, first, other = (load_file(fits / name) for name in ("whole", "two 0", "two 1"))
    for name in one:
        assert torch.equal(first[name], other[name]), name
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_only_the_first_process_writes(fits):
    assert (fits / "two").read_bytes() == (fits / "two 0").read_bytes()
    assert not (fits / "two of the other").exists()
    assert len(list((fits / "two kept").iterdir())) == 1
