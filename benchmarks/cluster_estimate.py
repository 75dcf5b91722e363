"""How long a cluster takes over many slides, and what it costs: the scheduler's work simulated.

    python benchmarks/cluster_estimate.py --slides 1000 --workers 32 [--rate 30] [--tiles 4000] [--price 0.05]
        [--slow 0.05] [--death 0.01] [--rounds 5] [-o cluster_estimate.json]

The rates of one worker are given, as measured by benchmarks/cluster.py on the machine in question. Slides
have log-normal numbers of tissue tiles. A worker that is free takes the next task, slides with most tiles
first; a slide cut into parts is prepared, then encoded part by part, then predicted. Some workers are slower;
workers die at a rate, start again and load the model anew, and what they had in hand is begun anew by the
next one that is free. Not simulated: a file system that cannot keep up, waiting in a queue.
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
    """What is simulated; seconds and rates are those of one worker of ordinary speed.

    Attributes
    ----------
    slides, workers
        How many.
    rate
        Tiles per second, from the slide to its embeddings.
    tiles, spread
        Median of the tissue tiles of a slide, and sigma of their logarithm.
    open_s, write_s, load_s
        To open and prepare a slide, to predict from its embeddings and write, to start and load the model.
    slow, slowness
        Share of workers that are slower, and by which factor.
    death
        Deaths per worker and hour.
    restart_s
        Until a worker that died is there again.
    part_tiles
        A slide with more tiles is cut into parts of at most so many; None for never.
    seed
        Of sizes, slow workers and deaths.
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
    """What came out.

    Attributes
    ----------
    wall_h
        Hours until all slides were done.
    tail_h
        Hours of these from when the first worker had nothing left to do.
    efficiency
        Work at ordinary speed as a share of what the workers could have done.
    deaths
        How often a worker died.
    """

    wall_h: float
    tail_h: float
    efficiency: float
    deaths: int


class Task(NamedTuple):
    """Seconds of work at ordinary speed; `cut` for the first look at a slide that is then cut."""

    slide: int
    seconds: float
    cut: bool = False


class Event(NamedTuple):
    """A worker comes to the end of a task, or to its own; without a task it has started."""

    time: float
    worker: int
    task: Task | None = None
    died: bool = False


def sizes(setting: Setting) -> list[int]:
    """Tissue tiles of every slide, the largest first."""
    rng = np.random.default_rng([setting.seed, 0])
    drawn = rng.lognormal(math.log(setting.tiles), setting.spread, setting.slides)
    return sorted((max(1, round(tiles)) for tiles in drawn), reverse=True)


def work(setting: Setting, tiles: int) -> float:
    """Seconds of a slide that is not cut."""
    return setting.open_s + tiles / setting.rate + setting.write_s


class Cluster:
    """Workers that take tasks in turn.

    Parameters
    ----------
    setting : Setting
        What is simulated.
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
        """Work until every slide is done."""
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
        """Tasks that can start when another is done: the parts of a slide, and then its prediction."""
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
    """Work through all slides once."""
    return Cluster(setting).run()


def middle(setting: Setting, rounds: int) -> Result:
    """Medians over seeds."""
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
                result = middle(setting, rounds)
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
