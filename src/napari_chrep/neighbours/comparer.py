"""Two tiles compared over all genes, in a worker: with thousands of genes that takes longer than a click."""

from __future__ import annotations

from collections.abc import Iterator

from napari.qt.threading import create_worker
from psygnal import Signal

from chrep_model.analysis.tile_comparison import TileComparison, compare
from chrep_model.errors import ChrepError
from napari_chrep.canvas.picking import Pick


def comparing(first: Pick, second: Pick, gene: str) -> Iterator[TileComparison | ChrepError]:
    """Compare two tiles; yields what came of it."""
    try:
        yield compare((first.prediction, first.tile), (second.prediction, second.tile), gene)
    except ChrepError as error:
        yield error


class Comparer:
    """Compares tiles; of several requests only the newest is answered.

    Attributes
    ----------
    busy : bool
        Whether an answer is under way.
    made : Signal(object)
        A TileComparison, or the ChrepError that stands against it.
    """

    made = Signal(object)

    def __init__(self) -> None:
        self.busy = False
        self._generation = 0

    def ask(self, first: Pick, second: Pick, gene: str) -> None:
        """Compare two tiles, and tell by `made`."""
        self._generation += 1
        generation = self._generation

        def on_yielded(result: TileComparison | ChrepError) -> None:
            if generation == self._generation:
                self.busy = False
                self.made.emit(result)

        worker = create_worker(comparing, first, second, gene, _start_thread=False)
        worker.yielded.connect(on_yielded)
        self.busy = True
        worker.start()

    def stop(self) -> None:
        """Answer no more."""
        self.busy = False
        self._generation += 1
