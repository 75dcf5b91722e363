"""A replacement for a slide that was not found: size and scale are known, pixels are not."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from chrep_model.errors import SlideError
from chrep_model.slides.backends import Backend, RgbArray
from chrep_model.slides.slide import Mpp, Slide


class AbsentSlide(Slide):
    """Replacement for a slide that was not found; reading pixels from it is an error.

    Parameters
    ----------
    path
        Former path of the slide.
    shape
        (rows, cols) of level 0.
    fingerprint
        Hex digest of the slide's content.
    mpp
        µm per pixel.
    picture
        uint8 (rows, cols, 3), a stored thumbnail of the slide; None if there is none.
    scene
        Name of the picture in a file that holds several.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int],
        fingerprint: str,
        mpp: Mpp,
        picture: RgbArray | None = None,
        scene: str = "",
    ) -> None:
        super().__init__(_AbsentBackend(path, shape, fingerprint, scene), mpp)
        self._picture = picture

    def thumbnail(self, max_px: int = 1024) -> tuple[RgbArray, float]:
        """Return the stored thumbnail, in its stored size, and its downsample.

        Raises
        ------
        SlideError
            No thumbnail was stored.
        """
        if self._picture is None:
            return super().thumbnail(max_px)
        return self._picture, max(self.shape) / max(self._picture.shape[:2])


class _AbsentBackend(Backend):
    def __init__(self, path: Path, shape: tuple[int, int], fingerprint: str, scene: str) -> None:
        self.part, self.scenes = scene, (scene,) if scene else ()  # other scenes of the file are unknown
        self.path, self.shapes, self.chunks = path, (shape,), ((512, 512),)
        self.mpp_xy, self.properties = None, {}
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        return self._fingerprint

    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        raise SlideError("the slide is not here", path=self.path, remedy="Open it first, wherever it is now.")

    def close(self) -> None:
        pass
