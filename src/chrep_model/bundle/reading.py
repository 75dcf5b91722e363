"""Reading of a bundle; every file is checked against its hash before it is used."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chrep_model.bundle.card import REMEDY, Card, read_card
from chrep_model.calibration.trust import Trust
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import BundleError, GeneError
from chrep_model.slides.tiles import TileSpec

if TYPE_CHECKING:
    from chrep_model.encoders.encoder import Encoder, Precision
    from chrep_model.methods.model import Model

ENCODER_FILE = "encoder.safetensors"
FILES = ("weights.safetensors", "genes.parquet", "gallery.zarr")


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `model` and `encoder()` import torch on first use, the rest does not."""

    path: Path
    card: Card
    panel: GenePanel

    def __repr__(self) -> str:
        what = f"{self.card.method} on {self.card.encoder}, {len(self.genes)} genes"
        return f"<{type(self).__name__} {self.card.name!r}: {what}>"

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes that the model predicts."""
        return self.panel.genes

    @property
    def spec(self) -> TileSpec:
        """Size of the model's tiles."""
        return TileSpec(self.card.mpp, self.card.px)

    @property
    def context_um(self) -> tuple[float, ...]:
        """Radii in µm of the neighbourhoods whose mean embedding the model uses."""
        return tuple(self.card.context_um)

    @property
    def hash(self) -> str:
        """SHA-256 of the card, and thereby of all files."""
        return self.card.seal

    @property
    def encoder_weights(self) -> Path | None:
        """File of the encoder's weights; None if the encoder has none, like the built-in one."""
        file = self.path / ENCODER_FILE
        return file if file.exists() else None

    @property
    def recall(self) -> float:
        """Share of the nearest gallery spots that the search finds, see `Gallery.recall`."""
        return self.model.fitted.gallery.recall

    @cached_property
    def trust(self) -> Trust | None:
        """Intervals and accuracies of the model; None for a method without them."""
        return _load_trust(self)

    @cached_property
    def model(self) -> Model:
        """The fitted model."""
        return _load_model(self)

    def encoder(self, device: str = "cpu", precision: Precision = "fp32") -> Encoder:
        """Return the encoder of the model's training; BundleError if it is not available.

        In bf16 its embeddings differ by rounding from those that the bundle was trained on.
        """
        from chrep_model.encoders.opening import open_encoder
        from chrep_model.encoders.stainbank import STAINBANK

        mpp = self.card.mpp
        encoder = open_encoder(
            self.card.encoder,
            weights=self.encoder_weights,
            tile_um=mpp * self.card.px,
            mpp=mpp,
            device=device,
            precision=precision,
        )
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
        The folder is not a bundle, is damaged or of another format, or its files do not belong together.
    """
    folder = Path(path)
    card_file = folder / "card.json"
    if not card_file.is_file():
        raise BundleError(
            "this is no bundle: it has no card.json",
            path=folder,
            remedy="Give a folder made by `chrep train`.",
        )
    card = read_card(card_file)
    for name in FILES:
        if name not in card.files:
            raise BundleError(f"the card names no {name}", path=card_file, remedy=REMEDY)
    for name, expected in card.files.items():
        file = folder / Path(name).name
        if not file.exists() and name == ENCODER_FILE:
            raise BundleError(
                f"the weights of its encoder {card.encoder} are not on this machine: {name} is missing",
                path=folder,
                remedy=f"Copy {name} from where the bundle was trained into this folder; others do not fit.",
            )
        if not file.exists():
            raise BundleError(f"the bundle has lost {name}", path=folder, remedy=REMEDY)
        if folder_hash(file) != expected:
            raise BundleError(
                f"{name} is not the file that this bundle was made with (its hash differs)",
                path=file,
                remedy=REMEDY,
            )
    return Bundle(folder, card, _load_panel(folder, card))


def _load_model(bundle: Bundle) -> Model:
    from safetensors.numpy import load_file

    from chrep_model.bundle.stored_gallery import read_gallery
    from chrep_model.methods.model import FeatureScale, Model
    from chrep_model.methods.registry import find

    if (method := find(bundle.card.method)) is None:
        raise BundleError(
            f"the bundle was made with the method {bundle.card.method!r}, which this version does not know",
            path=bundle.path,
            remedy="Use the version that wrote it, or train it again.",
        )
    try:
        arrays = load_file(bundle.path / "weights.safetensors")
        gallery = read_gallery(bundle.path / "gallery.zarr")
        own = {k.removeprefix("method."): v for k, v in arrays.items() if k.startswith("method.")}
        fitted = method.fitted_class.from_arrays(own, gallery)
        fitted.trust = bundle.trust
        scale = FeatureScale(arrays["scale.mean"], arrays["scale.sd"])
    except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
        raise BundleError(
            f"the bundle's numbers do not fit together ({error})", path=bundle.path, remedy=REMEDY
        ) from error
    if gallery.expression.shape[1] != len(bundle.panel):
        raise BundleError(
            f"the gallery holds {gallery.expression.shape[1]} genes, the panel {len(bundle.panel)}",
            path=bundle.path,
            remedy=REMEDY,
        )
    return Model(bundle.panel, scale, fitted)


def _load_trust(bundle: Bundle) -> Trust | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(bundle.path / "weights.safetensors", framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith("trust.")]  # noqa: SIM118  (no mapping)
            arrays = {name.removeprefix("trust."): file.get_tensor(name) for name in names}
        trust = Trust.from_arrays(arrays) if arrays else None
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise BundleError(
            f"the bundle's intervals cannot be read ({error})", path=bundle.path, remedy=REMEDY
        ) from error
    if trust is not None and len(trust.accuracy) != len(bundle.panel):
        raise BundleError(
            f"the intervals are for {len(trust.accuracy)} genes, the panel has {len(bundle.panel)}",
            path=bundle.path,
            remedy=REMEDY,
        )
    return trust


def _load_panel(folder: Path, card: Card) -> GenePanel:
    import pandas as pd

    try:
        panel = GenePanel.from_frame(pd.read_parquet(folder / "genes.parquet"))
    except (OSError, ValueError, GeneError) as error:
        raise BundleError(
            f"the bundle's genes cannot be read ({error})", path=folder / "genes.parquet", remedy=REMEDY
        ) from error
    if len(panel) != card.genes:
        raise BundleError(
            f"the card says {card.genes} genes, the file has {len(panel)}", path=folder, remedy=REMEDY
        )
    return panel


def folder_hash(path: Path) -> str:
    """Compute the SHA-256 of a file, or of the names and contents of a folder's files."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if file.name.startswith(".") or file.name == "Thumbs.db":
            continue  # files that file managers create
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
