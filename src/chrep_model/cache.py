"""Cache folder of the embeddings on this computer, and removal of old ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import platformdirs


def default_cache() -> Path:
    """Return the cache folder of the embeddings: ``$CHREP_CACHE``, else the user's cache folder."""
    given = os.environ.get("CHREP_CACHE")
    return Path(given) if given else Path(platformdirs.user_cache_dir("chrep", appauthor=False))


def trim_cache(cache: Path, most_bytes: int) -> None:
    """Delete the least recently used embedding stores until the others fit into `most_bytes`.

    A store may be deleted while another process uses it: zarr reads missing chunks as empty, so that process
    only loses stored embeddings.

    Parameters
    ----------
    cache : Path
        Folder of the stores; need not exist.
    most_bytes : int
        Largest total size of the stores in bytes.
    """
    stores = [folder for folder in cache.glob("*") if (folder / "zarr.json").is_file()]
    left = most_bytes
    for folder in sorted(stores, key=_last_used, reverse=True):
        left -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if left < 0:
            shutil.rmtree(folder, ignore_errors=True)


def _last_used(store: Path) -> float:
    return store.stat().st_mtime
