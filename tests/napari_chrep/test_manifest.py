"""The manifest, and what opening the plugin costs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_chrep

MANIFEST = Path(napari_chrep.__file__).parent / "napari.yaml"


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_file(MANIFEST)


def test_manifest_is_named_like_the_distribution(manifest):
    assert manifest.name == "napari-chrep"
    assert all(command.id.startswith("napari-chrep.") for command in manifest.contributions.commands)


def test_every_command_can_be_imported(manifest):
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.python_name


def test_one_reader_for_each_pattern(manifest):
    patterns = [p for reader in manifest.contributions.readers for p in reader.filename_patterns]
    assert len(patterns) == len(set(patterns))


def test_the_widgets_are_in_one_submenu(manifest):
    menus = manifest.contributions.menus
    assert [item.submenu for item in menus["napari/layers/visualize"]] == ["napari-chrep.menu"]
    assert [item.command for item in menus["napari-chrep.menu"]] == [
        "napari-chrep.explorer",
        "napari-chrep.genes",
        "napari-chrep.neighbours",
        "napari-chrep.export",
        "napari-chrep.retrain",
    ]


def test_opening_the_widgets_imports_no_torch():
    script = (
        "import sys, napari\n"
        "viewer = napari.Viewer(show=False)\n"
        "for name in ('Slide explorer', 'Genes', 'Neighbours', 'Export', 'Retrain'):\n"
        "    viewer.window.add_plugin_dock_widget('napari-chrep', name)\n"
        "heavy = [m for m in ('torch', 'timm', 'squidpy', 'scanpy') if m in sys.modules]\n"
        "viewer.close()\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
