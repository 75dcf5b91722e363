"""Read pictures of places on slides in a worker, and keep them for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.qt.threading import create_worker
from psygnal import Signal

from chrep_model.errors import ChrepError
from chrep_model.geometry import um_to_px
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileReader, TileSpec
from napari_chrep.neighbours.training_images import SectionImage

RgbArray = npt.NDArray[np.uint8]

#: How many pictures are kept.
KEPT = 200


@dataclass(frozen=True)
class Place:
    """A place on an image, by its centre (x, y) in µm."""

    image: SectionImage
    xy_um: tuple[float, float]


class Slides:
    """The open slides by image, shared by the workers that read them."""

    def __init__(self) -> None:
        self._open: dict[SectionImage, Slide] = {}
        self._lock = threading.Lock()

    def keep(self, slide: Slide) -> SectionImage:
        """Add a slide that is already open, and return its key."""
        image = SectionImage(slide.path, slide.require_mpp(), slide.scene)
        with self._lock:
            self._open[image] = slide
        return image

    def get(self, image: SectionImage) -> Slide:
        """Return the open slide; SlideError if it cannot be opened."""
        with self._lock:
            if image not in self._open:
                self._open[image] = image.open()
            return self._open[image]


class Pictures:
    """Reads pictures of places at the model's scale.

    Attributes
    ----------
    slides : Slides
        Where they are read from.
    arrived : Signal(object, object)
        A `Place` and its picture, uint8 (px, px, 3).
    failed : Signal(object, str)
        A `Place` that cannot be read, and why.
    """

    arrived = Signal(object, object)
    failed = Signal(object, str)

    def __init__(self) -> None:
        self.slides = Slides()
        self._kept: OrderedDict[tuple[Place, TileSpec], RgbArray] = OrderedDict()
        self._worker: Any = None
        self._generation = 0

    @property
    def busy(self) -> bool:
        """Whether requested pictures are still to come."""
        return self._worker is not None

    def ask(self, places: Sequence[Place], spec: TileSpec) -> None:
        """Request pictures of these places; earlier requests are dropped."""
        self.stop()
        for place in places:
            if (known := self._kept.get((place, spec))) is not None:
                self.arrived.emit(place, known)
        wanted = [place for place in places if (place, spec) not in self._kept]
        if not wanted:
            return
        self._worker = create_worker(reading, wanted, spec, self.slides.get, _start_thread=False)
        self._worker.yielded.connect(partial(self._on_yielded, self._generation, spec))
        self._worker.finished.connect(partial(self._on_finished, self._generation))
        self._worker.start()

    def stop(self) -> None:
        """Drop all requests; the worker ends after the picture that it is reading."""
        self._generation += 1
        if self._worker is not None:
            self._worker.quit()
            self._worker = None

    def _on_yielded(self, generation: int, spec: TileSpec, result: tuple[Place, RgbArray | str]) -> None:
        place, picture = result
        if not isinstance(picture, str):
            self._kept[place, spec] = picture
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        if generation != self._generation:
            return
        if isinstance(picture, str):
            self.failed.emit(place, picture)
        else:
            self.arrived.emit(place, picture)

    def _on_finished(self, generation: int) -> None:
        if generation == self._generation:
            self._worker = None


def reading(
    places: Sequence[Place], spec: TileSpec, open_image: Callable[[SectionImage], Slide]
) -> Iterator[tuple[Place, RgbArray | str]]:
    """Read pictures one by one; yield each place with its picture or its error."""
    readers: dict[SectionImage, TileReader] = {}
    for place in places:
        try:
            if place.image not in readers:
                readers[place.image] = TileReader(open_image(place.image), spec)
            x, y = (um_to_px(side, place.image.mpp) for side in place.xy_um)
            picture = readers[place.image].read([(x, y)])[0]
        except ChrepError as error:
            yield place, str(error)
        else:
            yield place, picture
