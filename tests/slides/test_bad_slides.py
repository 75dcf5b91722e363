"""Files that cannot be used: each is one clear error that names the file and what to do."""

import os

import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.errors import SlideError
from chrep_model.slides.backends import image as image_backend
from chrep_model.slides.backends import openslide as openslide_backend
from chrep_model.slides.slide import is_slide, open_slide

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (600, 700, 3), dtype=np.uint8)


def _refused(path, match):
    with pytest.raises(SlideError, match=match) as caught:
        open_slide(path)
    assert caught.value.remedy
    assert str(path) in str(caught.value)
    assert not is_slide(path)


def test_absent_empty_folder_and_text(tmp_path):
    (tmp_path / "empty.svs").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.svs").write_text("Dear reader, this is a letter and no slide.")
    _refused(tmp_path / "absent.svs", "No such file")
    _refused(tmp_path / "empty.svs", "empty")
    _refused(tmp_path / "folder", "folder")
    _refused(tmp_path / "text.svs", "no slide that can be read")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    _refused(tmp_path / "pipe.svs", "no regular file")


def test_fluorescence_deep_and_grey_tiffs(tmp_path):
    tiled = {"tile": (64, 64)}
    tifffile.imwrite(tmp_path / "deep.tif", IMAGE.astype(np.uint16), photometric="rgb", **tiled)
    tifffile.imwrite(tmp_path / "grey.tif", IMAGE[..., 0], photometric="minisblack", **tiled)
    channels = np.moveaxis(IMAGE // 8, -1, 0)
    tifffile.imwrite(
        tmp_path / "fluo.ome.tif",
        channels,
        photometric="minisblack",
        metadata={"axes": "CYX"},
        ome=True,
        **tiled,
    )
    tifffile.imwrite(
        tmp_path / "cmyk.tif", np.dstack([IMAGE, IMAGE[..., 0]]), photometric="separated", **tiled
    )
    _refused(tmp_path / "deep.tif", "16-bit")
    _refused(tmp_path / "grey.tif", "1 channel")
    _refused(tmp_path / "fluo.ome.tif", "separate channels")
    _refused(tmp_path / "cmyk.tif", "SEPARATED")


def test_cut_off_tiff_names_the_first_tile_that_is_lost(write_pyramid, tmp_path):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, IMAGE, photometric="rgb", tile=(128, 128), metadata=None)
    path.write_bytes(path.read_bytes()[: -128 * 128 * 3 * 2 + 5])
    with pytest.raises(SlideError, match=r"cut short: 2 of 30 tiles of level 0 .* row 512, column 512"):
        open_slide(path)
    assert is_slide(path)  # it is one, and the reader is to say what is wrong with it
    for keep in (4, 8, 100, 1000):
        path.write_bytes(write_pyramid(IMAGE).read_bytes()[:keep])
        with pytest.raises(SlideError):
            open_slide(path)


def test_damaged_tile_is_an_error_with_its_place(write_pyramid):
    path = write_pyramid(IMAGE, compression="jpeg")
    with tifffile.TiffFile(path) as tif:
        page = tif.series[0].levels[1].keyframe
        offset, count = page.dataoffsets[1], page.databytecounts[1]
    data = bytearray(path.read_bytes())
    for start, stop in [(offset, offset + count), (offset + count // 2, offset + count)]:
        broken = data.copy()
        broken[start:stop] = bytes(stop - start)  # a hole, as an interrupted copy leaves it
        path.write_bytes(broken)
        with open_slide(path) as slide:
            slide.read(0, 0, 256, 256, level=1)
            with pytest.raises(SlideError, match=r"row 0, column 256 of level 1"):
                slide.read(0, 0, 300, 300, level=1)


def test_file_cut_while_open(write_pyramid):
    path = write_pyramid(IMAGE)
    with open_slide(path) as slide:
        os.truncate(path, 2000)
        with pytest.raises(SlideError, match=r"of level 0 cannot be read"):
            slide.read(0, 0, 600, 700)


def test_jpeg_tile_of_another_size_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, IMAGE[:256, :256], photometric="rgb", tile=(128, 128), compression="jpeg", metadata=None
    )
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0", offset, offset + count) + 5
    data[at : at + 4] = (64).to_bytes(2, "big") + (256).to_bytes(2, "big")  # as many pixels, folded otherwise
    path.write_bytes(data)
    with open_slide(path) as slide, pytest.raises(SlideError, match="instead of"):
        slide.read(0, 0, 10, 10)


def test_damaged_copies_never_crash(write_pyramid, tmp_path):
    good = np.frombuffer(
        write_pyramid(IMAGE[:200, :200], levels=2, compression="jpeg", tile=64).read_bytes(), "u1"
    )
    path = tmp_path / "bad.tif"
    for seed in range(100):
        rng = np.random.default_rng(seed)
        bad = good.copy()
        where = rng.integers(0, 2000 if seed % 2 else len(bad), 10)
        bad[where] = rng.integers(0, 256, 10)
        path.write_bytes(bad.tobytes())
        is_slide(path)
        try:
            with open_slide(path) as slide:
                if max(slide.shape) < 10_000:
                    slide.read(0, 0, *slide.shape)
        except SlideError:
            pass


def test_plain_pictures(tmp_path, recwarn):
    Image.fromarray(IMAGE).save(tmp_path / "good.png")
    Image.fromarray(IMAGE).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    (tmp_path / "head.png").write_bytes((tmp_path / "good.png").read_bytes()[:20])
    Image.fromarray(IMAGE[..., 0]).save(tmp_path / "grey.jpg")
    Image.fromarray(IMAGE).convert("CMYK").save(tmp_path / "cmyk.jpg")
    _refused(tmp_path / "head.png", "damaged or cut short")
    _refused(tmp_path / "grey.jpg", "mode L")
    _refused(tmp_path / "cmyk.jpg", "mode CMYK")
    with open_slide(tmp_path / "cut.jpg") as slide, pytest.raises(SlideError, match="cut short"):
        slide.read(0, 0, 5, 5)
    with open_slide(tmp_path / "good.png") as slide:
        assert slide.mpp is None
        np.testing.assert_array_equal(slide.read(100, 200, 300, 400), IMAGE[100:400, 200:600])


def test_huge_pictures_are_judged_by_their_header(tmp_path, monkeypatch, recwarn):
    path = tmp_path / "huge.png"
    Image.new("RGB", (16, 16)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    _refused(path, "60000 x 60000")
    # Large but allowed ones bring no warning of Pillow, and its limit stays what it was.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.fromarray(IMAGE).save(tmp_path / "large.png")
    with open_slide(tmp_path / "large.png") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 9, 9), IMAGE[:9, :9])
    assert not recwarn.list
    assert image_backend.MAX_DECODED_PX == 2_000_000_000


def test_without_openslide_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(openslide_backend.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.ndpi").write_bytes(b"II*\0 something")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    _refused(tmp_path / "a.ndpi", r"Hamamatsu NDPI is read with OpenSlide.*napari-chrep\[openslide\]")
    _refused(tmp_path / "folder", r"DICOM is read with OpenSlide")


def test_damaged_vendor_files(tmp_path):
    pytest.importorskip("openslide")
    (tmp_path / "a.mrxs").write_bytes(b"\xff\xd8\xff\xe0 no index")
    (tmp_path / "a.ndpi").write_bytes(b"II*\0" + bytes(100))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    _refused(tmp_path / "a.mrxs", "OpenSlide cannot open it")
    _refused(tmp_path / "a.ndpi", "OpenSlide cannot open it")
    _refused(tmp_path / "folder", "no DICOM slide can be opened")
