"""Convert a prediction to AnnData, laid out as scanpy and squidpy expect a spatial table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chrep_model import __version__
from chrep_model.errors import SlideError
from chrep_model.geometry import um_to_px

if TYPE_CHECKING:
    from anndata import AnnData

    from chrep_model.prediction.prediction import Prediction


INTERVAL_LAYER = "interval_90"
"""Layer of an exported table: half width of the interval that holds 90 % of the measured values."""

PICTURE_PX, PICTURE_UM = 2000, 4.0
"""The picture in a table has at most so many pixels a side, none of which is smaller than so many µm."""


def to_anndata(prediction: Prediction, genes: tuple[str, ...] | None = None) -> AnnData:
    """Return tiles x genes as AnnData; see `Prediction.to_anndata`."""
    table = to_layers(prediction, genes)
    table.X = table.layers[prediction.variants[-1]].copy()  # not shared: scanpy changes X in place
    table.uns["spatial"] = {library_of(prediction): spatial_facts(prediction)}
    return table


def to_layers(prediction: Prediction, genes: tuple[str, ...] | None = None) -> AnnData:
    """Return the table of `to_anndata` without ``X`` and ``uns["spatial"]``."""
    import anndata
    import pandas as pd

    panel = prediction.bundle.panel
    columns = panel.indices(genes) if genes else np.arange(len(prediction.genes))
    indices = prediction.indices
    order = np.argsort(indices)
    rows, cols = np.divmod(indices[order], max(prediction.grid.shape[1], 1))
    obs = pd.DataFrame(
        {"row": rows, "col": cols, "gallery_distance": prediction.distance()[order]},
        index=[f"{r}_{c}" for r, c in zip(rows, cols, strict=True)],
    )
    training = {"training_mean": panel.mean[columns], "training_sd": panel.sd[columns]}
    var = pd.DataFrame(training, index=np.array(prediction.genes)[columns])
    table = anndata.AnnData(obs=obs, var=var)
    for variant in prediction.variants:
        table.layers[variant] = prediction.values(columns, variant)[order]
    _add_trust(prediction, table, columns, order)
    table.obsm["spatial"] = prediction.grid.centres(indices[order])
    table.uns["chrep"] = prediction.facts()
    return table


def library_of(prediction: Prediction) -> str:
    """Return the name under which ``uns["spatial"]`` has the slide: its own, without what parts folders."""
    return prediction.slide.name.replace("/", "_")  # scenes may have it; it would make groups within groups


def spatial_facts(prediction: Prediction) -> dict[str, Any]:
    """Return ``uns["spatial"]`` of a slide: a reduced picture, scale factors and metadata.

    Returns
    -------
    dict
        ``images``: ``hires``, uint8 (rows, cols, 3), or nothing where the slide cannot be read;
        ``scalefactors``: ``tissue_hires_scalef`` (pixels of the picture per level-0 px; 1 without a picture)
        and ``spot_diameter_fullres`` (edge of a tile in level-0 px); ``metadata``.
    """
    slide, mpp = prediction.slide, prediction.slide.require_mpp()
    finest = math.ceil(max(slide.shape) / max(um_to_px(PICTURE_UM, mpp), 1.0))
    images, scale = {}, 1.0
    try:
        picture, downsample = slide.thumbnail(min(PICTURE_PX, finest))
        images, scale = {"hires": picture}, 1 / downsample
    except SlideError:  # it is not where it was when it was predicted
        pass
    return {
        "images": images,
        "scalefactors": {"tissue_hires_scalef": scale, "spot_diameter_fullres": prediction.grid.tile_px},
        "metadata": {
            "source_image_path": slide.path.name,
            "software_version": f"napari-chrep {__version__}",
            "um_per_px": mpp,
        },
    }


def _add_trust(
    prediction: Prediction, table: AnnData, columns: NDArray[np.int64], order: NDArray[np.int64]
) -> None:
    """Add intervals, likeness and accuracies to the table, if the model has them."""
    trust, half, unlike = prediction.bundle.trust, prediction.intervals(columns), prediction.unlike()
    if trust is None or half is None or unlike is None:
        return
    table.layers[INTERVAL_LAYER] = half[order]
    table.obs["unlike_training"] = unlike[order]
    table.var["accuracy"] = trust.accuracy[columns]
    table.var["predictable"] = trust.predictable[columns]
