"""Search indexes of large galleries: computed once per gallery, stored in the cache, used by predictions.

An index is stored under the hash of the gallery's files, so that all bundles with that gallery use it. The
file with its facts is written last, and an index without that file is not used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from chrep_model.files import write_atomically
from chrep_model.progress import SILENT, Progress

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.calibration.index import IndexFacts

LAYOUT = 1
"""Version of the indexes; those of other versions are not used."""


def kept(bundle: Bundle, cache: Path) -> IndexFacts | None:
    """Return the facts of the stored index for a bundle, which is used on a CPU; None if there is none."""
    from chrep_model.calibration.index import IndexFacts, available

    lists, facts = _files(bundle, cache)
    if not (lists.exists() and available()):
        return None
    try:
        return IndexFacts.model_validate_json(facts.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def use(bundle: Bundle, cache: Path) -> None:
    """Let a bundle's model search neighbours with the stored index, if there is one."""
    if (facts := kept(bundle, cache)) is None:
        return
    from chrep_model.calibration.index import Index

    fitted = bundle.model.fitted
    try:
        index = Index.open(_files(bundle, cache)[0], facts)
    except RuntimeError:  # damaged: search all spots, as without an index
        return
    fitted.gallery = replace(fitted.gallery, index=index)


def make(bundle: Bundle, cache: Path, progress: Progress = SILENT) -> IndexFacts | None:
    """Compute and store an index of a bundle's gallery; it is removed if it does not make search faster.

    Parameters
    ----------
    bundle : Bundle
        The model.
    cache : Path
        Cache folder of the embeddings.
    progress : Progress
        Receives messages about the work.

    Returns
    -------
    IndexFacts or None
        None if an index is not faster, see `index_making.make_index`.

    Raises
    ------
    PredictionError
        The cache cannot be written.
    """
    from chrep_model.calibration.index_making import make_index
    from chrep_model.methods.base import REACH

    lists, facts = _files(bundle, cache)
    facts.unlink(missing_ok=True)
    fitted = bundle.model.fitted
    index = make_index(fitted.gallery, max(fitted.k or 0, REACH), progress=progress)
    if index is None:
        lists.unlink(missing_ok=True)
        return None
    with write_atomically(lists) as part:
        part.parent.mkdir(parents=True, exist_ok=True)
        index.save(part)
    with write_atomically(facts) as part:
        part.write_text(index.facts.model_dump_json(indent=1), encoding="utf-8")
    return index.facts


def _files(bundle: Bundle, cache: Path) -> tuple[Path, Path]:
    """Return the paths of an index's lists and facts."""
    facts = [LAYOUT, bundle.card.files.get("gallery.zarr")]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    return cache / "indexes" / f"{name}.faiss", cache / "indexes" / f"{name}.json"
