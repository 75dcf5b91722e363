"""A window that is ready to look at."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_chrep.io.launch import set_up


def test_slide_bundle_and_gene_give_maps_over_the_tissue(desk, tiny_bundle, write_tissue, bundle):
    gene = bundle.genes[4]
    explorer, genes = set_up(desk.viewer, write_tissue(), tiny_bundle, gene)
    desk.wait()
    desk.qtbot.waitUntil(lambda: "calibrated" in desk.heatmaps.variants, timeout=5000)
    assert genes.current.text() == gene
    assert desk.heatmaps.layer("calibrated").name == f"{gene} calibrated [log10]"
    assert desk.session.prediction.indices.size == desk.session.context.tiles().size
    assert explorer.slide.picker.currentText() == "slide"


@pytest.mark.parametrize("gene", [None, "no such gene"])
def test_without_slide_or_known_gene_the_widgets_wait(desk, tiny_bundle, bundle, gene):
    explorer, genes = set_up(desk.viewer, None, tiny_bundle, gene)
    desk.wait()
    assert genes.current.text() == bundle.genes[0]
    assert "slide" in explorer.run.status.text()


def test_the_module_can_be_run():
    command = [sys.executable, "-m", "napari_chrep", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "--bundle" in done.stdout
