"""Take the pictures of README.md and docs/tour.md: the tour, gone through with the mouse in a real window.

    make screenshots

or `python tools/screenshots.py [-o docs/images] [--theme dark] [--light export]`. Needs a display. Works on a copy
of sample_data/ and with settings of its own, so that every run looks the same and leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: A screen of 13 inches.
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
        samples = set_apart(Path(folder))
        Tour(samples, given.out.absolute(), given.theme, given.light).go()


def set_apart(folder: Path) -> Path:
    """Copy the sample data, and keep napari, Qt and the cache away from the user's own; before Qt is imported."""
    samples = folder / "sample_data"
    shutil.copytree(ROOT / "sample_data", samples)
    os.environ["CHREP_SAMPLE_DATA"] = str(samples)
    os.environ["CHREP_CACHE"] = str(folder / "cache")
    os.environ["NAPARI_CONFIG"] = str(folder / "napari.yaml")
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    return samples


class Tour:
    """The steps of docs/tour.md, a picture each.

    Parameters
    ----------
    samples, out : Path
        The sample data, and where the pictures go.
    theme, light : str
        napari's theme, and the one picture that is light in any case.
    """

    def __init__(self, samples: Path, out: Path, theme: str, light: str) -> None:
        import napari
        from hand import Hand
        from qtpy.QtCore import QCoreApplication, Qt

        QCoreApplication.setAttribute(Qt.ApplicationAttribute.AA_DontUseNativeDialogs)
        self.samples, self.out, self.theme, self.light = samples, out, theme, light
        self.viewer = napari.Viewer(show=True)
        self.viewer.theme = theme
        self.viewer.window.resize(*SIZE)
        self.hand = Hand(self.viewer)

    def go(self) -> None:
        self.open()
        self.predict()
        self.gene()
        self.side_by_side()
        self.trust()
        self.neighbours()
        self.compare()
        self.export()
        self.measured()
        self.retrain()
        self.viewer.close()

    def picture(self, name: str, *, settled: bool = True) -> None:
        self.viewer.theme = "light" if name == self.light else self.theme
        self.hand.picture(self.out / f"{name}.png", settled=settled)
        self.viewer.theme = self.theme

    def dock(self, title: str) -> Any:
        """Open a dock by its entry in the menu, and return its widget."""
        self.hand.menu("Plugins", "CHRep", f"{title} (CHRep)")
        return self.viewer.window.dock_widgets[f"{title} (CHRep)"]

    def close(self, *widgets: Any) -> None:
        for widget in widgets:
            self.viewer.window.remove_dock_widget(widget)

    def idle(self) -> bool:
        return bool(self.explorer.engine.state == "idle")

    def open(self) -> None:
        self.explorer = self.dock("Slide explorer")
        self.hand.drop(self.samples / "SYNTHETIC_slide.ome.tif", "CHRep")
        self.hand.choose(self.explorer.model.picker, "SYNTHETIC_demo.chrep")
        self.hand.wait(lambda: self.idle() and self.explorer.run.predict_tissue.isEnabled())
        self.genes = self.dock("Genes")
        self.picture("open")

    def predict(self) -> None:
        self.hand.click(self.explorer.run.predict_tissue)
        self.hand.wait(lambda: self.explorer.run.progress.value() > 0 or self.idle())
        self.picture("predicting", settled=False)
        self.hand.wait(self.idle)

    def gene(self) -> None:
        self.hand.row(self.genes.view, self.genes.table.names().index(GENE))
        self.picture("gene")

    def side_by_side(self) -> None:
        self.hand.click(self.genes.maps.side_by_side)
        self.picture("side_by_side")

    def trust(self) -> None:
        for kind in ("raw", "difference", "interval", "unlike"):
            self.hand.click(self.genes.maps.toggles[kind])
        self.picture("trust")
        self.hand.click(self.genes.maps.side_by_side)
        for kind, button in self.genes.maps.toggles.items():
            if button.isChecked() != (kind == "calibrated"):
                self.hand.click(button)

    def neighbours(self) -> None:
        from qtpy.QtCore import QPoint

        self.panel = self.dock("Neighbours")
        self.canvas = self.viewer.window._qt_viewer.canvas.native
        self.hand.click(self.canvas, self.canvas.rect().center() + QPoint(85, -168))
        self.picture("neighbours")

    def compare(self) -> None:
        from qtpy.QtCore import QPoint

        self.hand.click(self.panel.tile.pin)
        self.hand.click(self.canvas, self.canvas.rect().center() + QPoint(-122, 200))
        self.hand.wait(lambda: self.panel.comparison.table.rowCount())
        self.picture("compared")
        self.close(self.panel)

    def export(self) -> None:
        panel = self.dock("Export")
        self.hand.click(panel.export)
        self.hand.accept(panel.dialog)
        self.hand.wait(lambda: not panel.exporter.busy)
        self.picture("export")
        self.close(panel)

    def measured(self) -> None:
        self.hand.menu("File", "Open Sample", "CHRep", "SYNTHETIC section with its spots")
        self.hand.wait(lambda: self.genes.maps.measured.isEnabled())
        self.hand.click(self.explorer.run.predict_tissue)
        self.hand.wait(self.idle)
        self.picture("measured")

    def retrain(self) -> None:
        panel = self.dock("Retrain")
        self.hand.click(panel.cohort.add_folder)
        panel.cohort.dialog.setDirectory(str(self.samples))
        self.hand.accept(panel.cohort.dialog)
        self.hand.wait(lambda: panel.start.isEnabled())
        self.hand.click(panel.form.presets["calibrate"])
        self.hand.wait(lambda: "Working" not in panel.estimate.text())
        self.hand.picture(self.out / "retrain0.png")
        self.hand.click(panel.start)
        self.hand.wait(lambda: panel.retrainer.state in ("outcome", "interrupted"))
        self.picture("retrain")


if __name__ == "__main__":
    main()
