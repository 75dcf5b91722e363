"""Read plain JPEG, PNG, JPEG 2000, WebP and BMP files: no levels, tiles or scale.

A file is decoded as a whole when pixels are first read.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from chrep_model.errors import SlideError
from chrep_model.slides.backends import MAX_DECODED_PX, Backend, RgbArray, over_white
from chrep_model.slides.backends.tiff_metadata import orientation

_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG": PngImageFile,
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": Jpeg2KImageFile,
    b"\xff\x4f\xff\x51": Jpeg2KImageFile,
    b"BM": BmpImageFile,
}
_WEBP = (b"RIFF", b"WEBP")  # at both ends of the header, with the size of the file between them
_ORIENTATION = 0x0112  # EXIF tag
_MODES = ("RGB", "RGBA", "P")
_BAND_ROWS = 1024


class ImageBackend(Backend):
    """A slide in a picture file without levels.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    SlideError
        The file is damaged, not in colour, or too large to decode.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as image:
            width, height = image.size
            self.properties = {"format": str(image.format), **_orientation(image)}
        self.shapes = ((height, width),)
        self.chunks = ((512, 512),)
        self.mpp_xy = None  # dots per inch are for printing, not the scale of the scan
        self._lock = threading.Lock()
        self._pixels: RgbArray | None = None
        self._closed = False

    def read(self, level: int, row: int, col: int, height: int, width: int) -> RgbArray:
        """Read a region inside the image as a new uint8 array (height, width, 3)."""
        with self._lock:
            if self._closed:
                raise SlideError("the slide has been closed", path=self.path)
            if self._pixels is None:
                self._pixels = _decode(self.path)
            pixels = self._pixels
        return pixels[row : row + height, col : col + width].copy()

    def close(self) -> None:
        """Release the decoded pixels."""
        with self._lock:
            self._pixels, self._closed = None, True


def knows(head: bytes) -> bool:
    """Return whether a file's first 16 bytes are those of a picture format that is read here."""
    return _reader(head) is not None


def _reader(head: bytes) -> type[ImageFile.ImageFile] | None:
    if (head[:4], head[8:12]) == _WEBP:
        return WebPImageFile
    return next((kind for signature, kind in _READERS.items() if head.startswith(signature)), None)


def _orientation(image: ImageFile.ImageFile) -> dict[str, str]:
    try:
        return orientation(image.getexif().get(_ORIENTATION))
    except Exception:  # damaged EXIF data are ignored
        return {}


def is_slide(path: Path) -> bool:
    """Return whether a file's header is that of a colour picture that can be read; may raise if damaged."""
    with _open(path):
        return True


def _open(path: Path) -> ImageFile.ImageFile:
    """Read the header of a picture, and check that it can be used.

    Pillow's classes are called directly, because `PIL.Image.open` warns above 89 megapixels, a usual size for
    a slide, and fails above 179; these limits can only be changed for the whole process.
    """
    with path.open("rb") as file:
        reader = _reader(file.read(16))
    if reader is None:  # the file has changed since `knows`
        raise _damaged(path, ValueError("no picture"))
    try:
        image = reader(path)
    except Exception as error:  # Pillow may raise any error for a damaged file
        raise _damaged(path, error) from error
    width, height = image.size
    if width * height > MAX_DECODED_PX:
        what = f"the picture has {width} x {height} pixels and no tiles, so it would have to be decoded whole"
        remedy = "Convert it to a tiled, pyramidal TIFF, for example with QuPath or vips."
    elif image.mode not in _MODES:
        what = f"the picture is of mode {image.mode} instead of RGB"
        remedy = "Convert it to 8-bit RGB."
    else:
        return image
    image.close()
    raise SlideError(what, path=path, remedy=remedy)


def _decode(path: Path) -> RgbArray:
    with _open(path) as image:
        try:
            image.load()
        except Exception as error:
            raise _damaged(path, error) from error
        width, height = image.size
        pixels = np.empty((height, width, 3), np.uint8)
        for top in range(
            0, height, _BAND_ROWS
        ):  # in bands: one copy in memory beside Pillow's own, not three
            band = image.crop((0, top, width, min(top + _BAND_ROWS, height)))
            opaque = band.mode == "RGB" and "transparency" not in image.info
            part = np.asarray(band) if opaque else over_white(np.asarray(band.convert("RGBA")))
            pixels[top : top + _BAND_ROWS] = part
    return pixels


def _damaged(path: Path, error: Exception) -> SlideError:
    what = f"the picture is damaged or cut short ({error or type(error).__name__})"
    return SlideError(what, path=path, remedy="Copy or download the file again.")
