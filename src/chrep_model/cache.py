"""Where embeddings are kept on this computer, and how much of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs


def default_cache() -> Path:
    """Where embeddings are kept: ``$CHREP_CACHE``, else the user's cache folder."""
    given = os.environ.get("CHREP_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("chrep", appauthor=False))


def trim_cache(cache: Path, most_bytes: int) -> None:
    """Forget the slides that were not looked at for longest, until what is kept fits.

    Whoever has such a store open loses no more than what was kept: to zarr, chunks that are gone are empty.

    Parameters
    ----------
    cache : Path
        Folder of the stores; need not exist.
    most_bytes : int
        How much they may take together.
    """
    stores = [folder for folder in cache.glob("*") if (folder / "zarr.json").is_file()]
    left = most_bytes
    for folder in sorted(stores, key=_last_used, reverse=True):
        left -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if left < 0:
            shutil.rmtree(folder, ignore_errors=True)


def _last_used(store: Path) -> float:
    return store.stat().st_mtime
