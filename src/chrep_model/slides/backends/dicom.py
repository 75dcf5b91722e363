"""The pixel spacing of each level of a DICOM slide, which OpenSlide says of the largest level alone.

Only the header of each file is read, up to the functional groups that its frames share; pixels are left to
OpenSlide. Source: DICOM PS3.5 (encoding) and PS3.3 C.8.12.4 (whole slide microscopy image).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SERIES = (0x0020, 0x000E)
_SPACING = (0x0028, 0x0030)
_PIXEL_MEASURES = (0x0028, 0x9110)
_MATRIX_COLS, _MATRIX_ROWS = (0x0048, 0x0006), (0x0048, 0x0007)
_IMAGE_TYPE = (0x0008, 0x0008)
_SHARED_GROUPS = (0x5200, 0x9229)
_SYNTAX = (0x0002, 0x0010)
_SEQUENCES = (_SHARED_GROUPS, _PIXEL_MEASURES)
_WANTED = (_SERIES, _SPACING, _MATRIX_COLS, _MATRIX_ROWS, _IMAGE_TYPE, _SYNTAX)
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_IMPLICIT = "1.2.840.10008.1.2"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_OPEN = 0xFFFFFFFF
_MAX_VALUE, _MAX_DEPTH, _MAX_ELEMENTS, _MAX_FILES = 65_536, 16, 100_000, 256

Tag = tuple[int, int]


def pixel_sizes(file: Path, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[float, float] | None, ...]:
    """Return the scale of each level of a DICOM slide by its own pixel spacing.

    Parameters
    ----------
    file
        Any file of the series; the others lie beside it.
    sizes
        (rows, cols) of each level, the largest first.

    Returns
    -------
    tuple
        For each level the level-0 pixels per pixel (down, across), or None where its file does not say; empty
        where the largest one does not.
    """
    try:
        own = _header(file)
        levels = [own, *(_header(other) for other in _beside(file))]
    except (OSError, ValueError, struct.error):
        return ()
    spacing = {
        (level.rows, level.cols): level.spacing
        for level in levels
        if level.series == own.series and level.is_volume and level.spacing is not None
    }
    base = spacing.get(sizes[0])
    if base is None:
        return ()
    found = [spacing.get(size) for size in sizes]
    return tuple(None if s is None else (s[0] / base[0], s[1] / base[1]) for s in found)


def _beside(file: Path) -> Iterator[Path]:
    for number, other in enumerate(sorted(file.parent.iterdir())):
        if number >= _MAX_FILES:
            return
        if other != file and other.suffix.lower() == file.suffix.lower() and other.is_file():
            yield other


@dataclass(frozen=True)
class _Header:
    """What of a file is needed: its series, its kind, its size, and mm per pixel (down, across)."""

    series: str = ""
    is_volume: bool = False
    rows: int = 0
    cols: int = 0
    spacing: tuple[float, float] | None = None


def _header(file: Path) -> _Header:
    with file.open("rb") as stream:
        if stream.read(132)[128:] != b"DICM":
            return _Header()
        found: dict[Tag, bytes] = {}
        _read_elements(stream, found)
    try:
        spacing = [float(text) for text in found.get(_SPACING, b"").decode("ascii").split("\\")]
    except ValueError:
        spacing = []
    cols, rows = (int.from_bytes(found.get(tag, b""), "little") for tag in (_MATRIX_COLS, _MATRIX_ROWS))
    kind = found.get(_IMAGE_TYPE, b"").decode("ascii", "replace").split("\\")
    return _Header(
        series=found.get(_SERIES, b"").decode("ascii", "replace").strip("\0 "),
        is_volume="VOLUME" in (part.strip("\0 ") for part in kind),
        rows=rows,
        cols=cols,
        spacing=(spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None,
    )


def _read_elements(stream: BinaryIO, found: dict[Tag, bytes]) -> None:
    """Read the wanted elements from the start of a data set up to the shared functional groups."""
    explicit, depth, inside = True, 0, False
    for _ in range(_MAX_ELEMENTS):
        head = stream.read(8)
        if len(head) < 8:
            return
        tag: Tag = struct.unpack("<HH", head[:4])
        if tag[0] == 0xFFFE:  # items of a sequence that is gone into, and what ends them
            length = struct.unpack("<I", head[4:])[0]
            if tag == _SEQUENCE_END:
                depth -= 1
                if depth == 0:
                    return
            continue
        if tag[0] != 2 and explicit and found.get(_SYNTAX, b"").rstrip(b"\0 ").decode("ascii") == _IMPLICIT:
            explicit = False
        if explicit:
            kind = head[4:6]
            length = struct.unpack("<H", head[6:])[0]
            if kind in _LONG:
                length = struct.unpack("<I", stream.read(4))[0]
        else:
            length = struct.unpack("<I", head[4:])[0]
        if tag > _SHARED_GROUPS and depth == 0:
            return
        if tag in _SEQUENCES:
            depth += length == _OPEN
            inside = True
        elif length == _OPEN:
            _skip_sequence(stream, explicit)
        elif tag in _WANTED and length <= _MAX_VALUE and (tag != _SPACING or inside):
            found.setdefault(tag, stream.read(length))
        else:
            stream.seek(length, 1)


def _skip_sequence(stream: BinaryIO, explicit: bool, depth: int = 0) -> None:
    """Go behind a sequence of unknown length."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    for _ in range(_MAX_ELEMENTS):
        head = stream.read(8)
        if len(head) < 8:
            raise ValueError("cut short")
        tag = struct.unpack("<HH", head[:4])
        if tag == _SEQUENCE_END:
            return
        length = struct.unpack("<I", head[4:])[0]
        if tag in (_ITEM, _ITEM_END):
            if tag == _ITEM and length != _OPEN:
                stream.seek(length, 1)
            continue
        if explicit:
            length = struct.unpack("<H", head[6:])[0]
            if head[4:6] in _LONG:
                length = struct.unpack("<I", stream.read(4))[0]
        if length == _OPEN:
            _skip_sequence(stream, explicit, depth + 1)
        else:
            stream.seek(length, 1)
