"""Open each entry of File > Open Sample in a real viewer, and print the layers and the model.

Run by tools/test_wheel.sh in an environment without the source.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import napari
from napari.utils.notifications import notification_manager
from qtpy.QtWidgets import QApplication
from superqt.utils import WorkerBase

import napari_chrep
from chrep_model.samples import sample_folder
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for
from napari_chrep.ui.docks import PLUGIN

TIMEOUT_S = 120


def main() -> None:
    installed = Path(sys.argv[1])
    assert Path(napari_chrep.__file__).is_relative_to(installed), napari_chrep.__file__
    assert sample_folder().is_relative_to(installed), sample_folder()
    viewer = napari.Viewer()
    keys = [key for plugin, key in samples() if plugin == PLUGIN]
    for key in keys:
        layers = viewer.open_sample(PLUGIN, key)
        assert layers and layers[0].rgb and layers[0].metadata["chrep_slide"].mpp is not None, key
        print(f"{key}: {', '.join(layer.name for layer in layers)}")
    session, until = kept_for(viewer, Session), time.monotonic() + TIMEOUT_S
    while session.bundle is None and time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.05)
    assert session.bundle is not None, "the model of the samples did not open"
    print(f"model: {session.bundle.card.name}, {session.bundle.card.genes} genes")
    troubles = [record.message for record in notification_manager.records if record.severity != "info"]
    assert not troubles, troubles
    viewer.close()
    # The networks may still be loading: zarr stops answering at exit, and the thread would wait for ever.
    WorkerBase.await_workers()


def samples() -> list[tuple[str, str]]:
    """Return the plugin and key of each entry of File > Open Sample."""
    from npe2 import PluginManager

    found = PluginManager.instance().iter_sample_data()
    return [(plugin, sample.key) for plugin, contributions in found for sample in contributions]


if __name__ == "__main__":
    main()
