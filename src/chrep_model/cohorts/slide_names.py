"""Recognise slides and manifests by their file names."""

from __future__ import annotations

# What a slide's file name can end with. Longer endings first: "a.ome.tif" is the slide "a".
SLIDE_SUFFIXES = (
    *(".ome.tiff", ".ome.tif", ".ome.btf", ".qptiff", ".svslide", ".tiff", ".tif", ".btf", ".svs"),
    *(".jpeg", ".jpg", ".png", ".ndpi", ".mrxs", ".vms", ".vmu", ".scn", ".bif", ".czi", ".dcm"),
    *(".jp2", ".webp", ".bmp"),
)

MANIFEST_SUFFIXES = (".yaml", ".yml")


def slide_stem(file_name: str) -> str | None:
    """Return the slide name of a file name, or None if it is no slide's."""
    lower = file_name.lower()
    for suffix in SLIDE_SUFFIXES:
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return file_name[: -len(suffix)]
    return None
