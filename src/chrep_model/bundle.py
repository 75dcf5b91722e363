"""A trained model as a folder that says what it is and refuses to be what it is not.

``card.json`` describes it and holds the hash of every other file, and its own; ``weights.safetensors`` holds
the fitted numbers, ``genes.parquet`` the panel, ``gallery.zarr`` the training spots, ``encoder.safetensors``
the encoder's weights where they came from a file. Nothing in it is code, and loading runs none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from chrep_model import __version__
from chrep_model.cohorts.genes import GenePanel
from chrep_model.errors import BundleError, GeneError
from chrep_model.slides.tiles import TileSpec

if TYPE_CHECKING:
    from chrep_model.methods.model import Model
    from chrep_model.networks.encoder import Encoder

FORMAT = 1
_GALLERY_ARRAYS = ("z", "expression", "section", "patient", "position")
_FILES = ("weights.safetensors", "genes.parquet", "gallery.zarr")
_REMEDY = "Get the whole folder again, or train it again."


class Card(BaseModel):
    """What a bundle is, for people and programs.

    Lengths in µm; `mpp` and `px` are those of a tile. `files` holds the sha256 of every file beside the card,
    `seal` that of all other fields.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    name: str
    method: str
    variants: list[str]
    encoder: str
    encoder_id: str
    mpp: float
    px: int
    context_um: list[float]
    genes: int
    units: str = "log10-spot: log10(1 + 1e4 * count / counts of the spot over these genes)"
    cohort: str
    sections: list[dict[str, str | float | int]]
    seed: int
    created: str
    chrep_version: str
    note: str = ""
    settings: dict[str, Any]
    files: dict[str, str]
    seal: str = ""

    def sealed(self) -> Card:
        """Copy with the right `seal`."""
        facts = json.loads(self.model_dump_json(exclude={"seal"}))
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return self.model_copy(update={"seal": hashlib.sha256(text.encode()).hexdigest()})


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `model` and `encoder()` import torch on first use, the rest does not."""

    path: Path
    card: Card
    panel: GenePanel

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes it predicts."""
        return self.panel.genes

    @property
    def spec(self) -> TileSpec:
        """Tiles it reads."""
        return TileSpec(self.card.mpp, self.card.px)

    @property
    def context_um(self) -> tuple[float, ...]:
        """Radii of the neighbourhoods whose mean embedding it reads, in µm."""
        return tuple(self.card.context_um)

    @property
    def hash(self) -> str:
        """sha256 over the card, and with it over every file."""
        return self.card.seal

    @cached_property
    def model(self) -> Model:
        """The fitted model."""
        return _load_model(self)

    def encoder(self, device: str = "cpu") -> Encoder:
        """Return the encoder it was trained on; BundleError when only another one can be had."""
        from chrep_model.networks.encoder import STAINBANK, open_encoder

        own = self.path / "encoder.safetensors"
        weights = own if own.exists() else None
        mpp = self.card.mpp
        tile_um = mpp * self.card.px
        encoder = open_encoder(self.card.encoder, weights=weights, tile_um=tile_um, mpp=mpp, device=device)
        if encoder.id != self.card.encoder_id:
            cause = (
                "this version computes it otherwise"
                if self.card.encoder == STAINBANK
                else "its weights differ"
            )
            raise BundleError(
                f"the encoder {self.card.encoder} is not the one that this bundle was trained on ({cause})",
                path=self.path,
                remedy="Train the bundle again, or bring the weights it was trained on.",
            )
        return encoder


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and check every file against the hashes on its card.

    Raises
    ------
    BundleError
        No bundle, damaged, of another format, or its files do not belong together.
    """
    folder = Path(path)
    card_file = folder / "card.json"
    if not card_file.is_file():
        raise BundleError(
            "this is no bundle: it has no card.json",
            path=folder,
            remedy="Give a folder made by `chrep train`.",
        )
    card = _read_card(card_file)
    for name in _FILES:
        if name not in card.files:
            raise BundleError(f"the card names no {name}", path=card_file, remedy=_REMEDY)
    for name, expected in card.files.items():
        file = folder / Path(name).name
        if not file.exists():
            raise BundleError(f"the bundle has lost {name}", path=folder, remedy=_REMEDY)
        if _hash(file) != expected:
            raise BundleError(
                f"{name} is not the file that this bundle was made with (its hash differs)",
                path=file,
                remedy=_REMEDY,
            )
    return Bundle(folder, card, _load_panel(folder, card))


def _read_card(path: Path) -> Card:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        # Before the fields: another format has others, and that is what the user wants to hear.
        if (found := facts["format"]) != FORMAT:
            raise BundleError(
                f"the bundle has format {found}; this version reads {FORMAT}",
                path=path.parent,
                remedy="Use the version that wrote it, or train it again.",
            )
        card = Card.model_validate(facts)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BundleError("the bundle's card.json cannot be understood", path=path, remedy=_REMEDY) from error
    if card.seal != card.sealed().seal:
        raise BundleError(
            "the card is not the one that this bundle was made with (it was edited)",
            path=path,
            remedy=_REMEDY,
        )
    return card


def check_place(path: str | os.PathLike[str]) -> None:
    """See that a bundle can be put here, before hours of work.

    Raises
    ------
    BundleError
        There is something else than a bundle, or nothing can be written.
    """
    folder = Path(path)
    if folder.exists() and not (folder / "card.json").is_file():
        raise BundleError(
            "there is something else than a bundle at this place", path=folder, remedy="Choose another name."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: Exception) -> BundleError:
    reason = getattr(error, "strerror", None) or error
    return BundleError(
        f"the bundle cannot be written ({reason})",
        path=path,
        remedy="Choose a folder that can be written and has room.",
    )


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
        `path` is something else than a bundle, or cannot be written; an older bundle stays as it was.
    """
    from safetensors import SafetensorError

    check_place(path)
    folder = Path(path)
    part = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(part, ignore_errors=True)
    try:
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
            files={name: _hash(part / name) for name in names},
        )
        (part / "card.json").write_text(card.sealed().model_dump_json(indent=1), encoding="utf-8")
        _sync(part)
        _swap(part, folder)
    except (OSError, SafetensorError) as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load_bundle(folder)


def _write_parts(folder: Path, model: Model, weights: Path | None) -> list[str]:
    """Write everything but the card; gives the names."""
    from safetensors.numpy import save

    scale = {"scale.mean": model.scale.mean, "scale.sd": model.scale.sd}
    fitted = {f"method.{k}": np.ascontiguousarray(v) for k, v in model.fitted.arrays().items()}
    (folder / "weights.safetensors").write_bytes(save({**scale, **fitted}))
    model.panel.to_frame().to_parquet(folder / "genes.parquet", index=False)
    _write_gallery(folder / "gallery.zarr", model)
    if weights is None:
        return list(_FILES)
    shutil.copyfile(weights, folder / "encoder.safetensors")
    return [*_FILES, "encoder.safetensors"]


def _write_gallery(path: Path, model: Model) -> None:
    import zarr

    gallery = model.fitted.gallery
    group = zarr.open_group(path, mode="w")
    for name in _GALLERY_ARRAYS:
        group.create_array(name, data=getattr(gallery, name))
    group.attrs["section_names"] = list(gallery.section_names)


def _load_model(bundle: Bundle) -> Model:
    import zarr
    from safetensors.numpy import load_file

    from chrep_model.calibration.gallery import Gallery
    from chrep_model.methods.model import FeatureScale, Model
    from chrep_model.methods.registry import METHODS, fitted_class

    if bundle.card.method not in METHODS:
        raise BundleError(
            f"the bundle was made with the method {bundle.card.method!r}, which this version does not know",
            path=bundle.path,
            remedy="Use the version that wrote it, or train it again.",
        )
    try:
        arrays = load_file(bundle.path / "weights.safetensors")
        group = zarr.open_group(bundle.path / "gallery.zarr", mode="r")
        names: Any = group.attrs["section_names"]
        parts: dict[str, Any] = {name: group[name][:] for name in _GALLERY_ARRAYS}  # type: ignore[index]
        gallery = Gallery(**parts, section_names=tuple(names))
        own = {k.removeprefix("method."): v for k, v in arrays.items() if k.startswith("method.")}
        fitted = fitted_class(bundle.card.method).from_arrays(own, gallery)
        scale = FeatureScale(arrays["scale.mean"], arrays["scale.sd"])
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise BundleError(
            f"the bundle's numbers do not fit together ({error})", path=bundle.path, remedy=_REMEDY
        ) from error
    if gallery.expression.shape[1] != len(bundle.panel):
        raise BundleError(
            f"the gallery holds {gallery.expression.shape[1]} genes, the panel {len(bundle.panel)}",
            path=bundle.path,
            remedy=_REMEDY,
        )
    return Model(bundle.panel, scale, fitted)


def _load_panel(folder: Path, card: Card) -> GenePanel:
    import pandas as pd

    try:
        panel = GenePanel.from_frame(pd.read_parquet(folder / "genes.parquet"))
    except (OSError, ValueError, GeneError) as error:
        raise BundleError(
            f"the bundle's genes cannot be read ({error})", path=folder / "genes.parquet", remedy=_REMEDY
        ) from error
    if len(panel) != card.genes:
        raise BundleError(
            f"the card says {card.genes} genes, the file has {len(panel)}", path=folder, remedy=_REMEDY
        )
    return panel


def _hash(path: Path) -> str:
    """sha256 of a file, or of a folder's files by name and content."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.name.startswith(".") or file.name == "Thumbs.db":
            continue  # what file managers leave behind where somebody looked
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())


def _swap(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`; the old one goes only after the new one is there."""
    old = target.with_name(f"{target.name}.{os.getpid()}.old")
    replaced = target.exists()
    if replaced:
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if replaced:
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def describe(card: Card) -> str:
    """Card in a few lines for a person."""
    facts = json.loads(card.model_dump_json())
    where = ", ".join(f"{s['name']} ({s['patient']})" for s in facts["sections"])
    context = ", ".join(f"{r:g}" for r in card.context_um) or "none"
    lines = [
        f"{card.name}: {card.method} on {card.encoder}, {card.genes} genes",
        f"tiles of {card.mpp * card.px:.0f} µm ({card.px} px at {card.mpp:.3f} µm/px), context {context} µm",
        f"trained on {card.cohort}: {where}; seed {card.seed}, {card.created}",
    ]
    return "\n".join([*lines, card.note] if card.note else lines)
