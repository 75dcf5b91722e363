"""A slide far larger than the memory: opened in the real window and predicted where one looks."""

import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile

SIDES = (60_000, 30_000, 15_000, 7_500, 3_750, 1_875)
TILE = 512
TISSUE = 3_000
LIMIT_KB = 2_500_000

# In a process of its own, whose peak memory is this slide's alone.
VISIT = """
import sys
from pathlib import Path
from chrep_model.bundle import load_bundle
from napari_chrep.state.viewers import kept_for
from napari_chrep.state.session import Session
from napari_chrep.canvas.viewport import rect_in_view
from napari_chrep.background.prediction_engine import PredictionEngine
import napari
from qtpy.QtTest import QTest

slide, bundle = sys.argv[1:]
viewer = napari.Viewer()
(layer,) = viewer.open(slide, plugin="napari-chrep")
session, engine = kept_for(viewer, Session), kept_for(viewer, PredictionEngine)
session.set_slide_layer(layer)

def wait():
    for _ in range(2400):
        QTest.qWait(50)
        if engine.state == "idle":
            return
    raise TimeoutError(engine.state)

engine.load_bundle(bundle)
wait()
viewer.scene.camera.center = (15000, 15000)  # µm: the middle of 60,000 px at 0.5 µm/px
viewer.scene.camera.zoom = 0.5
QTest.qWait(500)
engine.predict(rect_in_view(viewer, session.slide))
wait()
viewer.screenshot(canvas_only=False, flash=False)
# Not ru_maxrss, which begins at the peak of the process that started this one.
(peak,) = [line.split()[1] for line in Path("/proc/self/status").open() if line.startswith("VmHWM:")]
print(len(session.prediction), peak)
viewer.close()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says the peak on Linux alone")
def test_a_60000_px_pyramid_stays_below_two_and_a_half_gigabytes(tissue, tiny_bundle, tmp_path, xvfb):
    path = tmp_path / "huge.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, side in enumerate(SIDES):
            file.write(
                _tiles(tissue, side, 2**level),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="jpeg",
                subfiletype=int(level > 0),
                resolution=(20_000 / 2**level, 20_000 / 2**level),
                resolutionunit="CENTIMETER",
            )
    done = subprocess.run(
        [sys.executable, "-c", VISIT, str(path), str(tiny_bundle)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    tiles, peak_kb = map(int, done.stdout.split()[-2:])
    assert tiles > 0
    assert peak_kb < LIMIT_KB


def _tiles(tissue, side, downsample):
    """Tissue over the middle of the slide and glass around it, each encoded once."""
    repeated = np.tile(tissue[::downsample, ::downsample], (downsample, downsample, 1))
    glass = np.full((TILE, TILE, 3), 245, np.uint8)
    encoded = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=85, colorspace="RGB", outcolorspace="RGB")
        for tile in (glass, repeated[:TILE, :TILE])
    ]
    middle = side / 2
    starts = np.arange(0, side, TILE)
    near = (starts < middle + TISSUE / downsample) & (starts + TILE > middle - TISSUE / downsample)
    for row in near:
        for col in near:
            yield encoded[int(row and col)]
