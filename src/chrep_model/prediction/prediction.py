"""The prediction of one slide; the values of each gene are computed on request.

A prediction stores everything that does not depend on the gene (hidden layers, neighbours, weights) for every
tile. The values of a gene are computed on request, so that no array of all tiles and genes is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model.calibration.trust import UNLIKE_SHARE
from chrep_model.errors import PredictionError
from chrep_model.prediction.parts import Parts, PredictionPart
from chrep_model.prediction.table import INTERVAL_LAYER, library_of, spatial_facts, table_of_tiles
from chrep_model.progress import SILENT, Progress
from chrep_model.slides.slide import Slide
from chrep_model.slides.tiles import TileGrid

if TYPE_CHECKING:
    import anndata

    from chrep_model.bundle import Bundle
    from chrep_model.geometry import Rect
    from chrep_model.methods.base import Response
    from chrep_model.slides.region import Region

ALL_TILES = slice(None)
LOWEST = 0.0
"""Smallest possible expression, since the unit is log10(1 + x) of a share of counts."""


def within_unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raise values below `LOWEST`, which a model's weighted sum can reach, to `LOWEST`.

    Applied to all values in maps, files and explanations, but not to those scored in an evaluation.
    """
    return np.maximum(values, np.float32(LOWEST))


@dataclass
class Prediction:
    """Predicted tiles of one slide, from which the values of any gene are computed.

    Parameters
    ----------
    bundle : Bundle
        The model.
    grid : TileGrid
        Grid of the tiles.
    slide : Slide
        The slide; its pixels are only read for the picture in an export.
    progress : Progress
        Asked for cancellation while values are read or written to a file.
    """

    bundle: Bundle
    grid: TileGrid
    slide: Slide
    _parts: Parts = field(default_factory=Parts)
    _known: set[int] = field(default_factory=set)
    progress: Progress = SILENT

    def __repr__(self) -> str:
        what = f"{len(self)} tiles, {len(self.genes)} genes, by {self.bundle.card.name}"
        return f"<Prediction of {self.slide.name!r}: {what}>"

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes of the prediction."""
        return self.bundle.genes

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants of a value; the last one is the final prediction."""
        return tuple(self.bundle.card.variants)

    @property
    def indices(self) -> NDArray[np.int64]:
        """Flat indices of the predicted tiles, (n,) int64, in the order of prediction."""
        return self._parts.indices()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, index: int) -> bool:
        return index in self._known

    def missing(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `indices` that are not predicted yet, in the same order."""
        return np.array([i for i in indices if int(i) not in self._known], np.int64)

    def add(self, part: PredictionPart) -> None:
        """Add a batch of tiles; tiles that are already predicted are not replaced."""
        new = np.array([int(i) not in self._known for i in part.indices], bool)
        if new.any():
            self._parts.add(part if new.all() else part.rows(new))
            self._known.update(int(i) for i in part.indices[new])

    def within(self, area: Rect | Region | None, *, progress: Progress = SILENT) -> Prediction:
        """Return the tiles predicted so far in an area, as a copy that no longer grows.

        Parameters
        ----------
        area : Rect, Region or None
            Tiles that overlap the rectangle (level-0 px), or whose centres lie in the region; None for all.
        progress : Progress
            Of what is returned.

        Returns
        -------
        Prediction
            Without tiles if none in the area is predicted.
        """
        indices = self.indices
        return self.only(indices[self.grid.is_in(area, indices)], progress=progress)

    def only(self, indices: NDArray[np.int64], *, progress: Progress = SILENT) -> Prediction:
        """Return those of the given tiles that are predicted, as a copy; see `within`."""
        chosen = Prediction(self.bundle, self.grid, self.slide, progress=progress)
        wanted = np.zeros(self.grid.size, bool)
        wanted[indices] = True
        for part in self._parts:
            chosen.add(part.rows(wanted[part.indices]))
        return chosen

    def response(self, index: int) -> Response:
        """Return the method's response for one tile, a single row.

        Raises
        ------
        PredictionError
            The tile is not predicted.
        """
        for part in self._parts:
            place = np.flatnonzero(part.indices == index)
            if len(place):
                return part.rows(place).response
        raise PredictionError(f"tile {index} is not predicted", remedy="Predict it first.")

    def gene(self, name: str, variant: str | None = None) -> NDArray[np.float32]:
        """Return one gene's values over the predicted tiles.

        Parameters
        ----------
        name : str
            Name of the gene.
        variant : str, optional
            One of `variants`; the last one unless given.

        Returns
        -------
        ndarray
            (n,) float32, log10-spot units, in the order of `indices`; nowhere below `LOWEST`.

        Raises
        ------
        GeneError
            The model does not know the gene.
        PredictionError
            The model has no such variant.
        """
        return self.values(self.bundle.panel.indices([name]), variant)[:, 0]

    def values(
        self, genes: NDArray[np.int64] | slice, variant: str | None = None, *, tiles: slice = ALL_TILES
    ) -> NDArray[np.float32]:
        """Return values (number of tiles, number of genes) float32 for columns of the panel; see `gene`.

        `tiles` is a slice of `indices`, without a step.
        """
        variant = variant or self.variants[-1]
        if variant not in self.variants:
            raise PredictionError(
                f"this model has no prediction called {variant!r}",
                remedy=f"Choose from {', '.join(self.variants)}.",
            )
        return self._over_parts(
            lambda response: within_unit(self.bundle.model.read(response, variant, genes)), genes, tiles
        )

    def interval(self, name: str, level: float = 0.9) -> NDArray[np.float32] | None:
        """Return the half width of the intervals around a gene's values of the last variant.

        The interval of a value is from ``max(LOWEST, value - half width)`` to ``value + half width``.

        Parameters
        ----------
        name : str
            Name of the gene.
        level : float
            Share of measured values inside the intervals, one of `calibration.trust.LEVELS`.

        Returns
        -------
        ndarray or None
            (n,) float32, log10-spot units, in the order of `indices`; None if the model has no intervals.

        Raises
        ------
        GeneError, SettingsError
            The model does not know the gene, or has no intervals of this level.
        """
        half = self.intervals(self.bundle.panel.indices([name]), level)
        return None if half is None else half[:, 0]

    def intervals(
        self, genes: NDArray[np.int64] | slice, level: float = 0.9, *, tiles: slice = ALL_TILES
    ) -> NDArray[np.float32] | None:
        """Return half widths (number of tiles, number of genes) float32; see `interval` and `values`."""
        if self.bundle.trust is None:
            return None
        trusted = self.variants[-1]

        def half(response: Response) -> NDArray[np.float32]:
            width = self.bundle.model.interval(response, trusted, genes, level)
            assert width is not None  # noqa: S101  (the last variant of a model with intervals)
            return width

        return self._over_parts(half, genes, tiles)

    def _over_parts(
        self,
        compute: Callable[[Response], NDArray[np.float32]],
        genes: NDArray[np.int64] | slice,
        tiles: slice,
    ) -> NDArray[np.float32]:
        """Compute values batch by batch, and return one array (number of tiles, number of genes)."""
        first, last, _ = tiles.indices(len(self))
        out = np.empty((max(0, last - first), len(np.arange(len(self.genes))[genes])), np.float32)
        place = 0  # position of the batch among all tiles
        for part in self._parts:
            self.progress.raise_if_cancelled()
            begin, end = max(first - place, 0), min(last - place, len(part.indices))
            if begin < end:
                some = part.rows(slice(begin, end))
                out[place + begin - first : place + end - first] = compute(some.response)
            place += len(part.indices)
        return out

    def map(self, name: str, variant: str | None = None) -> NDArray[np.float32]:
        """Return one gene on the tile grid, (rows, cols) float32, NaN where nothing was predicted."""
        return self.on_grid(self.gene(name, variant))

    def distance(self) -> NDArray[np.float32]:
        """Return each tile's distance (1 - cosine) from the most similar gallery spot, (n,) float32."""
        return self._parts.column("distance") if len(self) else np.empty(0, np.float32)

    def unlike(self) -> NDArray[np.float32] | None:
        """Return, for each tile, the share of held-out training spots nearer to the gallery.

        Returns
        -------
        ndarray or None
            (n,) float32 in [0, 1], in the order of `indices`; near 1 for a tile unlike all training tissue.
            None if the model does not provide it.
        """
        trust = self.bundle.trust
        return None if trust is None else trust.unlike(self.distance())

    def unlike_share(self) -> float | None:
        """Return the share of tiles farther from the gallery than 95 % of held-out training spots."""
        trust = self.bundle.trust
        return None if trust is None else trust.unlike_share(self.distance())

    @property
    def is_unlike(self) -> bool:
        """Whether the slide is too unlike the training slides for reliable values."""
        return (self.unlike_share() or 0.0) > UNLIKE_SHARE

    def on_grid(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put values in the order of `indices` on the grid, (rows, cols) float32 with NaN."""
        out = np.full(self.grid.size, np.nan, np.float32)
        out[self.indices] = values
        return out.reshape(self.grid.shape)

    def to_anndata(self, genes: tuple[str, ...] | None = None) -> anndata.AnnData:
        """Return tiles x genes as AnnData, ready for scanpy and squidpy.

        ``X`` holds the final values, those of the last variant; ``layers`` hold every variant;
        ``obsm["spatial"]`` the tile centres, (x, y) in level-0 px; ``uns["spatial"]`` under the slide's name
        a reduced picture with its scale factors, see `table.spatial_facts`; ``uns["chrep"]`` the `facts`.
        ``var["training_mean"]`` and ``var["training_sd"]`` are those of the genes over the training spots.
        If the model has intervals, also ``layers["interval_90"]`` (half widths, log10-spot; an interval
        starts at ``max(0, value - half width)``), ``obs["unlike_training"]`` (see `unlike`),
        ``var["accuracy"]`` (expected correlation on a new section), ``var["predictable"]`` and
        ``uns["chrep"]["unlike_share"]``.

        Parameters
        ----------
        genes : tuple of str, optional
            Genes to include; all unless given. GeneError for an unknown one.
        """
        table = self.to_layers(genes)
        table.X = table.layers[self.variants[-1]].copy()  # a copy, because scanpy changes X in place
        table.uns["spatial"] = {library_of(self.slide): spatial_facts(self.slide, self.grid.tile_px)}
        return table

    def to_layers(self, genes: tuple[str, ...] | None = None) -> anndata.AnnData:
        """Return the table of `to_anndata` without ``X`` and ``uns["spatial"]``."""
        panel, indices = self.bundle.panel, self.indices
        columns = panel.indices(genes) if genes else np.arange(len(self.genes))
        order = np.argsort(indices)
        table = table_of_tiles(self.grid, indices[order], panel, columns)
        table.obs["gallery_distance"] = self.distance()[order]
        for variant in self.variants:
            table.layers[variant] = self.values(columns, variant)[order]
        trust, half, unlike = self.bundle.trust, self.intervals(columns), self.unlike()
        if trust is not None and half is not None and unlike is not None:
            table.layers[INTERVAL_LAYER] = half[order]
            table.obs["unlike_training"] = unlike[order]
            table.var["accuracy"] = trust.accuracy[columns]
            table.var["predictable"] = trust.predictable[columns]
        table.uns["chrep"] = self.facts()
        return table

    def facts(self) -> dict[str, Any]:
        """Return provenance as plain strings and numbers: bundle, slide, tiles, units, versions."""
        card, share = self.bundle.card, self.unlike_share()
        return {
            "bundle": card.name, "bundle_hash": card.seal,
            "method": card.method, "encoder": card.encoder,
            "variants": list(self.variants), "cohort": card.cohort,
            "slide": self.slide.path.name,
            **({"slide_scene": self.slide.scene} if self.slide.scenes else {}),
            "slide_shape": list(self.slide.shape), "slide_fingerprint": self.slide.fingerprint,
            "mpp": self.slide.require_mpp(), "mpp_source": self.slide.mpp.source if self.slide.mpp else "",
            "tile_mpp": card.mpp, "tile_px": card.px, "tile_um": card.mpp * card.px,
            "tile_px_level0": self.grid.tile_px, "stride": self.grid.stride,
            "context_um": list(card.context_um),
            "units": card.units, "note": card.note, "chrep_version": card.chrep_version,
            "search_recall": self.bundle.recall,
            **({} if share is None else {"unlike_share": share}),
            **({} if self.slide.bounds is None else {"slide_bounds": list(self.slide.bounds)}),
        }  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """A coarse map of all requested tiles, from predictions of a few of them.

    Attributes
    ----------
    prediction : Prediction
        Prediction of the few tiles; approximate, as their neighbourhoods are only partly encoded.
    tiles : ndarray
        (n,) int64 flat indices of all requested tiles.
    stand_in : ndarray
        (n,) int64, for each of these the position of the predicted tile whose value is shown for it.
    """

    prediction: Prediction
    tiles: NDArray[np.int64]
    stand_in: NDArray[np.int64]

    def fill(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the values of the predicted tiles into a map (rows, cols) wherever it is NaN."""
        flat = out.reshape(-1)
        open_ = np.isnan(flat[self.tiles])
        flat[self.tiles[open_]] = values[self.stand_in[open_]]
