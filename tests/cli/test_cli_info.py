"""``chrep info``, ``doctor`` and ``demo``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from chrep_model import samples
from chrep_model.cli import demo, doctor
from chrep_model.errors import ChrepError


def test_a_slide(chrep, write_pyramid):
    path = write_pyramid(np.full((600, 400, 3), 200, np.uint8), mpp=0.25)
    facts = json.loads(chrep("info", path, "--json").out)
    assert (facts["kind"], facts["name"], facts["um_per_px_source"]) == ("slide", "slide", "file")
    assert (facts["width_px"], facts["height_px"], facts["um_per_px"]) == (400, 600, pytest.approx(0.25))
    assert [level["downsample"] for level in facts["levels"]] == [1, 2, 4]
    assert "0.25" in chrep("info", path).out


def test_a_slide_without_scale(chrep, tiny_cohort):
    result = chrep("info", tiny_cohort / "SYNTHETIC_P1A.jpg")
    assert result.code == 0 and "unknown" in result.out and "--mpp" in result.out


def test_a_slide_of_several_scenes(chrep, refused, tmp_path):
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, side, mpp in [("left", 256, 0.5), ("right", 512, 0.25)]:
            about = {"axes": "YXS", "Name": name, "PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
            image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
            writer.write(image, photometric="rgb", tile=(64, 64), metadata=about)
    facts = json.loads(chrep("info", path, "--json").out)
    assert (facts["scene"], facts["scenes"], facts["um_per_px"]) == ("right", ["left", "right"], 0.25)
    facts = json.loads(chrep("info", path, "--scene", "left", "--json").out)
    assert (facts["scene"], facts["width_px"], facts["um_per_px"]) == ("left", 256, 0.5)
    assert "left, right" in chrep("info", path).out
    assert "1 (left), 2 (right)" in refused("info", path, "--scene", "middle")


def test_a_cohort(chrep, tiny_cohort):
    facts = json.loads(chrep("info", tiny_cohort, "--json").out)
    assert (facts["kind"], facts["patients"], len(facts["sections"])) == ("cohort", 2, 3)
    assert "SYNTHETIC_P2A" in chrep("info", tiny_cohort).out


def test_measured_spots(chrep, tiny_cohort):
    facts = json.loads(chrep("info", tiny_cohort / "SYNTHETIC_P1A.h5ad", "--json").out)
    assert facts["kind"] == "measured spots" and facts["um_per_px"] == 0.7


def test_a_bundle(chrep, tiny_bundle):
    facts = json.loads(chrep("info", tiny_bundle, "--json").out)
    assert (facts["kind"], facts["method"], facts["genes"]) == ("bundle", "chrep", 40)
    assert "SYNTHETIC test data" in chrep("info", tiny_bundle).out


def test_how_accurate_a_bundle_is(chrep, trusting_bundle):
    """The mean predicts no gene's pattern, and says so."""
    facts = json.loads(chrep("info", trusting_bundle, "--json").out)
    assert (facts["median_accuracy"], facts["predictable_genes"]) == (0, 0)
    assert "predictable genes" in chrep("info", trusting_bundle).out


@pytest.mark.parametrize("name", ["nosuch", "text.txt", "text.h5ad", "folder", "folder.zarr"])
def test_what_is_none_of_these(refused, tmp_path, name):
    path = tmp_path / name
    if name.startswith("folder"):
        path.mkdir()
        if path.suffix:
            (path / "zarr.json").write_text("{}")
    elif name != "nosuch":
        path.write_text("nothing much\n")
    assert str(path) in refused("info", path)


def test_doctor(chrep, shared_cache):
    result = chrep("doctor")
    assert result.code == 0, result.out
    for word in ("python", "torch", "device", "OpenSlide", str(shared_cache), "encoder weights", "display"):
        assert word in result.out
    rows = json.loads(chrep("doctor", "--json").out)
    assert all(row["state"] in ("ok", "missing", "fault") for row in rows)


def test_doctor_finds_faults(chrep, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CHREP_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    result = chrep("doctor")
    assert result.code == 1
    assert "FAULT   no-such-package" in result.out and "Set CHREP_CACHE" in result.out


class TestDemo:
    """With the tiny cohort and slide in the place of the sample data."""

    @pytest.fixture
    def sample(self, cohort, write_pyramid, monkeypatch):
        from PIL import Image

        with Image.open(cohort / "SYNTHETIC_P1A.jpg") as image:
            path = write_pyramid(np.asarray(image), mpp=0.7, levels=2, name="slide.ome.tif")
        path.rename(cohort / samples.SLIDE)
        monkeypatch.setenv(samples.ENVIRONMENT_VARIABLE, str(cohort))
        return cohort

    def test_everything_once(self, chrep, sample, tiny_bundle, tmp_path, monkeypatch):
        def trained(cohort, settings, out, **_):  # training has its own tests, and takes its time
            assert len(cohort) == 3 and "SYNTHETIC" in settings.note
            shutil.copytree(tiny_bundle, out)

        monkeypatch.setattr("chrep_model.pipeline.train", trained)
        started = []
        monkeypatch.setattr(demo, "start_python", lambda *command, **_: started.append(command))
        monkeypatch.setenv("DISPLAY", ":7")
        out = tmp_path / "out"
        result = chrep("demo", "-o", out)
        assert (result.code, result.err) == (0, "")
        figures = [f"SYNTHETIC_slide_{gene}.png" for gene in demo.FIGURE_GENES]
        names = ["SYNTHETIC_demo.chrep", "SYNTHETIC_slide.h5ad", *figures, "napari.log"]
        assert sorted(p.name for p in out.iterdir()) == sorted(names)
        assert all(str(out / name) in result.out for name in names)
        assert "SYNTHETIC data" in result.out
        (command,) = started
        slide, bundle = sample / samples.SLIDE, out / "SYNTHETIC_demo.chrep"
        assert command == ("napari_chrep", slide, "--bundle", bundle, "--gene", "ERBB2")

    def test_without_a_display(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setattr(doctor, "has_display", lambda: False)
        demo._open_viewer(tmp_path, tmp_path, tmp_path)
        assert "needs a display" in capsys.readouterr().out
        assert not list(tmp_path.iterdir())

    def test_sample_data_are_found_beside_the_source_and_in_the_package(self, monkeypatch, tmp_path):
        monkeypatch.delenv(samples.ENVIRONMENT_VARIABLE, raising=False)
        assert samples.sample_folder() == Path(__file__).parents[2] / "sample_data"
        installed = tmp_path / "sample_data"
        monkeypatch.setattr(samples, "_PLACES", (installed, tmp_path / "nowhere"))
        with pytest.raises(ChrepError, match=r"Install napari-chrep again"):
            samples.sample_folder()
        installed.mkdir()
        (installed / samples.SLIDE).touch()
        assert samples.sample_folder() == installed

    def test_no_sample_data_there(self, refused, monkeypatch, tmp_path):
        monkeypatch.setenv(samples.ENVIRONMENT_VARIABLE, str(tmp_path))
        assert "Correct or unset CHREP_SAMPLE_DATA" in refused("demo", "-o", tmp_path / "out", "--no-gui")
