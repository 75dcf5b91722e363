"""Writing of a bundle to a folder that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chrep_model import __version__
from chrep_model.bundle.card import Card
from chrep_model.bundle.reading import ENCODER_FILE, FILES, Bundle, folder_hash, load_bundle
from chrep_model.bundle.stored_gallery import write_gallery
from chrep_model.errors import BundleError
from chrep_model.files import make_writable, write_atomically

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Encoder
    from chrep_model.methods.model import Model

_UNWRITABLE = (
    BundleError,
    "the bundle cannot be written",
    "Choose a folder that can be written and has room.",
)


def check_place(path: str | os.PathLike[str]) -> None:
    """Check that a bundle can be written to a path, before hours of training.

    Raises
    ------
    BundleError
        The path exists and is not a bundle, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not (folder / "card.json").is_file():
        raise BundleError(
            "there is something else than a bundle at this place", path=folder, remedy="Choose another name."
        )
    make_writable(folder.parent, *_UNWRITABLE, about=folder)


def save_bundle(
    path: str | os.PathLike[str],
    model: Model,
    encoder: Encoder,
    *,
    weights: Path | None,
    context_um: tuple[float, ...],
    cohort: str,
    sections: list[dict[str, str | float | int]],
    seed: int,
    settings: dict[str, Any],
    note: str = "",
) -> Bundle:
    """Write a bundle; an older bundle at `path` is replaced once the new one is complete.

    Raises
    ------
    BundleError
        `path` exists and is not a bundle, or cannot be written; an older bundle is then not changed.
    """
    check_place(path)
    folder = Path(path)
    with write_atomically(folder, *_UNWRITABLE) as part:
        part.mkdir()
        names = _write_parts(part, model, weights)
        card = Card(
            name=folder.name.removesuffix(".chrep"),
            method=model.fitted.name,
            variants=list(model.fitted.variants),
            encoder=encoder.name,
            encoder_id=encoder.id,
            mpp=encoder.spec.mpp,
            px=encoder.spec.px,
            context_um=list(context_um),
            genes=len(model.panel),
            cohort=cohort,
            sections=sections,
            seed=seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            chrep_version=__version__,
            note=note,
            settings=settings,
            files={name: folder_hash(part / name) for name in names},
        )
        (part / "card.json").write_text(card.sealed().model_dump_json(indent=1), encoding="utf-8")
    return load_bundle(folder)


def _write_parts(folder: Path, model: Model, weights: Path | None) -> list[str]:
    """Write all files except the card; return their names."""
    from safetensors.numpy import save

    scale = {"scale.mean": model.scale.mean, "scale.sd": model.scale.sd}
    fitted = {f"method.{k}": np.ascontiguousarray(v) for k, v in model.fitted.arrays().items()}
    genes, trust = model.panel.to_frame(), model.fitted.trust
    if trust is not None:
        fitted |= {f"trust.{k}": np.ascontiguousarray(v) for k, v in trust.arrays().items()}
        genes = genes.assign(accuracy=trust.accuracy, predictable=trust.predictable)
    (folder / "weights.safetensors").write_bytes(save({**scale, **fitted}))
    genes.to_parquet(folder / "genes.parquet", index=False)
    write_gallery(folder / "gallery.zarr", model.fitted.gallery)
    if weights is None:
        return list(FILES)
    shutil.copyfile(weights, folder / ENCODER_FILE)
    return [*FILES, ENCODER_FILE]
