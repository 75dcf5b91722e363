"""A bundle that is dropped on the viewer becomes its model."""

from __future__ import annotations

import shutil

import pytest
from napari.utils.notifications import notification_manager

from chrep_model.errors import BundleError
from napari_chrep.io.reader import get_reader, read_bundle


@pytest.fixture
def damaged(tiny_bundle, tmp_path):
    folder = tmp_path / "damaged.chrep"
    shutil.copytree(tiny_bundle, folder)
    (folder / "weights.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def said():
    """Texts of the notifications since the start of the test."""
    before = len(notification_manager.records)
    return lambda: [record.message for record in notification_manager.records[before:]]


def test_only_folders_that_are_bundles_are_taken(tiny_bundle, damaged, tmp_path):
    renamed = tmp_path / "breast"
    shutil.copytree(tiny_bundle, renamed)
    (tmp_path / "empty.chrep").mkdir()
    (tmp_path / "file.chrep").write_text("no folder")
    for bundle in (tiny_bundle, damaged, renamed, tmp_path / "empty.chrep"):
        assert get_reader(str(bundle)) is read_bundle
    assert get_reader(tmp_path) is None
    assert get_reader([tiny_bundle, damaged]) is not read_bundle  # which of them would be the model?


def test_an_opened_bundle_becomes_the_model(desk, tiny_bundle, said):
    assert desk.viewer.open(tiny_bundle, plugin="napari-chrep") == []
    desk.wait()
    assert desk.session.bundle.path == tiny_bundle
    explorer = desk.dock("Slide explorer")  # the one that is there
    assert explorer.model.picker.currentText() == tiny_bundle.name
    assert not explorer.model.card.isHidden()
    assert len(desk.viewer.layers) == 0 and said() == []


def test_a_dropped_bundle_becomes_the_model(desk, tiny_bundle, said):
    """napari offers any folder to its own reader too, and asks."""
    desk.drop(tiny_bundle)
    desk.wait()
    assert desk.session.bundle.path == tiny_bundle and said() == []


def test_a_damaged_bundle_is_told_of_once(desk, tiny_bundle, damaged, said):
    desk.viewer.open(tiny_bundle, plugin="napari-chrep")
    desk.wait()
    desk.viewer.open(damaged, plugin="napari-chrep")
    desk.wait()
    (message,) = said()
    assert "weights.safetensors is not the file that this bundle was made with" in message
    assert desk.session.bundle.path == tiny_bundle
    assert desk.dock("Slide explorer").model.picker.currentText() == tiny_bundle.name


def test_without_a_viewer_there_is_nothing_to_load_it_into(tiny_bundle, qapp):
    with pytest.raises(BundleError, match=r"load_bundle"):
        read_bundle(tiny_bundle)
