"""``chrep predict``: what it writes, several slides, and everything that it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.bundle import Card


@pytest.fixture
def slide(tiny_cohort):
    return tiny_cohort / "SYNTHETIC_P1A.jpg"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_slide(chrep, slide, tiny_bundle, out):
    result = chrep("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", out)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{out / 'SYNTHETIC_P1A.h5ad'}: ")
    table = anndata.read_h5ad(out / "SYNTHETIC_P1A.h5ad")
    assert table.n_vars == 40 and {"raw", "calibrated"} <= set(table.layers)
    assert table.uns["chrep"]["mpp_source"] == "user"
    described = chrep("info", out / "SYNTHETIC_P1A.h5ad").out
    assert "prediction" in described and table.uns["chrep"]["bundle_hash"] in described


def test_a_slide_unlike_the_training_slides(chrep, striped_slide, slide, trusting_bundle, out):
    common = ("--mpp", 0.7, "-b", trusting_bundle, "-o", out)
    result = chrep("predict", striped_slide, *common)
    assert result.code == 0 and (out / "striped.h5ad").exists()
    assert result.err.startswith(f"chrep: {striped_slide}: the slide is unlike the training slides")
    assert result.err.count("\n") == 1 and "Do not rely" in result.err
    assert "unlike share" in chrep("info", out / "striped.h5ad").out
    rows = json.loads(chrep("predict", striped_slide, slide, *common, "--json").out)
    assert rows[0]["unlike_share"] > 0.4 > rows[1]["unlike_share"]
    assert chrep("predict", slide, *common).err == ""


def test_a_region_is_the_same_as_that_part_of_the_whole(chrep, slide, tiny_bundle, out, tmp_path):
    common = ("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "--genes", "ERBB2,CD3E")
    assert chrep(*common, "-o", out).code == 0
    assert chrep(*common, "-o", tmp_path / "part", "--region", "0,0,300,768", "--batch-size", 2).code == 0
    whole = anndata.read_h5ad(out / "SYNTHETIC_P1A.h5ad")
    part = anndata.read_h5ad(tmp_path / "part" / "SYNTHETIC_P1A.h5ad")
    assert 0 < part.n_obs < whole.n_obs
    assert list(part.var_names) == ["ERBB2", "CD3E"]
    np.testing.assert_allclose(
        whole[part.obs_names].layers["calibrated"], part.layers["calibrated"], atol=1e-5
    )


def test_a_scene_of_a_file_with_several(chrep, slide, tiny_cohort, tiny_bundle, out, tmp_path):
    """Each is predicted as if it were alone, and the stored prediction finds its own picture again."""
    from chrep_model.prediction.stored import read_prediction

    path = tmp_path / "two.ome.tif"
    alone = np.asarray(Image.open(slide))
    other = np.asarray(Image.open(tiny_cohort / "SYNTHETIC_P2A.jpg"))
    with tifffile.TiffWriter(path, ome=True) as writer:
        for name, image in (
            ("small", alone),
            ("large", np.pad(other, ((0, 64), (0, 64), (0, 0)), mode="edge")),
        ):
            about = {"axes": "YXS", "Name": name, "PhysicalSizeX": 0.7, "PhysicalSizeY": 0.7}
            writer.write(image, photometric="rgb", tile=(256, 256), metadata=about)
    common = ("-b", tiny_bundle, "-o", out, "--genes", "ERBB2", "--mpp", 0.7)
    for extra in ((), ("--scene", "small")):
        assert chrep("predict", path, *common, *extra).code == 0
    assert chrep("predict", slide, *common).code == 0
    names = ("two", "two small", "SYNTHETIC_P1A")
    default, table, expected = (anndata.read_h5ad(out / f"{name}.h5ad") for name in names)
    assert default.uns["chrep"]["slide_scene"] == "large"  # which the other one did not replace
    assert table.uns["chrep"]["slide_scene"] == "small"
    np.testing.assert_array_equal(table.layers["calibrated"], expected.layers["calibrated"])
    assert read_prediction(out / "two small.h5ad").slide.scene == "small"


def test_formats_and_json(chrep, slide, tiny_bundle, out):
    args = ("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, "--genes", "ERBB2")
    for format, suffix in (("csv", ".csv"), ("geojson", ".geojson")):
        (row,) = json.loads(chrep(*args, "--format", format, "--json").out)
        assert row["file"] == str(out / f"SYNTHETIC_P1A{suffix}") and row["genes"] == 1
    assert sorted(p.name for p in out.iterdir()) == ["SYNTHETIC_P1A.csv", "SYNTHETIC_P1A.geojson"]


def test_a_slide_that_fails_does_not_stop_the_others(chrep, tiny_cohort, tiny_bundle, out, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes((tiny_cohort / "SYNTHETIC_P1A.jpg").read_bytes()[:3000])
    good = [tiny_cohort / f"SYNTHETIC_P1{x}.jpg" for x in "AB"]
    result = chrep("predict", good[0], bad, good[1], "--mpp", 0.7, "-b", tiny_bundle, "-o", out)
    assert result.code == 1
    assert result.err.count("\n") == 1 and str(bad) in result.err
    assert "2 of 3 slides predicted" in result.out
    assert sorted(p.name for p in out.glob("*.*") if p.is_file()) == [
        "SYNTHETIC_P1A.h5ad",
        "SYNTHETIC_P1B.h5ad",
    ]


class TestTheSameCommandAgain:
    """Of several slides, only those are predicted that are missing."""

    @pytest.fixture
    def again(self, chrep, tiny_cohort, tiny_bundle, out, tmp_path):
        """Predict two good slides and a damaged one; each call gives the rows by the slides' names."""
        bad = tmp_path / "bad.jpg"
        bad.write_bytes((tiny_cohort / "SYNTHETIC_P1A.jpg").read_bytes()[:3000])
        slides = [tiny_cohort / "SYNTHETIC_P1A.jpg", bad, tiny_cohort / "SYNTHETIC_P1B.jpg"]

        def run(*args, mpp=0.7):
            command = ("predict", *slides, "--mpp", mpp, "-b", tiny_bundle, "-o", out, "--genes", "ERBB2")
            result = chrep(*command, *args, "--json")
            return {Path(row["slide"]).stem: row for row in json.loads(result.out)}

        return run

    @staticmethod
    def there(rows):
        return {name for name, row in rows.items() if row.get("already_there")}

    def test_only_what_failed_is_tried_again(self, again, out, tiny_cohort, tmp_path):
        first = again()
        assert self.there(first) == set() and [row["attempts"] for row in first.values()] == [1, 1, 1]
        files = {path: path.stat().st_mtime_ns for path in out.glob("*.h5ad")}
        second = again()
        assert self.there(second) == {"SYNTHETIC_P1A", "SYNTHETIC_P1B"}
        assert second["bad"]["attempts"] == 2 and "damaged" in second["bad"]["error"]
        assert {path: path.stat().st_mtime_ns for path in out.glob("*.h5ad")} == files
        shutil.copy(tiny_cohort / "SYNTHETIC_P2A.jpg", tmp_path / "bad.jpg")
        third = again()
        assert third["bad"]["tiles"] > 0 and (out / "bad.h5ad").exists()
        assert self.there(again()) == set(third)

    def test_a_lost_prediction_and_another_request_are_made_anew(self, again, out):
        again()
        (out / "SYNTHETIC_P1A.h5ad").unlink()
        assert self.there(again()) == {"SYNTHETIC_P1B"} and (out / "SYNTHETIC_P1A.h5ad").exists()
        assert self.there(again("--region", "0,0,300,768")) == set()
        assert self.there(again()) == set()  # as those of the region had taken their place
        assert self.there(again(mpp=0.68)) == set()
        assert self.there(again("--again", mpp=0.68)) == set()

    def test_a_slide_that_has_changed_is_predicted_anew(self, chrep, tiny_cohort, tiny_bundle, out, tmp_path):
        slides = [shutil.copy(tiny_cohort / f"SYNTHETIC_P1{x}.jpg", tmp_path / f"{x}.jpg") for x in "AB"]
        command = ("predict", *slides, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, "--genes", "ERBB2")
        assert "2 of 2 slides predicted\n" in chrep(*command).out
        shutil.copy(tiny_cohort / "SYNTHETIC_P2A.jpg", slides[0])
        result = chrep(*command)
        assert "2 of 2 slides predicted, 1 of them before" in result.out and "already there" in result.out

    def test_a_record_that_is_damaged_costs_a_prediction(self, again, out):
        again()
        (out / ".chrep" / "SYNTHETIC_P1A.h5ad.json").write_text("{")
        assert self.there(again()) == {"SYNTHETIC_P1B"}

    def test_nothing_is_loaded_where_all_is_there(self, chrep, tiny_cohort, tiny_bundle, out, monkeypatch):
        slides = [tiny_cohort / f"SYNTHETIC_P1{x}.jpg" for x in "AB"]
        command = ("predict", *slides, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, "--genes", "ERBB2")
        assert chrep(*command).code == 0
        monkeypatch.setattr("chrep_model.prediction.predictor.Predictor", None)
        assert chrep(*command).code == 0
        assert chrep(*command, "--again").code == 1


@pytest.mark.parametrize(("given", "said"), [("fp8", "--precision 'fp8'"), ("bf16", "fp32 alone")])
def test_a_precision_that_is_not_there(refused, slide, tiny_bundle, out, given, said):
    """The tiny bundle's encoder is the built-in one."""
    assert said in refused("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, "--precision", given)


def test_shards_share_the_slides_out(chrep, tiny_cohort, tiny_bundle, tmp_path):
    slides = sorted(tiny_cohort.glob("*.jpg"))
    found = []
    for i in (1, 2):
        folder = tmp_path / f"shard{i}"
        args = ("--mpp", 0.7, "-b", tiny_bundle, "-o", folder, "--shard", f"{i}/2", "--genes", "ERBB2")
        assert chrep("predict", *slides, *args).code == 0
        found.append({p.stem for p in folder.glob("*.h5ad")})
    assert found[0] | found[1] == {p.stem for p in slides} and not found[0] & found[1]
    empty = chrep("predict", slides[0], *args[:-4], "--shard", "2/2")
    assert empty.code == 0 and "no slide falls into this shard" in empty.err


def test_a_slide_without_scale(refused, slide, tiny_bundle, out):
    line = refused("predict", slide, "-b", tiny_bundle, "-o", out)
    assert f"{slide}: the slide does not say its µm per pixel." in line and "--mpp" in line


def test_a_slide_too_coarse(refused, slide, tiny_bundle, out):
    line = refused("predict", slide, "--mpp", 2, "-b", tiny_bundle, "-o", out)
    assert f"{slide}: the slide has 2 µm per pixel, too coarse" in line and "finer scan" in line


@pytest.mark.real
def test_a_real_slide_too_coarse(refused, shared_data, tiny_bundle, out):
    slide = shared_data / "her2st_lowres" / "A1.jpg"
    mpp = float(anndata.read_h5ad(slide.with_suffix(".h5ad")).uns["um_per_px"])
    assert "too coarse" in refused("predict", slide, "--mpp", mpp, "-b", tiny_bundle, "-o", out)


def test_an_impossible_scale(refused, slide, tiny_bundle, out):
    assert "0.05 and 100" in refused("predict", slide, "--mpp", 0, "-b", tiny_bundle, "-o", out)


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder", "truncated", "no picture in it"])
def test_what_is_no_slide(refused, write_pyramid, tiny_bundle, out, tmp_path, kind):
    path = tmp_path / "slide.tif"
    if kind == "folder":
        path.mkdir()
    elif kind == "truncated":
        pixels = np.random.default_rng(0).integers(0, 255, (1024, 1024, 3), np.uint8)
        whole = write_pyramid(pixels, name="whole.ome.tif", levels=2)
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    elif kind != "missing":
        path.write_bytes(
            {"empty": b"", "text": b"gene\tcount\n", "no picture in it": b"II*\0\x08\0\0\0\0\0"}[kind]
        )
    line = refused("predict", path, "-b", tiny_bundle, "-o", out)
    assert str(path) in line and line.rstrip().endswith(".")


@pytest.mark.real
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_truncated_svs(refused, shared_data, tiny_bundle, out, tmp_path, share):
    whole = (shared_data / "slides" / "CMU-1-Small-Region.svs").read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(whole[: int(share * len(whole))])
    assert str(path) in refused("predict", path, "-b", tiny_bundle, "-o", out)


def test_a_slide_without_tissue(refused, write_pyramid, tiny_bundle, out):
    path = write_pyramid(np.full((1024, 1024, 3), 240, np.uint8))
    line = refused("predict", path, "-b", tiny_bundle, "-o", out)
    assert f"{path}: no tissue was found" in line


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ("5000,0,100,100", "lies outside of the slide, which has 768 x 768 px"),
        ("0,0,0,10", "is no rectangle"),
        ("0,0,10", "is no rectangle"),
        ("a,b,c,d", "is no list of numbers"),
    ],
)
def test_regions_that_are_none(refused, slide, tiny_bundle, out, region, said):
    assert said in refused("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", out, "--region", region)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0"])
def test_shards_that_are_none(refused, slide, tiny_bundle, out, shard):
    assert "--shard" in refused("predict", slide, "-b", tiny_bundle, "-o", out, "--shard", shard)


def test_an_unknown_gene(refused, slide, tiny_bundle, out):
    line = refused("predict", slide, "-b", tiny_bundle, "-o", out, "--genes", "ERBB2,ERBB22")
    assert f"{tiny_bundle}: " in line and "no gene 'ERBB22'" in line and "ERBB2" in line.split("Nearest")[1]


def test_an_unknown_format_and_device(refused, slide, tiny_bundle, out):
    common = ("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", out)
    assert "h5ad, zarr" in refused(*common, "--format", "xlsx")
    assert "too many for GeoJSON" in refused(*common, "--format", "geojson")
    assert "--device auto or cpu" in refused(*common, "--device", "cuda:77")


def test_the_output_folder_is_a_file(refused, slide, tiny_bundle, tmp_path):
    (tmp_path / "file").write_text("")
    line = refused("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", tmp_path / "file" / "sub")
    assert "cannot be written" in line and "Choose another folder" in line


def test_counts_beside_the_slide_are_not_overwritten(refused, cohort, tiny_bundle):
    before = (cohort / "SYNTHETIC_P1A.h5ad").read_bytes()
    slide = cohort / "SYNTHETIC_P1A.jpg"
    assert "not overwritten" in refused("predict", slide, "--mpp", 0.7, "-b", tiny_bundle, "-o", cohort)
    assert (cohort / "SYNTHETIC_P1A.h5ad").read_bytes() == before


def test_two_slides_of_one_name(refused, slide, tiny_bundle, out, tmp_path):
    other = tmp_path / "SYNTHETIC_P1A.png"
    shutil.copy(slide, other)
    assert "would both be written" in refused("predict", slide, other, "-b", tiny_bundle, "-o", out)


class TestBundlesThatDoNotFit:
    """The bundle is refused before the slide is looked at."""

    @pytest.fixture
    def rejected(self, refused, slide, bundle, out):
        return lambda: refused("predict", slide, "--mpp", 0.7, "-b", bundle, "-o", out)

    def change_card(self, bundle, **changes):
        file = bundle / "card.json"
        card = Card.model_validate_json(file.read_bytes())
        file.write_text(card.model_copy(update=changes).sealed().model_dump_json())

    def test_no_bundle(self, refused, slide, tmp_path, out):
        assert "no card.json" in refused("predict", slide, "-b", tmp_path, "-o", out)

    def test_a_hash(self, rejected, bundle):
        with (bundle / "weights.safetensors").open("r+b") as stream:
            stream.seek(2000)
            stream.write(b"\x01\x02\x03")
        assert "weights.safetensors" in (line := rejected()) and "hash differs" in line

    def test_a_lost_file(self, rejected, bundle):
        shutil.rmtree(bundle / "gallery.zarr")
        assert "has lost gallery.zarr" in rejected()

    def test_genes(self, rejected, bundle):
        self.change_card(bundle, genes=41)
        assert "41 genes, the file has 40" in rejected()

    def test_the_encoder(self, rejected, bundle):
        self.change_card(bundle, encoder_id="0" * 16)
        assert "is not the one that this bundle was trained on" in rejected()

    def test_a_damaged_card(self, rejected, bundle):
        (bundle / "card.json").write_text("{")
        assert "card.json cannot be understood" in rejected()
