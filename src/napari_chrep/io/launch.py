"""Start of napari with a slide, a model and the plugin's widgets, for ``python -m napari_chrep``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_chrep.background.prediction_engine import PredictionEngine
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.docks import PLUGIN, show_dock


def set_up(
    viewer: Any, slide: Path | None = None, bundle: Path | None = None, gene: str | None = None
) -> tuple[Any, Any]:
    """Open the explorer, the genes, and a slide and bundle if given; with both, predict the tissue.

    Returns at once: the bundle is loaded and the slide predicted in the background.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    slide, bundle : Path, optional
        Paths of a slide and of a trained model.
    gene : str, optional
        The gene to show first, if the model contains it.

    Returns
    -------
    ExplorerWidget, GenesWidget
        The widgets.
    """
    if slide is not None:
        viewer.open(slide, plugin=PLUGIN)
    explorer, genes = (show_dock(viewer, title) for title in ("Slide explorer", "Genes"))
    if bundle is not None:
        _load(viewer, bundle, gene)
    return explorer, genes


def _load(viewer: Any, path: Path, gene: str | None) -> None:
    session, engine = kept_for(viewer, Session), kept_for(viewer, PredictionEngine)

    def begin() -> None:
        session.bundle_changed.disconnect(begin)  # a bundle that is chosen later starts nothing
        if gene is not None and session.bundle is not None and gene in session.bundle.genes:
            session.show_gene(gene)
        if session.slide is not None and session.slide.mpp is not None:
            engine.predict(None)

    session.bundle_changed.connect(begin)
    engine.load_bundle(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Open napari with the explorer, and what the command line names."""
    import napari

    parser = argparse.ArgumentParser(prog="python -m napari_chrep", description=main.__doc__)
    parser.add_argument("slide", nargs="?", type=Path, help="a slide")
    parser.add_argument("-b", "--bundle", type=Path, help="a trained model; the tissue is predicted with it")
    parser.add_argument("--gene", help="the gene to show first")
    given = parser.parse_args(arguments)
    viewer = napari.Viewer()
    set_up(viewer, given.slide, given.bundle, given.gene)
    napari.run()
