"""A training that was killed ends where an uninterrupted one ends, and only its own checkpoint is used."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from chrep_model.progress import Progress
from chrep_model.training import checkpoint
from chrep_model.training.checkpoint import file_name
from chrep_model.training.loop import train_objective
from chrep_model.training.run import Run

PART = "without C2/member 1"
HOW = {
    "epochs": 6, "lr": 0.05, "weight_decay": 0.01, "seed": 3,
    "sections_per_batch": 2, "spots_per_section": 16,
}  # fmt: skip

# Every fit is a process of its own and kills itself in the middle of an epoch. They are forked after the slow
# imports, some of which wait for the first use.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from conftest import Line, small_table
from chrep_model.training import checkpoint
from chrep_model.training.loop import train_objective
from chrep_model.training.run import Run

folder, table, checkpoint.EVERY_S = Path(sys.argv[1]), small_table(), 0.0
table.graph()
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])

def fit(name, checkpoints, kill_at):
    torch.manual_seed(0)
    objective, batches = Line(6, 4, dropout=0.5), 0
    loss = objective.loss

    def watched(x, batch):
        nonlocal batches
        batches += 1
        if batches == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(x, batch)

    objective.loss = watched
    train_objective(
        objective, table.features, table, epochs=6, lr=0.05, weight_decay=0.01, seed=3, sections_per_batch=2,
        spots_per_section=16, held_out=[2], patience=4, run=Run(checkpoints=checkpoints),
    )
    save_file(objective.state_dict() | {"batches": torch.tensor(batches), "after": torch.rand(3)}, name)

def forked(*args):
    if os.fork() == 0:
        fit(*args)
        os._exit(0)
    return os.wait()[1]

assert forked(folder / "whole", None, None) == 0
for kill_at in (5, 6, 4):  # batches after the start: epochs 2, 3 and 4 of three batches each
    assert forked(folder / "killed", folder / "kept", kill_at) == signal.SIGKILL
assert forked(folder / "killed", folder / "kept", None) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the program forks")
def test_killed_three_times_it_ends_at_the_same_bits(script, tmp_path):
    script(KILLED, tmp_path)
    whole, killed = load_file(tmp_path / "whole"), load_file(tmp_path / "killed")
    assert (int(whole.pop("batches")), int(killed.pop("batches"))) == (18, 9)  # three epochs were kept
    for name, value in whole.items():
        assert torch.equal(killed[name], value), name  # "after": torch goes on with the same random numbers
    assert [p.suffix for p in (tmp_path / "kept").iterdir()] == [".safetensors"]


@pytest.fixture
def fit(table, make_line, tmp_path):
    """Train: gives the network, its batches, its epochs and the warnings."""

    def fit(on=table, dropout=0.5, part=PART, **how):
        epochs, warned = [], []
        run = Run(Progress(epoch=epochs.append, warn=warned.append), tmp_path / "kept", part)
        objective = make_line(dropout=dropout)
        train_objective(objective, on.features, on, **HOW | how, run=run)
        return objective, len(objective.seen), epochs, warned

    return fit


def test_a_complete_network_is_loaded_and_its_curve_told_again(fit):
    first, trained, curve, _ = fit()
    after = torch.rand(2)
    again, retrained, same, warned = fit()
    assert (trained, retrained, warned) == (6, 0, [])
    assert torch.equal(first.line.weight, again.line.weight)
    assert torch.equal(torch.rand(2), after)
    assert same == curve and len(curve) == 6
    assert not again.training


def test_parts_do_not_share_a_file(fit):
    fit()
    assert fit(part="without C2/member 2")[1] == 6
    assert fit()[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.04},
        {"seed": 4},
        {"epochs": 5},
        {"dropout": 0.4},
        {"spots_per_section": 15},
        {"held_out": [0]},
    ],
)
def test_a_network_of_other_settings_is_ignored_with_a_reason(fit, change):
    fit()
    _, trained, _, warned = fit(**change)
    assert trained == change.get("epochs", 6)
    (line,) = warned
    assert "is not gone on with: it was made with other data, settings or versions" in line
    assert file_name(PART) in line


def test_a_network_of_other_data_is_ignored(fit, make_table):
    fit()
    other = make_table()
    other.targets[140, 0] += 1e-3
    _, trained, _, warned = fit(on=other)
    assert trained == 6 and "other data" in warned[0]


@pytest.mark.parametrize("damage", [lambda b: b[:200], lambda b: b[:-7], lambda b: b"no such thing" * 9])
def test_a_damaged_file_is_ignored_with_a_reason(fit, tmp_path, damage):
    first = fit()[0]
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again, trained, _, warned = fit()
    assert trained == 6 and "it cannot be read" in warned[0]
    assert torch.equal(first.line.weight, again.line.weight)


def test_what_is_written_now_and_then_is_not_written_always(fit, tmp_path, monkeypatch):
    written = []
    save = checkpoint.save

    def count(*content):
        written.append(len(save(*content)))
        return save(*content)

    monkeypatch.setattr(checkpoint, "save", count)
    fit()
    assert len(written) == 1  # the complete one
    shutil.rmtree(tmp_path / "kept")
    monkeypatch.setattr(checkpoint, "EVERY_S", 0.0)
    fit()
    assert len(written) == 1 + 6
    assert written[-1] < written[-2]  # of a complete network the optimiser is not kept


def test_a_disk_that_cannot_be_written_is_said_and_the_training_goes_on(fit, tmp_path):
    (tmp_path / "kept").write_text("a file in the place of the folder")
    objective, trained, _, warned = fit()
    assert trained == 6 and not objective.training
    assert len(warned) == 1 and "cannot be kept here" in warned[0]


def test_names_of_files():
    parts = ("without C2/member 1", "without C2/member 2", "without C2-member 1", "../../x", "ä" * 300, "")
    names = [file_name(part) for part in parts]
    assert len(set(names)) == len(parts)
    assert all("/" not in name and len(name.encode()) < 255 for name in names)
    assert names[0].startswith("without-C2-member-1.")
