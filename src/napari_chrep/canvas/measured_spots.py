"""Read the spots measured on a slide, match them to a model's genes, and compare them with its maps.

`spots_layer` keeps the layer that shows them up to date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from chrep_model.cohorts.matching import matched
from chrep_model.cohorts.probe import probe
from chrep_model.cohorts.section import Section, read_section
from chrep_model.errors import GeneError
from chrep_model.geometry import um_to_px, xy_to_rowcol
from chrep_model.statistics import gene_correlations
from napari_chrep.canvas.maps import MAIN_KINDS, FloatMap

if TYPE_CHECKING:
    from chrep_model.bundle import Bundle
    from chrep_model.cohorts.gene_panel import GenePanel
    from chrep_model.prediction.prediction import Prediction
    from chrep_model.slides.slide import Slide
    from napari_chrep.canvas.slide_layer import LayerData

#: Key in a spots layer's ``metadata`` that holds the `Section` with the spots.
SECTION_KEY = "chrep_section"

#: Key in a spots layer's ``metadata`` that holds its name and colours for when no gene is shown.
AT_REST_KEY = "chrep_at_rest"

#: Minimum number of spots for a correlation to be meaningful.
LEAST_SPOTS = 3
_DEFAULT_SPOT_UM = 100.0

#: Opacity of spots coloured by their total counts: the tissue below them stays visible.
_TOTALS_OPACITY = 0.6


@dataclass(frozen=True, eq=False)
class MeasuredSpots:
    """Measured spots of a slide, with their values for a model's genes.

    Attributes
    ----------
    section : Section
        Positions and counts of the spots.
    bundle : str
        Hash of the bundle whose genes `expression` covers; empty without a bundle.
    expression : ndarray or None
        (n, G) float32, log10-spot for the genes of the bundle's panel, NaN for genes that are not `listed`.
        None if the section's gene names do not match the panel.
    listed : frozenset of str
        Genes that the section measured.
    trouble : str
        Why there is no `expression`.
    """

    section: Section
    bundle: str = ""
    expression: npt.NDArray[np.float32] | None = None
    listed: frozenset[str] = frozenset()
    trouble: str = ""

    def of(self, gene: str | None, bundle: Bundle | None) -> npt.NDArray[np.float32] | None:
        """Return the measured values of a gene, (n,) log10-spot; None if this bundle has none."""
        if self.expression is None or bundle is None or gene is None:
            return None
        if self.bundle != bundle.hash or gene not in self.listed:
            return None
        return self.expression[:, bundle.panel.index(gene)]

    def lacks(self, gene: str | None) -> bool:
        """Return whether the section measured genes of the bundle, but not this one."""
        return self.expression is not None and gene is not None and gene not in self.listed


def read_measured_spots(
    slide: Slide, counts: Path | None, section: Section | None, panel: GenePanel | None, bundle: str
) -> MeasuredSpots | None:
    """Read the spots of a slide and match them to a model's genes; return None if it has no spots.

    Parameters
    ----------
    slide : Slide
        The slide on which the spots were measured.
    counts : Path or None
        The h5ad with the spots; None for the file of the same name beside the slide.
    section : Section or None
        The spots, if they are already read.
    panel : GenePanel or None
        Genes of the model; None without a model.
    bundle : str
        Hash of the model; empty without a model.

    Raises
    ------
    ChrepError
        The h5ad cannot be read, or does not belong to the slide.
    """
    if section is None:
        counts = counts or beside(slide)
        if not counts.is_file():
            return None
        probe([counts])
        mpp = None if slide.mpp is None else slide.mpp.value
        section = read_section(slide.path, counts, um_per_px=mpp)
    if panel is None:
        return MeasuredSpots(section)
    section = matched(section, panel.genes, panel.ids, "the model")
    try:
        return MeasuredSpots(section, bundle, panel.expression(section), frozenset(section.genes))
    except GeneError as error:
        return MeasuredSpots(section, bundle, trouble=str(error))


def beside(slide: Slide) -> Path:
    """Return the path where a slide's h5ad is expected: beside the slide, with the same name."""
    return slide.path.with_name(f"{slide.name}.h5ad")


def spots_layer_data(section: Section, scale: tuple[float, float], units: tuple[str, str]) -> LayerData:
    """Return the data of a Points layer that draws a section's spots as outlines in their true size.

    Parameters
    ----------
    section : Section
        Positions and counts of the spots.
    scale, units : tuple
        Scale and units of the slide's layer.
    """
    kwargs = {
        "name": f"{section.name} spots",
        "size": section.spot_diameter_px or um_to_px(_DEFAULT_SPOT_UM, section.mpp),
        "face_color": "transparent",
        "scale": scale,
        "units": units,
        "metadata": {SECTION_KEY: section},
        "border_color": "black",
        "border_width": 0.06,
    }
    return xy_to_rowcol(section.xy) - 0.5, kwargs, "points"  # napari centres pixel 0 on 0


def totals_layer_data(section: Section, scale: tuple[float, float], units: tuple[str, str]) -> LayerData:
    """Return the data of a Points layer that colours a section's spots by their total counts.

    The layer's ``features`` hold the counts. The colours span the logarithm of the counts from its 1st to its
    99th percentile.

    Parameters
    ----------
    section : Section
        Positions and counts of the spots.
    scale, units : tuple
        Scale and units of the slide's layer.
    """
    from napari.utils.colormaps import ensure_colormap

    data, kwargs, kind = spots_layer_data(section, scale, units)
    totals = np.asarray(section.counts.sum(axis=1), np.float64).ravel()
    shades = np.log10(1 + totals)
    low, high = np.percentile(shades, [1, 99])
    colours = ensure_colormap("viridis").map(np.clip((shades - low) / max(high - low, 1e-9), 0, 1))
    name = f"{section.name} total counts"
    metadata = {**kwargs["metadata"], AT_REST_KEY: (name, colours)}
    more = {"name": name, "face_color": colours, "features": {"total counts": totals}, "metadata": metadata}
    return data, {**kwargs, **more, "opacity": _TOTALS_OPACITY}, kind


def agreement(
    measured: MeasuredSpots, prediction: Prediction, gene: str, values_of: Callable[[str], FloatMap | None]
) -> str:
    """Describe in words how well a gene's maps agree with the spots centred in predicted tiles.

    Parameters
    ----------
    measured : MeasuredSpots
        The measured spots.
    prediction : Prediction
        The prediction that the maps show.
    gene : str
        The gene to compare.
    values_of : callable
        Returns the map of a kind, (rows, cols), or None. Maps may also hold values of a preview.

    Returns
    -------
    str
        One or two sentences; empty if there is nothing to compare.
    """
    truth = measured.of(gene, prediction.bundle)
    if truth is None or not len(prediction):
        return f"{gene} was not measured on this section." if measured.lacks(gene) else ""
    tiles = prediction.grid.indices_at(measured.section.xy)
    maps = {kind: values_of(kind) for kind in reversed(MAIN_KINDS)}
    on_spots = {kind: held.ravel()[tiles] for kind, held in maps.items() if held is not None}
    if not on_spots:
        return ""
    # A map lacks tiles that were predicted after it was last written.
    under = np.isin(tiles, prediction.indices) & np.isfinite(list(on_spots.values())).all(axis=0)
    count = int(under.sum())
    if count < LEAST_SPOTS:
        return f"{count} of {len(tiles):,} measured spots lie in predicted tiles: too few to compare."
    found = {
        kind: float(np.nan_to_num(gene_correlations(truth[under, None], values[under, None]))[0])
        for kind, values in on_spots.items()
    }
    said = ", ".join(f"{pcc:.2f} {kind}" for kind, pcc in found.items() if pcc)  # 0: one is constant
    if not said:
        return f"On {count:,} measured spots {gene} does not vary."
    text = f"On {count:,} measured spots: PCC {said}."
    if any(section.get("slide") == prediction.slide.path.name for section in prediction.bundle.card.sections):
        text += " The model was trained on this section, which flatters it."
    return text
