"""Take the pictures of README.md and docs/tour.md, by doing the steps of the tour in a real window.

    make screenshots

or `python tools/screenshots.py [-o docs/images] [--theme dark] [--light export]` on a display. A copy of
sample_data/ and separate settings are used, so that each run looks the same and leaves no files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Size of the window in px, as on a screen of 13 inches.
SIZE = (1280, 800)
GENE = "ERBB2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    parser.add_argument(
        "--light", default="export", help="the picture that is taken in the light theme anyway"
    )
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chrep-") as folder:
        samples = prepare_environment(Path(folder))
        Tour(samples, given.out.absolute(), given.theme, given.light).run()


def prepare_environment(folder: Path) -> Path:
    """Copy the sample data, and use other settings and caches than the user's; before napari is imported."""
    samples = folder / "sample_data"
    shutil.copytree(ROOT / "sample_data", samples)
    os.environ["CHREP_SAMPLE_DATA"] = str(samples)
    os.environ["CHREP_CACHE"] = str(folder / "cache")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    return samples


class Tour:
    """Steps of docs/tour.md, with a picture of each.

    Parameters
    ----------
    samples, out : Path
        Folders of the sample data and of the pictures.
    theme, light : str
        napari's theme, and the name of the one picture that always has the light theme.
    """

    def __init__(self, samples: Path, out: Path, theme: str, light: str) -> None:
        import napari
        from drive_window import WindowDriver
        from qtpy.QtCore import QCoreApplication, Qt

        QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_DontUseNativeDialogs)
        self.samples, self.out, self.theme, self.light = samples, out, theme, light
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        self.viewer.window.resize(*SIZE)
        self.driver = WindowDriver(self.viewer)

    def run(self) -> None:
        """Do all steps."""
        for step in (
            self._open, self._predict, self._gene, self._side_by_side, self._trust, self._neighbours,
            self._compare, self._export, self._measured, self._retrain,
        ):  # fmt: skip
            step()
        self.viewer.close()

    def _picture(self, name: str, *, settled: bool = True) -> None:
        self.viewer.theme = "light" if name == self.light else self.theme
        self.driver.picture(self.out / f"{name}.png", settled=settled)
        self.viewer.theme = self.theme

    def _dock(self, title: str) -> Any:
        """Open a dock from the menu, and return its widget."""
        self.driver.menu("Plugins", "CHRep", f"{title} (CHRep)")
        return self.viewer.window.dock_widgets[f"{title} (CHRep)"]

    def _is_idle(self) -> bool:
        return bool(self.explorer.engine.state == "idle")

    def _open(self) -> None:
        self.explorer = self._dock("Slide explorer")
        self.driver.drop(self.samples / "SYNTHETIC_slide.ome.tif", "CHRep")
        self.driver.choose(self.explorer.model.picker, "SYNTHETIC_demo.chrep")
        self.driver.wait(lambda: self._is_idle() and self.explorer.run.predict_tissue.isEnabled())
        self._picture("open")

    def _predict(self) -> None:
        self.genes = self._dock("Genes")
        self.driver.click(self.explorer.run.predict_tissue)
        self.driver.wait(lambda: bool(self.genes.maps.heatmaps.visible))
        self._picture("predicting", settled=False)
        self.driver.wait(self._is_idle)

    def _gene(self) -> None:
        self.driver.row(self.genes.view, self.genes.table.names().index(GENE))
        self.driver.wait(lambda: not self.genes.variability.busy)
        self._picture("gene")

    def _side_by_side(self) -> None:
        self.driver.click(self.genes.maps.side_by_side)
        self._picture("side_by_side")

    def _trust(self) -> None:
        for kind in ("raw", "difference", "interval", "unlike"):
            self.driver.click(self.genes.maps.toggles[kind])
        self._picture("trust")
        self.driver.click(self.genes.maps.side_by_side)
        if not self.genes.maps.toggles["calibrated"].isChecked():
            self.driver.click(self.genes.maps.toggles["calibrated"])

    def _neighbours(self) -> None:
        self.neighbours = self._dock("Neighbours")
        self._click_tissue(85, -168)
        self._picture("neighbours")

    def _compare(self) -> None:
        self.driver.click(self.neighbours.tile.pin)
        self._click_tissue(-122, 200)
        self.driver.wait(lambda: self.neighbours.comparison.listed.rowCount())
        self._picture("compared")

    def _click_tissue(self, right: int, down: int) -> None:
        """Click at a distance in pixels from the middle of the canvas."""
        from qtpy.QtCore import QPoint

        canvas = self.viewer.window._qt_viewer.canvas.native
        self.driver.click(canvas, canvas.rect().center() + QPoint(right, down))

    def _export(self) -> None:
        panel = self._dock("Export")
        self.driver.click(panel.export)
        panel.dialog.setDirectory(str(self.samples.parent))
        self.driver.accept(panel.dialog)
        self.driver.wait(lambda: not panel.exporter.busy)
        self._picture("export")

    def _measured(self) -> None:
        self.viewer.layers.clear()
        self.driver.menu("File", "Open Sample", "CHRep", "SYNTHETIC section with its spots")
        self.driver.wait(lambda: self.genes.maps.measured.isEnabled())
        self.driver.click(self.explorer.run.predict_tissue)
        self.driver.wait(self._is_idle)
        self.driver.front(self.genes)
        if not self.genes.maps.measured.isChecked():
            self.driver.click(self.genes.maps.measured)
        self._picture("measured")

    def _retrain(self) -> None:
        panel = self._dock("Retrain")
        self.driver.menu(
            "Plugins", "CHRep", "Slide explorer (CHRep)"
        )  # closes the explorer, which leaves more room
        self.driver.click(panel.cohort.add_folder)
        panel.cohort.dialog.setDirectory(str(self.samples))
        self.driver.accept(panel.cohort.dialog)
        self.driver.wait(panel.start.isEnabled)
        self.driver.wait(lambda: "Working" not in panel.estimate.text())
        self.driver.click(panel.start)
        self.driver.wait(lambda: panel.retrainer.state in ("outcome", "interrupted"))
        self._picture("retrain")


if __name__ == "__main__":
    main()
