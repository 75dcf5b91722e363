"""Recognise slides and manifests by their file names."""

from __future__ import annotations

# File name endings of slides, longer ones first: "a.ome.tif" is the slide "a".
SLIDE_SUFFIXES = (
    *(".ome.tiff", ".ome.tif", ".ome.btf", ".qptiff", ".svslide", ".tiff", ".tif", ".btf", ".svs"),
    *(".jpeg", ".jpg", ".png", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".czi", ".dcm"),
    *(".jp2", ".webp", ".bmp"),
)

MANIFEST_SUFFIXES = (".yaml", ".yml")


def slide_stem(file_name: str) -> str | None:
    """Return a slide's name from its file name; None if that is not the file name of a slide."""
    lower = file_name.lower()
    for suffix in SLIDE_SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return file_name[: -len(suffix)]
    return None
