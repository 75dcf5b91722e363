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
"""Layer of an exported table with the half widths of the 90 % intervals."""

PICTURE_PX, PICTURE_UM = 2000, 4.0
"""Longest side in pixels, and smallest pixel size in µm, of the picture in a table."""


def table_of_tiles(
    grid: TileGrid, indices: NDArray[np.int64], panel: GenePanel, columns: NDArray[np.int64]
) -> AnnData:
    """Create an AnnData of tiles and genes without values: positions of the tiles, statistics of the genes.

    Parameters
    ----------
    grid : TileGrid
        Grid of the tiles.
    indices : ndarray
        (n,) int64 flat indices of the tiles on the grid.
    panel : GenePanel
        The model's genes.
    columns : ndarray
        Indices of the genes to include.
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
    """Return the slide's name for ``uns["spatial"]``, which must not contain a slash."""
    return slide.name.replace("/", "_")  # names of scenes may have one, which would create nested groups


def spatial_facts(slide: Slide, tile_px: float) -> dict[str, Any]:
    """Return ``uns["spatial"]`` of a slide: a reduced picture, scale factors and metadata.

    Parameters
    ----------
    slide : Slide
        Slide with known µm per pixel.
    tile_px : float
        Side of a tile in level-0 px.

    Returns
    -------
    dict
        ``images``: ``hires``, uint8 (rows, cols, 3), or nothing if the slide cannot be read;
        ``scalefactors``: ``tissue_hires_scalef`` (pixels of the picture per level-0 px; 1 without a picture)
        and ``spot_diameter_fullres`` (side of a tile in level-0 px); ``metadata``.
    """
    mpp = slide.require_mpp()
    finest = math.ceil(max(slide.shape) / max(um_to_px(PICTURE_UM, mpp), 1.0))
    images, scale = {}, 1.0
    try:
        picture, downsample = slide.thumbnail(min(PICTURE_PX, finest))
        images, scale = {"hires": picture}, 1 / downsample
    except SlideError:  # the slide was moved since its prediction
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
