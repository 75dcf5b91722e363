"""Read pictures of places on slides in the background, and cache the newest ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from psygnal import Signal

from chrep_model.errors import ChrepError
from chrep_model.geometry import um_to_px
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileReader, TileSpec
from napari_chrep.background.runner import Task, TaskRunner
from napari_chrep.neighbours.training_images import SectionImage

RgbArray = npt.NDArray[np.uint8]

#: Maximum number of pictures in the cache.
KEPT = 200


@dataclass(frozen=True)
class Place:
    """A place on a section's image, with its centre (x, y) in µm."""

    image: SectionImage
    xy_um: tuple[float, float]


class OpenSlides:
    """Open slides by section image, shared by the workers that read pictures."""

    def __init__(self) -> None:
        self._open: dict[SectionImage, Slide] = {}
        self._lock = threading.Lock()

    def keep(self, slide: Slide) -> SectionImage:
        """Add a slide that is already open, and return its section image."""
        image = SectionImage(slide.path, slide.require_mpp(), slide.scene)
        with self._lock:
            self._open[image] = slide
        return image

    def get(self, image: SectionImage) -> Slide:
        """Return the slide of a section image; open it if needed. Raises SlideError if that fails."""
        with self._lock:
            if image not in self._open:
                self._open[image] = image.open()
            return self._open[image]


class Pictures:
    """Background reader for pictures of places at the model's scale.

    Attributes
    ----------
    slides : OpenSlides
        The slides from which pictures are read.
    arrived : Signal(object, object)
        Emitted with a `Place` and its picture, uint8 (px, px, 3).
    failed : Signal(object, str)
        Emitted with a `Place` that cannot be read, and the reason.
    """

    arrived = Signal(object, object)
    failed = Signal(object, str)

    def __init__(self) -> None:
        self.slides = OpenSlides()
        self._kept: OrderedDict[tuple[Place, TileSpec], RgbArray] = OrderedDict()
        self._tasks = TaskRunner()

    @property
    def busy(self) -> bool:
        """Whether requested pictures are still being read."""
        return self._tasks.busy

    def request(self, places: Sequence[Place], spec: TileSpec) -> None:
        """Request pictures of these places; earlier requests are dropped."""
        self.stop()
        known = {place: self._kept.get((place, spec)) for place in places}
        for place, picture in known.items():
            if picture is not None:
                self.arrived.emit(place, picture)
        wanted = [place for place, picture in known.items() if picture is None]
        if not wanted:
            return
        self._tasks.run(
            partial(read_pictures, wanted, spec, self.slides.get, self._kept), on_result=self._on_result
        )

    def stop(self) -> None:
        """Drop all requests; the task ends after the current picture."""
        self._tasks.drop()

    def _on_result(self, result: tuple[Place, RgbArray | str]) -> None:
        place, picture = result
        if isinstance(picture, str):
            self.failed.emit(place, picture)
        else:
            self.arrived.emit(place, picture)


def read_pictures(
    places: Sequence[Place],
    spec: TileSpec,
    open_image: Callable[[SectionImage], Slide],
    kept: OrderedDict[tuple[Place, TileSpec], RgbArray],
    task: Task,
) -> Iterator[tuple[Place, RgbArray | str]]:
    """Read pictures one by one into the cache; yield each place with its picture or an error message."""
    readers: dict[SectionImage, TileReader] = {}
    for place in places:
        if task.cancelled():
            return
        try:
            if place.image not in readers:
                readers[place.image] = TileReader(open_image(place.image), spec)
            x, y = (um_to_px(side, place.image.mpp) for side in place.xy_um)
            picture = readers[place.image].read([(x, y)])[0]
        except ChrepError as error:
            yield place, str(error)
        else:
            kept[place, spec] = picture  # even if its request was dropped, it may be requested again
            while len(kept) > KEPT:
                kept.popitem(last=False)
            yield place, picture
