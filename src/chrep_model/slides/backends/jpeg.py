"""Check that JPEG streams are complete, because libjpeg fills missing pixels with grey and only warns."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

_END = b"\xff\xd9"
_FRAMES = set(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_SEQUENTIAL, _SCAN, _RESTARTS, _LAST = (0xFFC0, 0xFFC1), 0xFFDA, 0xFFDD, 0xFFD9
# Bytes to append to a stream; the pixels of a complete one do not depend on them.
_FILLINGS = (b"\0" * 64, b"\x55" * 64, b"\xaa" * 64, b"\xfe" * 64)

Decode = Callable[[bytes], npt.NDArray[np.uint8]]


def frame_size(data: bytes) -> tuple[int, int]:
    """Return (rows, cols) from the frame header of a JPEG stream.

    Raises
    ------
    ValueError
        The stream has no frame header.
    """
    for marker, at in _segments(data):
        if marker in _FRAMES and at + 7 <= len(data):
            rows, cols = struct.unpack_from(">HH", data, at + 3)
            return rows, cols
    raise ValueError("its JPEG data have no frame header")


def complete(data: bytes, decode: Decode) -> bytes:
    """Check that a JPEG stream holds all of its pixels, and return it.

    Bytes after its end marker are dropped. A stream without the marker is accepted if its pixels do not
    depend on the bytes that follow, which proves that none are missing.

    Parameters
    ----------
    data
        The stream; may lack its tables, and may have bytes after its end.
    decode
        Function that decodes a stream.

    Raises
    ------
    ValueError
        The stream is truncated.
    """
    if data.rfind(_END, max(len(data) - 64, 0)) >= 0:
        return data
    seen = list(_segments(data))
    if seen and seen[-1][0] == _LAST:
        return data[: seen[-1][1]]
    frames = [at for marker, at in seen if marker in _FRAMES]
    scans = [at for marker, at in seen if marker == _SCAN]
    # The test with different bytes cannot detect that a whole scan or restart interval is missing.
    simple = len(frames) == len(scans) == 1 and not any(marker == _RESTARTS for marker, _ in seen)
    simple = simple and any(marker in _SEQUENTIAL for marker, _ in seen)
    if not simple or data[frames[0] + 7] != data[scans[0] + 2]:  # the scan must hold all colours
        raise ValueError("its JPEG data end too early")
    body = data.rstrip(b"\0")
    if body.endswith(b"\xff") and len(body) < len(data):  # 0xff in a scan is always followed by 0
        body += b"\0"
    # One or two zeros at the end may belong to the scan; more are padding.
    for scan in (body, data) if 0 < len(data) - len(body) <= 2 else (body,):
        first, *others = (decode(scan + filling + _END) for filling in _FILLINGS)
        if all(np.array_equal(first, other) for other in others):
            return scan + _END
    raise ValueError("its JPEG data end too early")


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker of a JPEG stream, and the position after it."""
    at = 2
    while at + 2 <= len(data):
        marker = int.from_bytes(data[at : at + 2], "big")
        if marker == 0xFFFF:  # markers may be padded
            at += 1
            continue
        if marker == _LAST:
            yield marker, at + 2
            return
        if marker < 0xFFC0 or at + 4 > len(data):
            return
        yield marker, at + 2
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SCAN:  # scan data end at the first marker that is neither a stuffed byte nor a restart
            while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1 and (
                data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7
            ):
                at += 2
            if at < 0:
                return
