"""``chrep doctor``: check the installation and this machine, with remedies."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

import typer

from chrep_model import __version__
from chrep_model.cli import console, options

NEEDED = (
    *("numpy", "scipy", "pandas", "anndata", "zarr", "dask", "pyarrow", "pydantic", "safetensors"),
    *("scikit-learn", "scikit-image", "tifffile", "imagecodecs", "pillow", "matplotlib"),
    *("torch", "timm", "squidpy"),
)
EXTRAS = {
    "napari": ("the viewer", "Install napari-chrep[gui]."),
    "openslide-python": ("NDPI, MRXS, DICOM and other slides", "Install napari-chrep[openslide]."),
    "spatialdata": ("chrep predict --format spatialdata", "Install napari-chrep[spatialdata]."),
}
QT = ("PyQt6", "PySide6", "PyQt5", "PySide2")


EXAMPLE = options.example("chrep doctor")


class Diagnosis(NamedTuple):
    """Result of one check; `state` is ok, missing (something optional) or fault (chrep does not work)."""

    what: str
    state: str
    found: str
    remedy: str = ""


def doctor(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Check the installation and this machine.

    Says what to do about what is missing. The exit code is 1 when chrep cannot work as it is; what is merely
    optional does not count.
    """
    findings = list(_findings())
    if as_json:
        console.say_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mark = {"ok": "ok      ", "missing": "missing ", "fault": "FAULT   "}[finding.state]
            console.say(f"{mark}{finding.what:<18}{finding.found}")
            if finding.remedy:
                console.say(f"{'':26}-> {finding.remedy}")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def _findings() -> Iterator[Diagnosis]:
    yield Diagnosis("chrep", "ok", __version__)
    yield Diagnosis("python", "ok", f"{platform.python_version()} ({sys.executable})")
    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(_cores())
    yield Diagnosis("system", "ok", f"{platform.platform()}, {cores} cores")
    yield from _packages()
    yield from _device()
    yield from _readers()
    yield _cache()
    yield _weights()
    yield _display()


def _cores() -> range:
    affinity = getattr(os, "sched_getaffinity", None)
    return range(len(affinity(0)) if affinity else os.cpu_count() or 1)


def _packages() -> Iterator[Diagnosis]:
    for name in NEEDED:
        version = _version(name)
        if version is None:
            yield Diagnosis(name, "fault", "not installed", "Install napari-chrep again.")
        else:
            yield Diagnosis(name, "ok", version)
    for name, (purpose, remedy) in EXTRAS.items():
        version = _version(name)
        if version is None:
            yield Diagnosis(name, "missing", f"not installed; for {purpose}", remedy)
        else:
            yield Diagnosis(name, "ok", f"{version}, for {purpose}")
    bindings = [f"{name} {version}" for name in QT if (version := _version(name)) is not None]
    if bindings:
        yield Diagnosis("Qt", "ok", ", ".join(bindings))
    else:
        yield Diagnosis("Qt", "missing", "no binding; the viewer needs one", "Install napari-chrep[gui].")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device() -> Iterator[Diagnosis]:
    try:
        import torch
    except Exception as error:  # a damaged installation can raise any error
        yield Diagnosis("device", "fault", f"torch cannot be imported ({error})", "Install torch again.")
        return
    from chrep_model.device import choose_device

    chosen = choose_device("auto")
    if chosen == "cuda":
        cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Diagnosis("device", "ok", f"cuda: {', '.join(cards)}")
    elif chosen == "mps":
        yield Diagnosis("device", "ok", "mps")
    else:
        remedy = "" if torch.version.cuda is None else "With a GPU in this machine: look at its driver."
        yield Diagnosis("device", "ok", f"cpu, {torch.get_num_threads()} threads", remedy)


def _readers() -> Iterator[Diagnosis]:
    from chrep_model.slides.backends import openslide

    yield Diagnosis("slides", "ok", "Aperio SVS, tiled TIFF and OME-TIFF, JPEG, PNG")
    if openslide.available():
        import openslide as library

        yield Diagnosis("OpenSlide", "ok", f"{library.__library_version__}: NDPI, MRXS, DICOM and others")
    else:
        yield Diagnosis("OpenSlide", "missing", "no NDPI, MRXS or DICOM", "Install napari-chrep[openslide].")


def _cache() -> Diagnosis:
    from chrep_model.cache import default_cache
    from chrep_model.errors import PredictionError
    from chrep_model.files import make_writable

    folder = default_cache()
    try:
        make_writable(folder)
    except PredictionError as error:
        return Diagnosis("cache", "fault", str(error), "Set CHREP_CACHE to a folder that can be written.")
    return Diagnosis("cache", "ok", f"{folder} ({console.size_of(folder)}); CHREP_CACHE moves it")


def _weights() -> Diagnosis:
    """Check for downloaded weights of timm encoders."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    models = sorted(child.name.removeprefix("models--") for child in folder.glob("models--*"))
    if models:
        return Diagnosis("encoder weights", "ok", f"{folder}: {options.shown(models)}")
    return Diagnosis(
        "encoder weights",
        "missing",
        f"none in {folder}; the built-in encoder needs none",
        "Other encoders fetch theirs on first use, or take a file: --weights FILE.safetensors.",
    )


def _display() -> Diagnosis:
    if not has_display():
        return Diagnosis(
            "display", "missing", "no DISPLAY or WAYLAND_DISPLAY", "The viewer needs one; commands do not."
        )
    name = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY") or "of the system"
    return Diagnosis("display", "ok", name)


def has_display() -> bool:
    """Return whether a window can be opened."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def has_viewer() -> bool:
    """Return whether napari and a Qt binding are installed."""
    return util.find_spec("napari") is not None and any(util.find_spec(name) is not None for name in QT)
