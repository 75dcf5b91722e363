"""Measured spots as a layer, and how well the maps agree with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from chrep_model.cohorts.section import read_section
from chrep_model.samples import SLIDE
from napari_chrep.canvas.spots_layer import SpotsLayer
from napari_chrep.state.viewers import kept_for

TIMEOUT_MS = 60_000


@pytest.fixture
def pair(tiny_cohort: Path) -> tuple[Path, Path]:
    """A picture without a scale of its own, and its spots."""
    counts = sorted(tiny_cohort.glob("*.h5ad"))[0]
    (picture,) = (file for file in tiny_cohort.glob(f"{counts.stem}.*") if file != counts)
    return picture, counts


@pytest.fixture
def truth(desk):
    return kept_for(desk.viewer, SpotsLayer)


def click(qtbot, button):
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def settle(desk, truth):
    desk.qtbot.waitUntil(lambda: not truth.busy, timeout=TIMEOUT_MS)
    desk.qtbot.wait(250)  # the last refresh of the maps, and the painting after it


def test_the_spots_beside_a_slide_are_a_layer_in_the_colours_of_the_map(
    desk, truth, qtbot, pair, tiny_bundle
):
    panel = desk.dock("Genes").maps
    assert not panel.measured.isEnabled()
    picture, counts = pair
    section = read_section(picture, counts)
    slide_layer = desk.open(picture)
    settle(desk, truth)
    assert desk.session.slide.mpp.value == section.mpp  # which the h5ad says, and the picture does not
    assert desk.session.slide.mpp.source == "cohort"
    assert panel.measured.isEnabled() and truth.layer is None and panel.agreement.text() == ""
    click(qtbot, panel.measured)
    assert truth.layer.name == f"{section.name} spots"
    assert tuple(truth.layer.scale) == tuple(slide_layer.scale) == (section.mpp, section.mpp)
    np.testing.assert_allclose(truth.layer.data[:, ::-1] + 0.5, section.xy)
    np.testing.assert_allclose(truth.layer.size, section.spot_diameter_px)
    assert (truth.layer.face_color[:, 3] == 0).all()  # outlines: there is no gene yet

    desk.load(tiny_bundle)
    desk.engine.predict(None)
    desk.wait()
    settle(desk, truth)
    bundle, layer = desk.session.bundle, truth.layer
    shown = desk.heatmaps.layer("calibrated")
    for gene in (bundle.genes[0], bundle.genes[3]):
        desk.session.show_gene(gene)
        settle(desk, truth)
        assert layer.name == f"{gene} measured [log10]"
        values = bundle.panel.expression(section)[:, bundle.panel.index(gene)]
        low, high = shown.contrast_limits
        expected = shown.colormap.map(np.clip((values - low) / (high - low), 0, 1))
        np.testing.assert_allclose(layer.face_color, expected, atol=1e-6)

    # The user moves the limits of the map: the spots follow.
    before = layer.face_color.copy()
    shown.contrast_limits = (0.0, 0.1)
    qtbot.waitUntil(lambda: not np.allclose(layer.face_color, before), timeout=TIMEOUT_MS)

    # The correlation, worked out by hand.
    grid, prediction = desk.session.context.grid, desk.session.prediction
    tiles = [grid.index_at(x, y) for x, y in section.xy]
    under = np.array([tile in prediction for tile in tiles])
    found = {}
    for kind in ("calibrated", "raw"):
        of_tile = dict(zip(prediction.indices.tolist(), prediction.gene(gene, kind), strict=True))
        mapped = [of_tile[tile] for tile, known in zip(tiles, under, strict=True) if known]
        found[kind] = np.corrcoef(values[under], mapped)[0, 1]
    said = (
        f"On {under.sum()} measured spots: PCC {found['calibrated']:.2f} calibrated, {found['raw']:.2f} raw."
    )
    assert panel.agreement.text().startswith(said)
    assert "trained on this section" in panel.agreement.text()

    click(qtbot, panel.measured)
    assert not layer.visible and not panel.measured.isChecked()
    assert shown.visible


def test_a_slide_without_spots_and_spots_opened_by_hand(desk, truth, qtbot, pair, write_tissue, monkeypatch):
    said = []
    monkeypatch.setattr("napari_chrep.background.runner.show_error", said.append)
    panel = desk.dock("Genes").maps
    first = desk.open(write_tissue())
    settle(desk, truth)
    assert not panel.measured.isEnabled()
    assert "no slide.h5ad beside the slide" in panel.measured.toolTip()
    (desk.session.slide.path.parent / "broken.h5ad").write_bytes(b"no table")
    truth.open(desk.session.slide.path.parent / "broken.h5ad")
    settle(desk, truth)
    assert len(said) == 1 and "broken.h5ad" in said[0]
    assert "broken.h5ad" in panel.agreement.text()
    click(qtbot, panel.open_measured)
    panel.dialog.fileSelected.emit(str(pair[1]))
    panel.dialog.reject()
    settle(desk, truth)
    assert panel.agreement.text() == "" and panel.measured.isEnabled()
    click(qtbot, panel.measured)
    layer = truth.layer
    assert layer in desk.viewer.layers
    desk.open(pair[0])  # another slide: former spots would lie over the wrong tissue
    assert layer not in desk.viewer.layers
    settle(desk, truth)
    assert truth.measured is not None
    desk.session.set_slide_layer(first)
    settle(desk, truth)
    assert truth.measured.section.slide_path == desk.session.slide.path  # the file that was chosen for it


def test_a_sample_brings_its_spots_and_they_are_the_same_layer(
    desk, truth, tiny_cohort, tiny_bundle, tmp_path, monkeypatch
):
    folder = Path(shutil.copytree(tiny_cohort, tmp_path / "samples"))
    (folder / SLIDE).touch()  # which belongs to them, and is not opened here
    monkeypatch.setenv("CHREP_SAMPLE_DATA", str(folder))
    desk.dock("Slide explorer")
    _, spots = desk.viewer.open_sample("napari-chrep", "section")
    settle(desk, truth)
    assert truth.layer is spots and truth.visible
    desk.load(tiny_bundle)
    settle(desk, truth)
    assert not spots.visible  # once they are filled, until they are wanted
    truth.show()
    settle(desk, truth)
    assert spots.name.endswith("measured [log10]")
    assert (spots.face_color[:, 3] == 1).all()
    assert len(desk.viewer.layers) == 2
    desk.viewer.layers.remove(spots)
    assert truth.layer is None
    truth.show()
    assert truth.layer is not None and truth.layer is not spots


def test_genes_under_other_names_are_told_of(desk, truth, pair, tiny_bundle, tmp_path):
    import anndata

    table = anndata.read_h5ad(pair[1])
    table.var_names = [f"ENSG{number:011d}" for number in range(table.n_vars)]
    table.write_h5ad(tmp_path / "named.h5ad")
    desk.open(pair[0])
    desk.load(tiny_bundle)
    truth.open(tmp_path / "named.h5ad")
    settle(desk, truth)
    assert "same kind of gene names" in truth.trouble
    assert truth.measured is not None and truth.measured.expression is None


def test_a_gene_that_was_not_measured_is_no_zero(desk, truth, qtbot, pair, tiny_bundle, tmp_path):
    import anndata

    desk.open(pair[0])
    desk.load(tiny_bundle)
    lacking, other = desk.session.bundle.genes[:2]
    table = anndata.read_h5ad(pair[1])
    table[:, table.var_names != lacking].copy().write_h5ad(tmp_path / "short.h5ad")
    truth.open(tmp_path / "short.h5ad")
    settle(desk, truth)
    panel = desk.dock("Genes").maps
    if not panel.measured.isChecked():
        click(qtbot, panel.measured)
    for gene, alpha, name in (
        (other, 1, f"{other} measured [log10]"),
        (lacking, 0, f"{lacking} was not measured"),
    ):
        desk.session.show_gene(gene)
        settle(desk, truth)
        assert truth.layer.name == name
        assert (truth.layer.face_color[:, 3] == alpha).all()
    assert truth.measured.of(lacking, desk.session.bundle) is None
    assert (
        np.isnan(truth.measured.expression[:, 0]).all()
        and not np.isnan(truth.measured.expression[:, 1]).any()
    )
