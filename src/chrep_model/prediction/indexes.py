"""Indexes of large galleries: made once for a bundle, kept in the cache, used by later predictions.

An index belongs to a gallery's files by their hash, so that it serves every bundle with that gallery, under
any name. The file with its facts is written last, and none is used without them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from chrep_model.files import write_atomically

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.calibration.index import IndexFacts

LAYOUT = 1
"""Version of how indexes are made; those of another one are not used."""


def kept(bundle: Bundle, cache: Path) -> IndexFacts | None:
    """Return the facts of the index that is used for a bundle on a CPU; None where there is none."""
    from chrep_model.calibration.index import IndexFacts, available

    lists, facts = _files(bundle, cache)
    if not (lists.exists() and available()):
        return None
    try:
        return IndexFacts.model_validate_json(facts.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def use(bundle: Bundle, cache: Path) -> None:
    """Have a bundle's model look for neighbours in the index that is kept for it, if there is one."""
    if (facts := kept(bundle, cache)) is None:
        return
    from chrep_model.calibration.index import Index

    fitted = bundle.model.fitted
    try:
        index = Index.open(_files(bundle, cache)[0], facts)
    except RuntimeError:  # damaged: all spots are looked at, as before there was an index
        return
    fitted.gallery = replace(fitted.gallery, index=index)


def make(bundle: Bundle, cache: Path, report: Callable[[str], None] = lambda _: None) -> IndexFacts | None:
    """Make and keep an index of a bundle's gallery; a former one is replaced, or removed if it does not pay.

    Parameters
    ----------
    bundle : Bundle
        The model.
    cache : Path
        Folder of the embeddings.
    report : callable
        Gets what is being done.

    Returns
    -------
    IndexFacts or None
        None where an index does not pay, see `index_making.make_index`.

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
    index = make_index(fitted.gallery, max(fitted.k or 0, REACH), report=report)
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
    """Where an index's lists and facts are kept."""
    facts = [LAYOUT, bundle.card.files.get("gallery.zarr")]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    return cache / "indexes" / f"{name}.faiss", cache / "indexes" / f"{name}.json"
