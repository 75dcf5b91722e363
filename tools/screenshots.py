"""Take the pictures of the README in a real window.

    python tools/screenshots.py BUNDLE [-o docs/images] [--gene ERBB2]

BUNDLE is a model of the sample data, as `chrep demo` or `chrep train sample_data -o BUNDLE` makes it. Needs a
display; on a machine without one, run it under `xvfb-run -s "-screen 0 1600x1000x24"`.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import napari
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from chrep_model.errors import ChrepError
from napari_chrep.launch import set_up

SIZE = (1440, 900)
TIMEOUT_S = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--gene", default="ERBB2")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    viewer = napari.Viewer(show=True)
    viewer.theme = "dark"
    viewer.window.resize(*SIZE)
    viewer.open_sample("napari-chrep", "slide")
    explorer, genes = set_up(viewer, bundle=arguments.bundle, gene=arguments.gene)
    QTest.qWait(500)
    viewer.reset_view(margin=0.02)
    wait(explorer.engine)
    if not explorer.session.prediction:
        raise ChrepError("Nothing was predicted with this bundle", path=arguments.bundle)
    QTest.qWait(1000)  # the last refresh, and the layer's thumbnail
    save(viewer, arguments.out / "explorer.png")
    genes.maps.toggles["raw"].click()
    genes.maps.toggles["interval"].click()
    genes.maps.side_by_side.click()
    QTest.qWait(1000)
    save(viewer, arguments.out / "side_by_side.png")
    genes.maps.side_by_side.click()
    viewer.window.add_plugin_dock_widget("napari-chrep", "Neighbours")
    QTest.qWait(500)
    canvas = viewer.window._qt_viewer.canvas.native
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=canvas.rect().center())
    QTest.qWait(3000)  # the pictures are read in a worker
    save(viewer, arguments.out / "neighbours.png")
    viewer.close()


def wait(engine: Any) -> None:
    """Let the window live until nothing is under way."""
    end = time.monotonic() + TIMEOUT_S
    QTest.qWait(100)
    while engine.state != "idle":
        if time.monotonic() > end:
            raise TimeoutError(f"still {engine.state} after {TIMEOUT_S} s")
        QTest.qWait(50)


def save(viewer: Any, path: Path) -> None:
    """Write the whole window as PNG."""
    picture = viewer.window.screenshot(canvas_only=False, flash=False)
    Image.fromarray(picture).convert("RGB").save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    main()
