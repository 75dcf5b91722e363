"""Read the spots measured on a slide, match them to a model's genes, and compare them with its maps."""

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

#: Key of a layer's ``metadata`` under which the `Section` lies whose spots it shows.
SECTION_KEY = "chrep_section"

#: Key under which lie the name and the colours that such a layer has while no gene is on show.
AT_REST_KEY = "chrep_at_rest"

#: With fewer spots a correlation says nothing.
LEAST_SPOTS = 3
_DEFAULT_SPOT_UM = 100.0

#: Of spots in the colours of their totals: the tissue under them stays visible.
_SEEN_THROUGH = 0.6


@dataclass(frozen=True, eq=False)
class MeasuredSpots:
    """The measured spots of a slide, and their values for a model's genes.

    Attributes
    ----------
    section : Section
    bundle : str
        Hash of the bundle on whose genes `expression` is; empty without one.
    expression : ndarray or None
        (n, G) float32, log10-spot over the bundle's panel, NaN for genes that are not `listed`; None where
        the section names its genes otherwise.
    listed : frozenset of str
        The genes that were measured at all.
    trouble : str
        Why there is no `expression`.
    """

    section: Section
    bundle: str = ""
    expression: npt.NDArray[np.float32] | None = None
    listed: frozenset[str] = frozenset()
    trouble: str = ""

    def of(self, gene: str | None, bundle: Bundle | None) -> npt.NDArray[np.float32] | None:
        """Return a gene's measured values, (n,) log10-spot; None if there are none for this bundle."""
        if self.expression is None or bundle is None or gene is None:
            return None
        if self.bundle != bundle.hash or gene not in self.listed:
            return None
        return self.expression[:, bundle.panel.index(gene)]

    def lacks(self, gene: str | None) -> bool:
        """Return whether the section measured other genes of the bundle but not this one."""
        return self.expression is not None and gene is not None and gene not in self.listed


def read_measured_spots(
    slide: Slide, counts: Path | None, section: Section | None, panel: GenePanel | None, bundle: str
) -> MeasuredSpots | None:
    """Read the spots of a slide and bring them onto a panel; None where there are none.

    Parameters
    ----------
    counts : Path or None
        The h5ad with the spots; None for the one beside the slide.
    section : Section or None
        The spots, if they are read already.
    panel, bundle
        Genes and hash of the model; None and empty without one.

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
    """Return the path at which a slide's h5ad is expected."""
    return slide.path.with_name(f"{slide.name}.h5ad")


def spots_layer_data(section: Section, scale: tuple[float, float], units: tuple[str, str]) -> LayerData:
    """Return data of a Points layer for a section's spots, in their true size and as outlines.

    Parameters
    ----------
    section : Section
    scale, units
        Of the layer of its slide.
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
    """Return data of a Points layer for a section's spots, coloured by their total counts.

    The layer's ``features`` hold the counts; colours follow their logarithm, from its 1st to its 99th
    percentile.

    Parameters
    ----------
    section : Section
    scale, units
        Of the layer of its slide.
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
    return data, {**kwargs, **more, "opacity": _SEEN_THROUGH}, kind


def agreement(
    measured: MeasuredSpots, prediction: Prediction, gene: str, values_of: Callable[[str], FloatMap | None]
) -> str:
    """Return a sentence on how well a gene's maps agree with the spots centred in predicted tiles.

    Parameters
    ----------
    measured : MeasuredSpots
    prediction : Prediction
        With the tiles of the maps.
    gene : str
    values_of : callable
        Gives the map of a kind, (rows, cols), or None; one may hold more than was predicted.

    Returns
    -------
    str
        Sentences; empty where there is nothing to compare.
    """
    truth = measured.of(gene, prediction.bundle)
    if truth is None or not len(prediction):
        return f"{gene} was not measured on this section." if measured.lacks(gene) else ""
    tiles = prediction.grid.indices_at(measured.section.xy)
    maps = {kind: values_of(kind) for kind in reversed(MAIN_KINDS)}
    on_spots = {kind: held.ravel()[tiles] for kind, held in maps.items() if held is not None}
    if not on_spots:
        return ""
    # A map may lack tiles that were predicted after it was last written.
    under = np.isin(tiles, prediction.indices) & np.isfinite(list(on_spots.values())).all(axis=0)
    count = int(under.sum())
    if count < LEAST_SPOTS:
        return f"{count} of {len(tiles):,} measured spots lie in predicted tiles: too few to compare."
    found = {
        kind: float(np.nan_to_num(gene_correlations(truth[under, None], values[under, None]))[0])
        for kind, values in on_spots.items()
    }
    said = ", ".join(f"{pcc:.2f} {kind}" for kind, pcc in found.items() if pcc)  # 0: one does not vary
    if not said:
        return f"On {count:,} measured spots {gene} does not vary."
    text = f"On {count:,} measured spots: PCC {said}."
    if any(section.get("slide") == prediction.slide.path.name for section in prediction.bundle.card.sections):
        text += " The model was trained on this section, which flatters it."
    return text
