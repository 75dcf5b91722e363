"""What a model says of a slide, lazy per gene.

A prediction keeps what does not depend on the gene (hidden layers, neighbours, weights) for every tile;
one gene's values are computed when asked for, and nothing of the size tiles x genes exists before an export.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.errors import PredictionError
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid

if TYPE_CHECKING:
    import anndata

    from chrep_model.bundle import Bundle
    from chrep_model.methods.base import Response


@dataclass(frozen=True)
class PredictionPart:
    """One batch of a prediction.

    Attributes
    ----------
    indices : ndarray
        (b,) int64 flat indices of the grid.
    response : dict of ndarray
        The method's response, one row per tile.
    """

    indices: NDArray[np.int64]
    response: Response


@dataclass
class Prediction:
    """Tiles of one slide with everything needed to give any gene's value.

    Parameters
    ----------
    bundle : Bundle
        The model.
    grid : TileGrid
        Where the tiles lie.
    slide : Slide
        The slide; only its facts are read.
    """

    bundle: Bundle
    grid: TileGrid
    slide: Slide
    _parts: list[PredictionPart] = field(default_factory=list)
    _known: set[int] = field(default_factory=set)

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes that can be asked for."""
        return self.bundle.genes

    @property
    def variants(self) -> tuple[str, ...]:
        """Predictions that can be asked for; the last one is the one to trust."""
        return tuple(self.bundle.card.variants)

    @property
    def indices(self) -> NDArray[np.int64]:
        """(n,) int64 flat indices of the predicted tiles, in the order they came."""
        if not self._parts:
            return np.empty(0, np.int64)
        return np.concatenate([part.indices for part in self._parts])

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, index: int) -> bool:
        return index in self._known

    def missing(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `indices` that are not predicted yet, in their order."""
        return np.array([i for i in indices if int(i) not in self._known], np.int64)

    def add(self, part: PredictionPart) -> None:
        """Take in a batch; tiles that are known already are left as they are."""
        new = np.array([int(i) not in self._known for i in part.indices], bool)
        if new.any():
            response = part.response if new.all() else {k: v[new] for k, v in part.response.items()}
            self._parts.append(PredictionPart(part.indices[new], response))
            self._known.update(int(i) for i in part.indices[new])

    def gene(self, name: str, variant: str | None = None) -> NDArray[np.float32]:
        """One gene's values over the predicted tiles.

        Parameters
        ----------
        name : str
            Gene.
        variant : str, optional
            One of `variants`; the last one unless given.

        Returns
        -------
        ndarray
            (n,) float32, log10-spot units, in the order of `indices`.

        Raises
        ------
        GeneError
            The model does not know the gene.
        PredictionError
            The model has no such variant.
        """
        return self.values(self.bundle.panel.indices([name]), variant)[:, 0]

    def values(self, genes: NDArray[np.int64] | slice, variant: str | None = None) -> NDArray[np.float32]:
        """Values (n, number of genes) float32 for columns of the panel; see `gene`."""
        variant = variant or self.variants[-1]
        if variant not in self.variants:
            raise PredictionError(
                f"this model has no prediction called {variant!r}",
                remedy=f"Choose from {', '.join(self.variants)}.",
            )
        width = len(np.arange(len(self.genes))[genes])
        out = np.empty((len(self), width), np.float32)
        start = 0
        for part in self._parts:
            stop = start + len(part.indices)
            out[start:stop] = self.bundle.model.read(part.response, variant, genes)
            start = stop
        return out

    def map(self, name: str, variant: str | None = None) -> NDArray[np.float32]:
        """One gene on the tile grid, (rows, cols) float32, NaN where nothing was predicted."""
        return self.on_grid(self.gene(name, variant))

    def distance(self) -> NDArray[np.float32]:
        """1 - cosine to the most similar gallery spot, (n,) float32: how unlike the training tissue."""
        if not self._parts:
            return np.empty(0, np.float32)
        return np.concatenate([part.response["distance"] for part in self._parts])

    def distance_map(self) -> NDArray[np.float32]:
        """`distance` on the tile grid, (rows, cols) float32 with NaN."""
        return self.on_grid(self.distance())

    def on_grid(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put values in the order of `indices` on the grid, (rows, cols) float32 with NaN."""
        out = np.full(self.grid.size, np.nan, np.float32)
        out[self.indices] = values
        return out.reshape(self.grid.shape)

    def to_anndata(self, genes: tuple[str, ...] | None = None) -> anndata.AnnData:
        """Tiles x genes as AnnData: `layers` per variant, `X` empty, tile centres in ``obsm["spatial"]``.

        Parameters
        ----------
        genes : tuple of str, optional
            Which genes; all unless given. GeneError for an unknown one.
        """
        import anndata
        import pandas as pd

        columns = self.bundle.panel.indices(genes) if genes else np.arange(len(self.genes))
        indices = self.indices
        order = np.argsort(indices)
        rows, cols = np.divmod(indices[order], max(self.grid.shape[1], 1))
        obs = pd.DataFrame(
            {"row": rows, "col": cols, "gallery_distance": self.distance()[order]},
            index=[f"{r}_{c}" for r, c in zip(rows, cols, strict=True)],
        )
        var = pd.DataFrame(index=np.array(self.genes)[columns])
        table = anndata.AnnData(obs=obs, var=var)
        for variant in self.variants:
            table.layers[variant] = self.values(columns, variant)[order]
        table.obsm["spatial"] = self.grid.centres(indices[order])
        table.uns["chrep"] = self.facts()
        return table

    def facts(self) -> dict[str, Any]:
        """Where the values come from: bundle, slide, tiles, units, versions; plain strings and numbers."""
        card = self.bundle.card
        return {
            "bundle": card.name, "bundle_hash": self.bundle.hash,
            "method": card.method, "encoder": card.encoder,
            "slide": self.slide.path.name, "slide_fingerprint": self.slide.fingerprint,
            "mpp": self.slide.require_mpp(), "mpp_source": self.slide.mpp.source if self.slide.mpp else "",
            "tile_mpp": card.mpp, "tile_px": card.px, "tile_um": card.mpp * card.px,
            "tile_px_level0": self.grid.tile_px, "stride": self.grid.stride,
            "context_um": list(card.context_um),
            "units": card.units, "note": card.note, "chrep_version": card.chrep_version,
        }  # fmt: skip
