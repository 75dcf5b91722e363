"""Writes small DICOM slides, so that tests know every pixel and every millimetre of them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.77.1.6"
SERIES = "1.2.826.0.1.3680043.2.1125.1"
LONG = {"OB", "SQ"}


def element(group: int, number: int, kind: str, value: object) -> bytes:
    """Return one element in explicit little endian."""
    if isinstance(value, bytes):
        data = value
    elif kind == "US":
        data = struct.pack("<H", value)
    elif kind == "UL":
        data = struct.pack("<I", value)
    else:
        data = str(value).encode("ascii")
    data += (b"\0" if kind in ("UI", "OB") else b" ") * (len(data) % 2)
    head = struct.pack("<HH", group, number) + kind.encode()
    size = struct.pack("<HI", 0, len(data)) if kind in LONG else struct.pack("<H", len(data))
    return head + size + data


def sequence(group: int, number: int, content: bytes, *, open_end: bool) -> bytes:
    """Return a sequence of one item, of known length or with marks at its end."""
    head = struct.pack("<HH", group, number) + b"SQ\0\0"
    if not open_end:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
        return head + struct.pack("<I", len(item)) + item
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    return head + struct.pack("<I", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def write_level(
    path: Path,
    image: np.ndarray,
    spacing: float | None,
    *,
    number: int,
    tile: int = 64,
    pad: bool = False,
    open_end: bool = False,
) -> None:
    """Write an image (rows, cols, 3) as one level of a slide.

    `spacing` is in mm per pixel. With `pad` the size that is said is that of whole tiles, white at the end.
    """
    rows, cols = image.shape[:2]
    down, across = -(-rows // tile), -(-cols // tile)
    whole = np.full((down * tile, across * tile, 3), 255, np.uint8)
    whole[:rows, :cols] = image
    frames = whole.reshape(down, tile, across, tile, 3).swapaxes(1, 2).tobytes()
    rows, cols = (down * tile, across * tile) if pad else (rows, cols)
    instance = f"{SERIES}.{number}"
    measures = b""
    if spacing is not None:
        said = f"{spacing:.8g}\\{spacing:.8g}"
        measures = sequence(0x0028, 0x9110, element(0x0028, 0x0030, "DS", said), open_end=open_end)
    meta = element(0x0002, 0x0001, "OB", b"\0\1") + element(0x0002, 0x0002, "UI", SOP_CLASS)
    meta += element(0x0002, 0x0003, "UI", instance) + element(0x0002, 0x0010, "UI", "1.2.840.10008.1.2.1")
    kind = "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"
    parts = [
        element(0x0008, 0x0008, "CS", kind),
        element(0x0008, 0x0016, "UI", SOP_CLASS),
        element(0x0008, 0x0018, "UI", instance),
        element(0x0008, 0x0060, "CS", "SM"),
        element(0x0020, 0x000D, "UI", f"{SERIES}.9"),
        element(0x0020, 0x000E, "UI", SERIES),
        element(0x0020, 0x0013, "IS", number),
        element(0x0020, 0x9311, "CS", "TILED_FULL"),
        element(0x0028, 0x0002, "US", 3),
        element(0x0028, 0x0004, "CS", "RGB"),
        element(0x0028, 0x0006, "US", 0),
        element(0x0028, 0x0008, "IS", down * across),
        element(0x0028, 0x0010, "US", tile),
        element(0x0028, 0x0011, "US", tile),
        element(0x0028, 0x0100, "US", 8),
        element(0x0028, 0x0101, "US", 8),
        element(0x0028, 0x0102, "US", 7),
        element(0x0028, 0x0103, "US", 0),
        element(0x0048, 0x0006, "UL", cols),
        element(0x0048, 0x0007, "UL", rows),
        sequence(0x0048, 0x0105, element(0x0048, 0x0106, "SH", "0"), open_end=open_end),
        element(0x0048, 0x0302, "UL", 1),
        element(0x0048, 0x0303, "UL", 1),
        sequence(0x5200, 0x9229, measures, open_end=open_end),
        element(0x7FE0, 0x0010, "OB", frames),
    ]
    head = element(0x0002, 0x0000, "UL", len(meta)) + meta
    path.write_bytes(bytes(128) + b"DICM" + head + b"".join(parts))
