"""The search of settings: on training sections, within one budget, the best by PCC."""

import numpy as np
import pytest

from chrep_model.methods.bleep import Bleep
from chrep_model.methods.chrep import Chrep
from chrep_model.methods.hage_like import HageLike
from chrep_model.methods.heclip import Heclip
from chrep_model.methods.mclstexp import Mclstexp
from chrep_model.methods.ridge import Ridge
from chrep_model.methods.settings_choice import BUDGET, choose_settings
from chrep_model.progress import Progress
from chrep_model.training.run import Run


class Guess:
    """Says the truth with so much noise."""

    def __init__(self, noise, truth):
        self.noise, self.truth = noise, truth

    def predict(self, features):
        noise = np.random.default_rng(0).standard_normal(self.truth.shape)
        return (self.truth + self.noise * noise).astype(np.float32)


def test_the_best_on_the_median_section_wins(make_table):
    table = make_table(sections=3, spots=30)
    keep = np.ones(len(table), bool)
    keep[:5] = keep[30:32] = False  # sections of 25, 28 and 30 spots: the second one is held out
    table = table.rows(keep)
    seen, lines = [], []

    def fit(noise, rows, run):
        seen.append((noise, sorted(set(rows.section)), run.part))
        return Guess(noise, table.targets[table.section == 1])

    assert choose_settings([3.0, 0.1, 1.0], fit, table, Run(Progress(message=lines.append))) == 0.1
    assert [s[:2] for s in seen] == [(3.0, [0, 2]), (0.1, [0, 2]), (1.0, [0, 2])]
    assert len({part for *_, part in seen}) == 3  # checkpoints of their own
    assert lines[0] == "search: 1 of 3"
    assert lines[-1].startswith("search: 2 of 3 is best")


def test_of_equal_ones_the_first_wins(table):
    fitted = Ridge().fit(table, seed=0)
    assert choose_settings(["published", "other"], lambda s, rows, run: fitted, table) == "published"


def test_a_single_section_leaves_nothing_to_choose_on(make_table):
    def never(*_):
        raise AssertionError

    assert choose_settings(["published", "other"], never, make_table(sections=1)) == "published"


def test_the_budget_holds_for_all():
    methods = (Bleep, Heclip, Mclstexp, HageLike, Chrep)
    assert {len(m.candidates) for m in methods} == {BUDGET}
    for m in methods:
        assert len(set(map(repr, m.candidates))) == BUDGET  # none of them twice
    with pytest.raises(ValueError, match="budget"):
        choose_settings(range(BUDGET + 1), None, None)


def test_given_settings_are_not_searched(table):
    lines = []
    settings = Bleep.candidates[0].model_copy(update={"epochs": 1, "k": 3})
    fitted = Bleep(settings).fit(table, seed=0, run=Run(Progress(message=lines.append)))
    assert fitted.k == 3
    assert not [line for line in lines if "search" in line]
