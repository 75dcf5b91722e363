"""The simulated cluster of benchmarks/cluster_estimate.py: what must hold whatever the rates are."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "cluster_estimate.py"


@pytest.fixture(scope="module")
def estimate():
    spec = importlib.util.spec_from_file_location("cluster_estimate", FILE)
    module = sys.modules["cluster_estimate"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["cluster_estimate"]


@pytest.fixture
def ideal(estimate):
    """Workers that are alike and never die; slides stay whole."""
    return estimate.Setting(slides=200, workers=1, slow=0.0, death=0.0, part_tiles=None)


def test_one_worker_takes_the_sum_of_all_work(estimate, ideal):
    total = sum(estimate.work(ideal, tiles) for tiles in estimate.sizes(ideal))
    result = estimate.simulate(ideal)
    assert result.wall_h * 3600 == pytest.approx(ideal.load_s + total)
    assert result.deaths == 0 and result.tail_h == 0


def test_more_workers_are_never_slower_and_never_faster_than_can_be(estimate, ideal):
    hours = {n: estimate.simulate(replace(ideal, workers=n)).wall_h for n in (1, 2, 3, 8, 50, 300)}
    assert list(hours.values()) == sorted(hours.values(), reverse=True)
    assert all(hours[n] >= (hours[1] - ideal.load_s / 3600) / n for n in hours)
    largest = estimate.work(ideal, estimate.sizes(ideal)[0])
    assert hours[300] * 3600 == pytest.approx(ideal.load_s + largest)


def test_cutting_big_slides_shortens_the_tail(estimate, ideal):
    few = replace(ideal, workers=64, spread=1.2)
    whole, cut = (estimate.simulate(replace(few, part_tiles=tiles)) for tiles in (None, 4096))
    assert cut.tail_h < whole.tail_h and cut.wall_h < whole.wall_h


def test_a_cut_slide_costs_only_its_repeated_opening(estimate, ideal):
    setting = replace(ideal, slides=1, tiles=10_000, spread=0.0, part_tiles=5000)
    again = 3 * setting.open_s  # each of two parts, and the prediction
    whole = estimate.simulate(replace(setting, part_tiles=None)).wall_h
    assert estimate.simulate(setting).wall_h * 3600 == pytest.approx(whole * 3600 + again)


def test_deaths_and_slow_workers_cost_time_and_everything_is_done(estimate, ideal):
    quick = replace(ideal, workers=8, slides=500, part_tiles=8192)
    dying = estimate.simulate(replace(quick, death=5.0))
    assert dying.deaths > 0 and dying.wall_h > estimate.simulate(quick).wall_h
    slow = estimate.simulate(replace(quick, slow=1.0, slowness=2.0))
    assert slow.wall_h == pytest.approx(2 * estimate.simulate(quick).wall_h)


def test_the_same_seed_gives_the_same(estimate, ideal):
    setting = replace(ideal, workers=8, slow=0.2, death=1.0, part_tiles=8192)
    assert estimate.simulate(setting) == estimate.simulate(setting)
    assert estimate.simulate(setting) != estimate.simulate(replace(setting, seed=1))
