"""Reading of stored predictions, to view them without the model.

The result is a `Prediction` whose bundle holds the file's table instead of networks, and so returns the
stored values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from chrep_model.bundle import Bundle
from chrep_model.bundle.card import Card
from chrep_model.calibration.trust import FAR
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.errors import BundleError, PredictionError, SettingsError, SlideError, damage_as_error
from chrep_model.prediction.parts import PredictionPart
from chrep_model.prediction.places import recall
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.recognition import TABLE, is_table
from chrep_model.prediction.table import INTERVAL_LAYER
from chrep_model.slides.absent import AbsentSlide
from chrep_model.slides.slide import Mpp, Slide, open_slide
from chrep_model.slides.tiles import TileGrid
from chrep_model.zarr_check import read_table

if TYPE_CHECKING:
    from anndata import AnnData

    from chrep_model.encoders.encoder import Precision
    from chrep_model.methods.base import Response

_LEVEL = 0.9


@dataclass(frozen=True, eq=False, repr=False)
class StoredBundle(Bundle):
    """Facts of a bundle as stored in the file of a prediction; it cannot predict.

    Attributes
    ----------
    table : AnnData
        Table as written by `Prediction.to_anndata`.
    """

    table: AnnData = field(repr=False)

    @property
    def hash(self) -> str:
        """Hash of the table, different from that of the bundle, which can predict."""
        return f"{self.card.seal} in {self.path}"

    @property
    def recall(self) -> float:
        """Recall of the gallery search used for the prediction."""
        return float(self.table.uns["chrep"].get("search_recall", 1.0))

    @cached_property
    def trust(self) -> Any:
        """Reliability as stored in the file (`StoredTrust`); None if it has none."""
        return StoredTrust.of(self.table) if INTERVAL_LAYER in self.table.layers else None

    @cached_property
    def model(self) -> Any:
        """Replacement for the model (`StoredModel`), which reads values from the table."""
        return StoredModel(self)

    def encoder(self, device: str = "cpu", precision: Precision = "fp32") -> NoReturn:
        """Raise BundleError: a file of a prediction has no encoder."""
        self.refuse()

    def refuse(self) -> NoReturn:
        """Raise a `BundleError`: the model itself is needed."""
        raise BundleError(
            f"this file holds what the model {self.card.name} predicted, not the model",
            path=self.path,
            remedy="Open the model to predict more, or to see neighbours.",
        )


class StoredModel:
    """Replacement for a model that reads values from a stored table."""

    def __init__(self, bundle: StoredBundle) -> None:
        self._bundle = bundle

    @property
    def fitted(self) -> NoReturn:
        """Raise BundleError: the fitted method is not in the file."""
        self._bundle.refuse()

    def read(
        self, response: Response, variant: str, genes: NDArray[np.int64] | slice = slice(None)
    ) -> NDArray[np.float32]:
        """Return expression (n, number of genes) in log10-spot units, see `Model.read`."""
        columns = np.arange(len(self._bundle.genes))[genes]
        values = self._bundle.table.layers[variant][response["row"][:, None], columns]
        return np.asarray(values, np.float32)

    def interval(
        self,
        response: Response,
        variant: str,
        genes: NDArray[np.int64] | slice = slice(None),
        level: float = _LEVEL,
    ) -> NDArray[np.float32]:
        """Return the half width (n, number of genes) of intervals, log10-spot units.

        Raises
        ------
        SettingsError
            The level is not the stored one.
        """
        if level != _LEVEL:
            raise SettingsError(f"the file has intervals of {_LEVEL:.0%} only")
        return self.read(response, INTERVAL_LAYER, genes)


@dataclass(frozen=True)
class StoredTrust:
    """Similarity to training tissue and accuracy of genes, as stored in a file.

    Attributes
    ----------
    accuracy : ndarray
        (genes,) float32, see `Trust.accuracy`.
    predictable : ndarray
        (genes,) bool, see `Trust.predictable`.
    """

    accuracy: NDArray[np.float32]
    predictable: NDArray[np.bool_]
    _distances: NDArray[np.float32]
    _unlike: NDArray[np.float32]

    @classmethod
    def of(cls, table: AnnData) -> StoredTrust:
        """Read it from a table."""
        order = np.argsort(table.obs["gallery_distance"].to_numpy())
        return cls(
            table.var["accuracy"].to_numpy(np.float32),
            table.var["predictable"].to_numpy(bool),
            table.obs["gallery_distance"].to_numpy(np.float32)[order],
            table.obs["unlike_training"].to_numpy(np.float32)[order],
        )

    def unlike(self, distance: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the share of training spots nearer to the gallery, (n,), interpolated from stored tiles."""
        return np.interp(distance, self._distances, self._unlike).astype(np.float32)

    def unlike_share(self, distance: NDArray[np.float32]) -> float:
        """Return the share of tiles beyond `FAR`, see `Trust.unlike_share`."""
        return float(np.mean(self.unlike(distance) > FAR)) if len(distance) else 0.0


def is_stored(path: Path) -> bool:
    """Return whether a path is a stored prediction as AnnData or SpatialData; never raises."""
    try:
        return _table_path(path) is not None and is_table(path)
    except Exception:  # damaged, or not a prediction
        return False


def read_prediction(path: str | os.PathLike[str], slides: Iterable[Slide] = ()) -> Prediction:
    """Read a prediction that `write_prediction` wrote as h5ad, zarr or spatialdata.

    Parameters
    ----------
    path : path
        The file or folder.
    slides : iterable of Slide
        Open slides, among which the predicted one is recognised by its fingerprint. Otherwise it is searched
        for at its former path on this computer, beside the file, and in the folder above. If it is not found,
        an `AbsentSlide` replaces it.

    Raises
    ------
    PredictionError
        The file is not a prediction, is damaged, or was written by an older version.
    """
    path = Path(path)
    where = _table_path(path)
    if where is None:
        what = "this is no prediction as AnnData or SpatialData"
        raise PredictionError(
            what, path=path, remedy="Choose a file that `chrep predict` or the plugin wrote."
        )
    what = "the prediction is damaged, or written by an older version"
    with damage_as_error(PredictionError, what, path, "Predict again."):
        table = _read(where)
        facts = table.uns["chrep"]
        mpp = Mpp(float(facts["mpp"]), str(facts["mpp_source"]))
        slide = _slide(path, facts, mpp, slides) or _absent(table, facts, mpp)
        bundle = _bundle(path, table, facts)
        grid = TileGrid(slide.shape, mpp.value, bundle.spec, float(facts["stride"]))
        rows, cols = (table.obs[name].to_numpy(np.int64) for name in ("row", "col"))
        if isinstance(slide, AbsentSlide) and "slide_bounds" in facts:
            x, y, width, height = (int(n) for n in facts["slide_bounds"])
            slide.bounds = x, y, width, height
        prediction = Prediction(bundle, grid, slide)
        distance = table.obs["gallery_distance"].to_numpy(np.float32)
        response = {"row": np.arange(len(rows)), "distance": distance}
        prediction.add(PredictionPart(rows * grid.shape[1] + cols, response))
        if not np.allclose(grid.centres(prediction.indices), table.obsm["spatial"]):
            raise ValueError("the tiles do not lie where the file says")
        _ = bundle.trust
    return prediction


def first_gene(prediction: Prediction) -> str:
    """Return the gene to show first: the most accurate one if accuracies are known, else the first."""
    trust = prediction.bundle.trust
    if trust is None or not np.isfinite(trust.accuracy).any():
        return prediction.genes[0]
    return prediction.genes[int(np.nanargmax(trust.accuracy))]


def _table_path(path: Path) -> Path | None:
    """Return the path of the prediction's table in a file or folder; None if there is none."""
    try:
        if path.is_dir():
            places = (path, path / "tables" / TABLE)
            return next((place for place in places if (place / "uns" / "chrep").is_dir()), None)
        return path if path.suffix.lower() == ".h5ad" and path.is_file() else None
    except OSError:  # no permission to read the folder
        return None


def _read(path: Path) -> AnnData:
    import anndata

    table = read_table(path, PredictionError) if path.is_dir() else anndata.read_h5ad(path)
    del table.X  # a copy of one of the layers
    return table


def _bundle(path: Path, table: AnnData, facts: Mapping[str, Any]) -> StoredBundle:
    variants = [str(name) for name in facts["variants"]]
    missing = set(variants) - set(table.layers)
    if missing:
        raise KeyError(f"no layer {', '.join(sorted(missing))}")
    known: dict[str, Any] = {
        "name": str(facts["bundle"]), "method": str(facts["method"]), "encoder": str(facts["encoder"]),
        "variants": variants, "mpp": float(facts["tile_mpp"]), "px": int(facts["tile_px"]),
        "context_um": [float(um) for um in facts["context_um"]], "genes": table.n_vars,
        "cohort": str(facts["cohort"]), "note": str(facts["note"]), "units": str(facts["units"]),
        "chrep_version": str(facts["chrep_version"]), "seal": str(facts["bundle_hash"]).split(" in ")[0],
        "sections": [], "settings": {}, "files": {},
    }  # fmt: skip
    card = Card.model_construct(**known)  # without validation, since some fields are unknown
    training = (table.var[f"training_{name}"].to_numpy() for name in ("mean", "sd"))
    return StoredBundle(path, card, GenePanel(tuple(map(str, table.var_names)), *training), table)


def _slide(path: Path, facts: Mapping[str, Any], mpp: Mpp, slides: Iterable[Slide]) -> Slide | None:
    """Find the predicted slide by its fingerprint; None if it is in none of the known places."""
    fingerprint, name = str(facts["slide_fingerprint"]), Path(str(facts["slide"])).name
    for slide in slides:
        if slide.mpp is not None and slide.mpp.value == mpp.value and slide.fingerprint == fingerprint:
            return slide
    known = recall(fingerprint)
    if known is None and "slide_path" in facts:  # in files of earlier versions
        known = Path(str(facts["slide_path"]))
    for place in (known, path.parent / name, path.parent.parent / name):
        if place is None:
            continue
        try:
            slide = open_slide(place, scene=facts.get("slide_scene"))
        except SlideError:
            continue
        if slide.fingerprint == fingerprint:
            same = slide.mpp is not None and slide.mpp.value == mpp.value
            return slide if same else slide.with_mpp(mpp.value, mpp.source)
        slide.close()
    return None


def _absent(table: AnnData, facts: Mapping[str, Any], mpp: Mpp) -> AbsentSlide:
    """Return a replacement for a slide that was not found, with the picture stored in the file."""
    rows, cols = (int(n) for n in facts["slide_shape"])
    picture = None
    for library in table.uns.get("spatial", {}).values():  # at most one; older files have none
        picture = library["images"].get("hires")
    name, fingerprint = Path(str(facts["slide"])).name, str(facts["slide_fingerprint"])
    return AbsentSlide(Path(name), (rows, cols), fingerprint, mpp, picture, facts.get("slide_scene", ""))
