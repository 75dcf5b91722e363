"""Settings of the user: the plugin's page of napari's preferences, and values kept between sessions."""

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

#: Number of recent genes that are kept.
RECENT = 5

#: `Mpp.source` of a scale that the user entered in an earlier session.
REMEMBERED = "remembered"

_FOLDERS, _FOLDER = "folders", "folder"


@dataclass(frozen=True)
class Preferences:
    """Values on the plugin's page of napari's preferences; the manifest has defaults and limits.

    Attributes
    ----------
    device : str
        ``"auto"`` or a torch device.
    precision : str
        Precision of timm encoders; the built-in encoder always uses fp32.
    batch_size : int or None
        Tiles per batch; None for the fastest size that was measured.
    tile_budget : int
        Largest number of tiles that is predicted without asking the user.
    cache : Path
        Folder of the embeddings.
    cache_bytes : int
        Largest size of that folder.
    """

    device: str
    precision: Precision
    batch_size: int | None
    tile_budget: int
    cache: Path
    cache_bytes: int


def preferences() -> Preferences:
    """Return the current values on the plugin's page of napari's preferences."""
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
    """Names of the user's favourite and recent genes, kept between sessions."""

    def __init__(self) -> None:
        self._settings = _settings_file("genes")

    @property
    def favourites(self) -> list[str]:
        """Favourite genes in the order in which they were marked."""
        return self._read("favourites")

    @property
    def recent(self) -> list[str]:
        """Genes that were shown last, the newest first."""
        return self._read("recent")

    def toggle_favourite(self, name: str) -> None:
        """Mark a gene as favourite, or remove the mark."""
        former = self.favourites
        self._write("favourites", [n for n in former if n != name] if name in former else [*former, name])

    def add_recent(self, name: str) -> None:
        """Put a gene first among the recent ones."""
        self._write("recent", [name, *(other for other in self.recent if other != name)][:RECENT])

    # Stored as one text, because an ini file does not distinguish a list of one name from a name.

    def _read(self, key: str) -> list[str]:
        return str(self._settings.value(key, "")).splitlines()

    def _write(self, key: str, names: list[str]) -> None:
        self._settings.setValue(key, "\n".join(names))


def gene_names_file() -> Path:
    """Return the path of the copy of the table of other gene names that the user opened."""
    return Path(_settings_file("genes").fileName()).with_name("gene_names.parquet")


def remember_scale(slide: Slide) -> None:
    """Store the scale of a slide by the fingerprint of its content, so that the file may be moved."""
    _settings_file("scales").setValue(slide.fingerprint, repr(slide.require_mpp()))


def with_remembered_scale(slide: Slide) -> Slide:
    """Return a slide with the scale stored for it, if its file states none and there is one."""
    if slide.mpp is not None:
        return slide
    kept = _settings_file("scales").value(slide.fingerprint)
    try:
        return slide if kept is None else slide.with_mpp(float(str(kept)), REMEMBERED)
    except (ValueError, ScaleError):  # the settings file was edited
        return slide


def image_folder(cohort: str) -> Path | None:
    """Return the folder that the user chose for the images of a training cohort."""
    folder = _image_folders().get(cohort)
    return None if folder is None else Path(folder)


def remember_image_folder(cohort: str, folder: Path) -> None:
    """Store the folder with the images of a training cohort."""
    _settings_file("images").setValue(_FOLDERS, json.dumps(_image_folders() | {cohort: str(folder)}))


def retraining_folder() -> Path | None:
    """Return the folder of a retraining that is not finished or not decided on; None if there is none."""
    folder = str(_settings_file("retraining").value(_FOLDER, ""))
    return Path(folder) if folder else None


def remember_retraining_folder(folder: Path | None) -> None:
    """Store the folder of a retraining, so that a new window finds it; None removes the entry."""
    if folder is None:
        _settings_file("retraining").remove(_FOLDER)
    else:
        _settings_file("retraining").setValue(_FOLDER, str(folder))


def models_folder() -> Path:
    """Return the user's own folder for new models."""
    return Path(platformdirs.user_data_dir("chrep", appauthor=False)) / "models"


def _image_folders() -> dict[str, str]:
    try:
        known = json.loads(_settings_file("images").value(_FOLDERS, "{}", str))
    except ValueError:
        return {}
    return {str(cohort): str(folder) for cohort, folder in known.items()} if isinstance(known, dict) else {}


def _settings_file(name: str) -> QSettings:
    """Return the plugin's ini file of this name in the user's settings."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "napari-chrep", name)
