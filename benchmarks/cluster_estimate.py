"""Estimate the time and cost of predicting many slides on a cluster, by a simulation of its scheduler.

    python benchmarks/cluster_estimate.py --slides 1000 --workers 32 [--rate 30] [--tiles 4000] [--price 0.05]
        [--slow 0.05] [--death 0.01] [--rounds 5] [-o cluster_estimate.json]

The speed of one worker is an option; benchmarks/cluster.py measures it. Slides have log-normal numbers of
tissue tiles. A free worker takes the next task, beginning with the largest slides; a slide cut into parts is
prepared, then encoded part by part, then predicted. Some workers are slower. Workers die at a given rate,
start again and load the model again, and the next free worker repeats their task. A slow file system and
waiting in a queue are not simulated.
"""

from __future__ import annotations

import heapq
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Setting:
    """Parameters of a simulation; seconds and rates are those of one worker of normal speed.

    Attributes
    ----------
    slides, workers
        Number of slides and of workers.
    rate
        Tiles per second, from the slide to its embeddings.
    tiles, spread
        Median of the tissue tiles of a slide, and sigma of their logarithm.
    open_s, write_s, load_s
        Seconds to open and prepare a slide; to predict it from its embeddings and write; to start a worker
        and load the model.
    slow, slowness
        Share of slow workers, and the factor by which they are slower.
    death
        Deaths per worker and hour.
    restart_s
        Seconds until a worker that died is restarted.
    part_tiles
        Largest number of tiles in one part; larger slides are cut. None for no cutting.
    seed
        Seed of the sizes, slow workers and deaths.
    """

    slides: int
    workers: int
    rate: float = 30.0
    tiles: float = 4000.0
    spread: float = 0.8
    open_s: float = 5.0
    write_s: float = 3.0
    load_s: float = 15.0
    slow: float = 0.05
    slowness: float = 2.0
    death: float = 0.01
    restart_s: float = 60.0
    part_tiles: int | None = 8192
    seed: int = 0


class Result(NamedTuple):
    """Result of a simulation.

    Attributes
    ----------
    wall_h
        Hours until all slides were done.
    tail_h
        Last of these hours, in which at least one worker had nothing to do.
    efficiency
        Work that was needed, as a share of the work that the workers could have done.
    deaths
        Number of deaths of workers.
    """

    wall_h: float
    tail_h: float
    efficiency: float
    deaths: int


class Task(NamedTuple):
    """Seconds of work on a slide at normal speed; `cut` for the preparation of a slide that is then cut."""

    slide: int
    seconds: float
    cut: bool = False


class Event(NamedTuple):
    """End of a task or death of its worker; without a task, the start of a worker."""

    time: float
    worker: int
    task: Task | None = None
    died: bool = False


def sizes(setting: Setting) -> list[int]:
    """Draw the number of tissue tiles of each slide; return the largest first."""
    rng = np.random.default_rng([setting.seed, 0])
    drawn = rng.lognormal(math.log(setting.tiles), setting.spread, setting.slides)
    return sorted((max(1, round(tiles)) for tiles in drawn), reverse=True)


def work(setting: Setting, tiles: int) -> float:
    """Return the seconds of work on a slide that is not cut."""
    return setting.open_s + tiles / setting.rate + setting.write_s


class Cluster:
    """Simulated workers, and the tasks that they take.

    Parameters
    ----------
    setting : Setting
        Parameters of the simulation.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting, self.tiles, self.deaths = setting, sizes(setting), 0
        self.rng = np.random.default_rng([setting.seed, 1])
        is_slow = np.random.default_rng([setting.seed, 2]).random(setting.workers) < setting.slow
        self.pace = [setting.slowness if slow else 1.0 for slow in is_slow]
        most = setting.part_tiles or math.inf
        first = [
            Task(slide, setting.open_s if n > most else work(setting, n), n > most)
            for slide, n in enumerate(self.tiles)
        ]
        self.queue, self.urgent = first[::-1], list[Task]()
        self.parts_left = [0] * setting.slides

    def run(self) -> Result:
        """Simulate until all slides are done, and return the result."""
        setting = self.setting
        events = [Event(setting.load_s * pace, worker) for worker, pace in enumerate(self.pace)]
        heapq.heapify(events)
        idle: list[int] = []
        running, end, tail_from = 0, 0.0, math.inf
        while self.queue or self.urgent or running:
            event = heapq.heappop(events)
            if event.task is not None:
                running -= 1
            if event.died and event.task is not None:
                self.deaths += 1
                self.urgent.append(event.task)
                again = setting.restart_s + setting.load_s * self.pace[event.worker]
                heapq.heappush(events, Event(event.time + again, event.worker))
            else:
                idle.append(event.worker)
            if event.task is not None and not event.died:
                end = event.time
                self.urgent += self._follow(event.task)
            while idle and (self.urgent or self.queue):
                task = self.urgent.pop() if self.urgent else self.queue.pop()
                heapq.heappush(events, self._start(event.time, idle.pop(), task))
                running += 1
            if idle:
                tail_from = min(tail_from, event.time)
        done = sum(work(setting, tiles) for tiles in self.tiles)
        could = end * sum(1 / pace for pace in self.pace)
        return Result(end / 3600, max(0.0, end - tail_from) / 3600, done / could, self.deaths)

    def _start(self, now: float, worker: int, task: Task) -> Event:
        needed = task.seconds * self.pace[worker]
        alive = self.rng.exponential(3600 / self.setting.death) if self.setting.death else math.inf
        return Event(now + min(needed, alive), worker, task, died=alive < needed)

    def _follow(self, done: Task) -> list[Task]:
        """Return the tasks that can start when another is done: the parts of a slide, or its prediction."""
        setting, slide = self.setting, done.slide
        if done.cut and setting.part_tiles is not None:
            count = -(-self.tiles[slide] // setting.part_tiles)
            self.parts_left[slide] = count
            return [Task(slide, setting.open_s + self.tiles[slide] / count / setting.rate)] * count
        if self.parts_left[slide]:
            self.parts_left[slide] -= 1
            if not self.parts_left[slide]:
                return [Task(slide, setting.open_s + setting.write_s)]
        return []


def simulate(setting: Setting) -> Result:
    """Simulate the prediction of all slides once."""
    return Cluster(setting).run()


def median_result(setting: Setting, rounds: int) -> Result:
    """Return the medians over several seeds."""
    found = [simulate(replace(setting, seed=setting.seed + i)) for i in range(rounds)]
    wall, tail, efficiency, deaths = (median(values) for values in zip(*found, strict=True))
    return Result(wall, tail, efficiency, round(deaths))


def main(
    slides: Annotated[str, typer.Option(help="One number or several.")] = "1000,100000",
    workers: Annotated[str, typer.Option(help="One number or several.")] = "8,32,128",
    rate: Annotated[float, typer.Option(help="Tiles per second of a worker.")] = 30.0,
    tiles: Annotated[float, typer.Option(help="Median tissue tiles of a slide.")] = 4000.0,
    spread: Annotated[float, typer.Option(help="Sigma of the logarithm of the tiles.")] = 0.8,
    open_s: Annotated[float, typer.Option(help="Seconds to open and prepare a slide.")] = 5.0,
    write_s: Annotated[float, typer.Option(help="Seconds to predict from embeddings and write.")] = 3.0,
    load_s: Annotated[float, typer.Option(help="Seconds to start a worker and load the model.")] = 15.0,
    slow: Annotated[float, typer.Option(help="Share of workers at half the speed.")] = 0.05,
    death: Annotated[float, typer.Option(help="Deaths per worker and hour.")] = 0.01,
    part_tiles: Annotated[int, typer.Option(help="Larger slides are cut into such parts.")] = 8192,
    price: Annotated[float, typer.Option(help="Of a worker for an hour.")] = 0.05,
    rounds: Annotated[int, typer.Option(help="Seeds; medians are shown.")] = 5,
    out: Annotated[Path | None, typer.Option("-o")] = None,
) -> None:
    """Simulate and print."""
    found = []
    table = Table(
        "slides", "workers", "big slides", "hours", "of these the tail", "efficiency", "deaths", "cost"
    )
    for n_slides in map(int, slides.split(",")):
        for n_workers in map(int, workers.split(",")):
            for part in (None, part_tiles):
                setting = Setting(
                    n_slides, n_workers, rate, tiles, spread, open_s, write_s, load_s, slow, death=death,
                    part_tiles=part,
                )  # fmt: skip
                result = median_result(setting, rounds)
                cost = result.wall_h * n_workers * price
                found.append(asdict(setting) | result._asdict() | {"cost": cost})
                how = "whole" if part is None else "cut"
                table.add_row(
                    f"{n_slides:,}", str(n_workers), how, f"{result.wall_h:.2f}", f"{result.tail_h:.2f}",
                    f"{result.efficiency:.1%}", str(result.deaths), f"{cost:,.2f}",
                )  # fmt: skip
    Console().print(table)
    if out is not None:
        out.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    typer.run(main)
