"""The user's settings: the plugin's page of napari's preferences, and what is kept for the next start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
from napari.settings import get_plugin_settings
from qtpy.QtCore import QSettings

from chrep_model.cache import default_cache
from chrep_model.errors import ScaleError
from chrep_model.slides.slide import Slide

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Precision

#: So many recent genes are kept.
RECENT = 5

#: `Mpp.source` of a scale that was typed in when the slide was open before.
REMEMBERED = "remembered"

_FOLDERS, _FOLDER = "folders", "folder"


@dataclass(frozen=True)
class Preferences:
    """The plugin's page of napari's preferences as it is now; the manifest has its defaults and limits.

    Attributes
    ----------
    device : str
        ``"auto"`` or a torch device.
    precision : str
        In what timm encoders compute; the built-in one knows fp32 alone.
    batch_size : int or None
        Tiles per batch; None for what was measured to be fastest.
    tile_budget : int
        More tiles than this are not predicted before the user has said yes.
    cache : Path
        Where embeddings are kept.
    cache_bytes : int
        How much they may take there.
    """

    device: str
    precision: Precision
    batch_size: int | None
    tile_budget: int
    cache: Path
    cache_bytes: int


def preferences() -> Preferences:
    """Read the plugin's page of napari's preferences."""
    page = get_plugin_settings("napari-chrep")
    prediction, store = page.prediction, page.store
    return Preferences(
        device=prediction.device,
        precision=prediction.precision,
        batch_size=prediction.batch_size or None,
        tile_budget=prediction.tile_budget,
        cache=Path(folder).expanduser() if (folder := store.folder.strip()) else default_cache(),
        cache_bytes=int(store.size_gb * 1e9),
    )


class RememberedGenes:
    """Favourite and recent genes of the user, by name."""

    def __init__(self) -> None:
        self._settings = _stored("genes")

    @property
    def favourites(self) -> list[str]:
        """Favourites in the order they were marked."""
        return self._read("favourites")

    @property
    def recent(self) -> list[str]:
        """The last genes on show, the newest first."""
        return self._read("recent")

    def toggle_favourite(self, name: str) -> None:
        """Mark a gene as favourite, or no more."""
        former = self.favourites
        self._write("favourites", [n for n in former if n != name] if name in former else [*former, name])

    def add_recent(self, name: str) -> None:
        """Put a gene first among the recent ones."""
        self._write("recent", [name, *(other for other in self.recent if other != name)][:RECENT])

    # One text rather than a list: an ini file cannot tell a list of one name from a name.

    def _read(self, key: str) -> list[str]:
        return str(self._settings.value(key, "")).splitlines()

    def _write(self, key: str, names: list[str]) -> None:
        self._settings.setValue(key, "\n".join(names))


def gene_names_file() -> Path:
    """Return where the table of other gene names is kept that the user opened."""
    return Path(_stored("genes").fileName()).with_name("gene_names.parquet")


def remember_scale(slide: Slide) -> None:
    """Keep the scale of a slide under its content, so that it is found wherever the file is."""
    _stored("scales").setValue(slide.fingerprint, repr(slide.require_mpp()))


def with_remembered_scale(slide: Slide) -> Slide:
    """Give a slide that does not say its scale the one that was kept, if there is one."""
    if slide.mpp is not None:
        return slide
    kept = _stored("scales").value(slide.fingerprint)
    try:
        return slide if kept is None else slide.with_mpp(float(str(kept)), REMEMBERED)
    except (ValueError, ScaleError):  # somebody edited the settings
        return slide


def image_folder(cohort: str) -> Path | None:
    """Return the folder that the user chose for the images of a training cohort."""
    folder = _image_folders().get(cohort)
    return None if folder is None else Path(folder)


def remember_image_folder(cohort: str, folder: Path) -> None:
    """Keep the folder with the images of a training cohort."""
    _stored("images").setValue(_FOLDERS, json.dumps(_image_folders() | {cohort: str(folder)}))


def retraining_folder() -> Path | None:
    """Return the folder of the retraining that waits to be continued or decided on."""
    folder = str(_stored("retraining").value(_FOLDER, ""))
    return Path(folder) if folder else None


def remember_retraining_folder(folder: Path | None) -> None:
    """Keep the folder of a retraining, so that a new window finds it; None forgets it."""
    if folder is None:
        _stored("retraining").remove(_FOLDER)
    else:
        _stored("retraining").setValue(_FOLDER, str(folder))


def models_folder() -> Path:
    """Return the user's own folder for new models."""
    return Path(platformdirs.user_data_dir("chrep", appauthor=False)) / "models"


def _image_folders() -> dict[str, str]:
    try:
        known = json.loads(_stored("images").value(_FOLDERS, "{}", str))
    except ValueError:
        return {}
    return {str(cohort): str(folder) for cohort, folder in known.items()} if isinstance(known, dict) else {}


def _stored(name: str) -> QSettings:
    """Return one of the plugin's ini files among the settings of this user."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-chrep", name)
