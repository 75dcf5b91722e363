"""What is refused is told of in one notification, in our words; what others can open is left to them."""

from __future__ import annotations

from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import tifffile
import zarr
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from PIL import Image

from chrep_model.errors import SlideError
from napari_chrep.io import refusals
from napari_chrep.io.opening import open_path
from napari_chrep.io.reader import NO_LAYER, get_reader, read_slides

#: The name of napari's own reader in its dialog.
NAPARI = "napari builtins"

ARRAYS = np.zeros((5, 64, 64), np.uint16)


def fluorescence_zarr(path):
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=ARRAYS)
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}


def spots(path):
    anndata.AnnData(np.ones((4, 3), np.float32)).write_h5ad(path)


def folder_with(name):
    def make(path):
        path.mkdir()
        (path / name).mkdir()

    return make


#: What is plainly meant for us, how it is made, and what must be said of it.
OURS = {
    "damaged.svs": (lambda path: path.write_bytes(b"II*\0" + bytes(100)), ""),
    "empty.svs": (lambda path: path.touch(), "the file is empty"),
    "damaged.ndpi": (lambda path: path.write_bytes(b"nothing"), ""),
    "damaged.h5ad": (lambda path: path.write_bytes(b"nothing"), "holds no prediction"),
    "spots.h5ad": (spots, "Measured spots"),
    "fluorescence.ome.zarr": (fluorescence_zarr, "red, green and blue"),
    "empty.zarr": (lambda path: zarr.open_group(path, mode="w"), ""),
    "file.chrep": (lambda path: path.write_text("no folder"), "no folder of this name"),
    "outs": (folder_with("spatial"), ""),
}

#: What napari or other plugins may well open.
THEIRS = {
    "empty.tif": (lambda path: path.touch(), "the file is empty"),
    "damaged.jpg": (lambda path: path.write_bytes(b"\xff\xd8\xff" + bytes(100)), "damaged"),
    "fluorescence.tif": (lambda path: tifffile.imwrite(path, ARRAYS), "RGB"),
    "plain.tif": (lambda path: tifffile.imwrite(path, np.zeros((9, 9, 3), np.uint8)), "plain picture"),
    "grey.png": (lambda path: Image.fromarray(ARRAYS[0]).save(path), "mode I;16"),
    "pictures": (folder_with("more"), "not a slide"),
}


@pytest.fixture
def said():
    """The texts of the notifications since the test began, with their severity."""
    before = len(notification_manager.records)
    return lambda: [(str(r.severity), r.message) for r in notification_manager.records[before:]]


def made(kinds, name, folder):
    path = folder / name
    kinds[name][0](path)
    return path


WITHOUT_CHOICE = ("damaged.h5ad", "spots.h5ad", "file.chrep")  # napari itself claims to know the others


@pytest.mark.parametrize(
    ("name", "plugin"),
    [*((name, "napari-chrep") for name in OURS), *((name, None) for name in WITHOUT_CHOICE)],
)
def test_what_is_meant_for_us_is_refused_with_the_reason(make_napari_viewer, tmp_path, said, name, plugin):
    path, viewer = made(OURS, name, tmp_path), make_napari_viewer()
    assert viewer.open(path, plugin=plugin) == []
    ((severity, text),) = said()
    assert severity == "error" and text.startswith(f"{path.name}: ") and OURS[name][1] in text
    assert "\n" not in text and "plugin" not in text and text.endswith(".")
    assert len(viewer.layers) == 0


@pytest.mark.parametrize("name", THEIRS)
def test_what_others_can_open_is_left_to_them_with_the_reason(make_napari_viewer, tmp_path, said, name):
    path, viewer = made(THEIRS, name, tmp_path), make_napari_viewer()
    assert get_reader(str(path)) is None
    ((severity, text),) = said()
    assert severity == "warning" and text.startswith(f"{path.name}: ") and THEIRS[name][1] in text
    if name in {"fluorescence.tif", "plain.tif", "grey.png"}:
        (layer,) = viewer.open(path, plugin="napari")
        assert layer.data.size and len(said()) == 1


@pytest.mark.parametrize("name", ["notes.txt", "notes.csv"])
def test_what_is_nothing_of_ours_is_not_taken(tmp_path, name):
    (tmp_path / name).write_text("hello")
    assert get_reader(str(tmp_path / name)) is None


def test_dropped_on_the_window(desk, tmp_path, said):
    """Where CHRep was chosen for all PNG, we say why not, and napari offers its own reader."""
    desk.drop(made(OURS, "damaged.svs", tmp_path))
    assert [severity for severity, _ in said()] == ["error"]
    settings = get_settings().plugins
    settings.extension2reader = {**settings.extension2reader, "*.png": "napari-chrep"}
    desk.drop(made(THEIRS, "grey.png", tmp_path), reader=NAPARI)
    assert [severity for severity, _ in said()] == ["error", "warning"]
    (layer,) = desk.viewer.layers
    assert layer.data.shape == (64, 64)


def test_one_of_several_slides_is_damaged(desk, tmp_path, said, write_tissue):
    good, bad = write_tissue(name="good.svs"), made(OURS, "damaged.svs", tmp_path)
    layers = desk.viewer.open([good, bad], plugin="napari-chrep")
    assert [layer.name for layer in layers] == ["good"]
    ((_, text),) = said()
    assert text.startswith(f"{bad.name}: ")


def test_only_slides_open_together(tmp_path, said, make_napari_viewer):
    make_napari_viewer()
    for name in ("a.h5ad", "b.h5ad"):
        spots(tmp_path / name)
    paths = [tmp_path / "a.h5ad", tmp_path / "b.h5ad"]
    assert get_reader(paths)(paths) == NO_LAYER
    assert "Open this alone" in said()[0][1]


def test_a_kind_that_another_plugin_takes_is_left_to_it(tmp_path, said, monkeypatch):
    path = made(OURS, "damaged.svs", tmp_path)
    assert refusals.is_ours(path)
    readers = [SimpleNamespace(plugin_name=name) for name in ("napari-chrep", "napari-wsi")]
    monkeypatch.setattr(PluginManager, "iter_compatible_readers", lambda self, path: iter(readers))
    assert get_reader(str(path)) is None
    assert [severity for severity, _ in said()] == ["warning"]


def test_without_a_viewer_it_is_an_error(tmp_path):
    with pytest.raises(SlideError, match="empty"):
        read_slides(made(OURS, "empty.svs", tmp_path))


def test_the_plugins_own_buttons_say_it_once(desk, tmp_path, said):
    for kinds, name in ((OURS, "damaged.svs"), (OURS, "spots.h5ad"), (THEIRS, "fluorescence.tif")):
        path, before = made(kinds, name, tmp_path), len(said())
        open_path(desk.viewer, path)
        ((severity, text),) = said()[before:]
        assert severity == "error" and text.startswith(f"{path.name}: ") and kinds[name][1] in text
    open_path(desk.viewer, tmp_path / "none.svs")
    assert said()[-1][1].endswith("Check the name.")
    open_path(desk.viewer, made(THEIRS, "plain.tif", tmp_path))
    assert len(desk.viewer.layers) == 1 and len(said()) == 4
