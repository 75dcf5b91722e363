"""Parts of a prediction's AnnData, laid out as scanpy and squidpy expect a spatial table."""

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

    from chrep_model.cohorts.gene_panel import GenePanel
    from chrep_model.slides.slide import Slide
    from chrep_model.slides.tiles import TileGrid

INTERVAL_LAYER = "interval_90"
"""Layer of an exported table: half width of the interval that holds 90 % of the measured values."""

PICTURE_PX, PICTURE_UM = 2000, 4.0
"""The picture in a table has at most so many pixels a side, none of which is smaller than so many µm."""


def table_of_tiles(
    grid: TileGrid, indices: NDArray[np.int64], panel: GenePanel, columns: NDArray[np.int64]
) -> AnnData:
    """Return tiles x genes without values: where the tiles lie, and what the model knows of the genes.

    Parameters
    ----------
    grid : TileGrid
        Of the tiles.
    indices : ndarray
        (n,) int64 flat indices of the tiles on the grid.
    panel : GenePanel
        The model's genes.
    columns : ndarray
        Which of them, by their number.
    """
    import anndata
    import pandas as pd

    rows, cols = np.divmod(indices, max(grid.shape[1], 1))
    obs = pd.DataFrame(
        {"row": rows, "col": cols}, index=[f"{r}_{c}" for r, c in zip(rows, cols, strict=True)]
    )
    training = {"training_mean": panel.mean[columns], "training_sd": panel.sd[columns]}
    var = pd.DataFrame(training, index=np.array(panel.genes)[columns])
    return anndata.AnnData(obs=obs, var=var, obsm={"spatial": grid.centres(indices)})


def library_of(slide: Slide) -> str:
    """Return the name under which ``uns["spatial"]`` has the slide: its own, without what parts folders."""
    return slide.name.replace("/", "_")  # scenes may have it; it would make groups within groups


def spatial_facts(slide: Slide, tile_px: float) -> dict[str, Any]:
    """Return ``uns["spatial"]`` of a slide: a reduced picture, scale factors and metadata.

    Parameters
    ----------
    slide : Slide
        Its µm per pixel are known.
    tile_px : float
        Edge of a tile in level-0 px.

    Returns
    -------
    dict
        ``images``: ``hires``, uint8 (rows, cols, 3), or nothing where the slide cannot be read;
        ``scalefactors``: ``tissue_hires_scalef`` (pixels of the picture per level-0 px; 1 without a picture)
        and ``spot_diameter_fullres`` (edge of a tile in level-0 px); ``metadata``.
    """
    mpp = slide.require_mpp()
    finest = math.ceil(max(slide.shape) / max(um_to_px(PICTURE_UM, mpp), 1.0))
    images, scale = {}, 1.0
    try:
        picture, downsample = slide.thumbnail(min(PICTURE_PX, finest))
        images, scale = {"hires": picture}, 1 / downsample
    except SlideError:  # it is not where it was when it was predicted
        pass
    return {
        "images": images,
        "scalefactors": {"tissue_hires_scalef": scale, "spot_diameter_fullres": tile_px},
        "metadata": {
            "source_image_path": slide.path.name,
            "software_version": f"napari-chrep {__version__}",
            "um_per_px": mpp,
        },
    }
