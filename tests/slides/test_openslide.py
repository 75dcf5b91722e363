"""Slides through OpenSlide: levels of DICOM, the scanned part, damage, and closing while threads read."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("openslide")

from chrep_model.errors import SlideError
from chrep_model.slides.backends.openslide import OpenSlideBackend
from chrep_model.slides.slide import open_slide

from .dicom_files import write_level

RNG = np.random.default_rng(0)
IMAGE = np.kron(RNG.integers(0, 256, (50, 70, 3), np.uint8), np.ones((8, 8, 1), np.uint8))[:391, :553]


def dicom(folder, spacings, **options):
    """Write a slide of three levels, each half of the one before, with these mm per pixel."""
    folder.mkdir()
    for number, spacing in enumerate(spacings):
        step = 2**number
        write_level(
            folder / f"{number}.dcm", IMAGE[::step, ::step], spacing, number=number,
            pad=number > 0, **options,
        )  # fmt: skip
    return folder


PADDED = [0.0005 * 553 / side for side in (553, 320, 192)]


@pytest.mark.parametrize("open_end", [False, True])
@pytest.mark.parametrize(
    "spacings",
    [(0.0005, 0.001, 0.002), (None, None, None), PADDED, (0.0005, None, 0.002)],
    ids=["said", "absent", "made of the padded sizes", "of some"],
)
def test_levels_that_are_padded_to_whole_tiles_lie_where_they_belong(tmp_path, spacings, open_end):
    slide = OpenSlideBackend(dicom(tmp_path / "slide", spacings, open_end=open_end))
    assert slide.shapes == ((391, 553), (196, 277), (98, 139))
    assert slide.downsamples == pytest.approx((1, 2, 4))
    assert slide.mpp_xy == (None if spacings[0] is None else pytest.approx((0.5, 0.5)))
    for level, (rows, cols) in enumerate(slide.shapes):
        step = 2**level
        np.testing.assert_array_equal(slide.read(level, 0, 0, rows, cols), IMAGE[::step, ::step])
    slide.close()


def test_a_place_of_a_small_level_is_the_same_place_of_level_0(tmp_path):
    """Although OpenSlide's own factors of the padded levels, 1.63 and 2.97, are none of this slide."""
    rows, cols = np.mgrid[:391, :553]
    smooth = np.stack([rows / 2, cols / 3, (rows + cols) / 5], -1).astype(np.uint8)
    folder = tmp_path / "slide"
    folder.mkdir()
    for number in range(3):
        level = smooth[:: 2**number, :: 2**number]
        write_level(folder / f"{number}.dcm", level, 0.0005 * 2**number, number=number, pad=number > 0)
    slide = OpenSlideBackend(folder)
    for level, factor in enumerate(slide.downsamples):
        for row, col in [(0, 0), (13, 27), (41, 66), (50, 83)]:
            found = slide.read(level, row, col, 8, 8)[0, 0].astype(float)
            # The gradients tell the place: 2 pixels a step down, 3 across.
            assert abs(found[0] * 2 - row * factor) <= 2 + factor / 2
            assert abs(found[1] * 3 - col * factor) <= 3 + factor / 2
    slide.close()


def test_levels_that_are_not_padded_follow_from_their_sizes(tmp_path):
    folder = tmp_path / "slide"
    folder.mkdir()
    for number in range(3):
        level = IMAGE[:: 2**number, :: 2**number]
        write_level(folder / f"{number}.dcm", level, None, number=number)
    slide = OpenSlideBackend(folder)
    assert slide.shapes == ((391, 553), (196, 277), (98, 139)) and slide.downsamples == (1, 2, 4)
    slide.close()


def test_a_folder_of_files_without_a_suffix_is_a_slide(tmp_path):
    folder = dicom(tmp_path / "slide", (0.0005, 0.001, 0.002))
    (folder / "folder").mkdir()
    for file in folder.glob("*.dcm"):
        file.rename(file.with_suffix(""))
    with open_slide(folder) as slide:
        assert [level.downsample for level in slide.levels] == pytest.approx([1, 2, 4])
        np.testing.assert_array_equal(slide.read(0, 0, 391, 553), IMAGE)


def test_a_damaged_header_beside_the_slide_is_no_reason_to_refuse_it(tmp_path):
    folder = dicom(tmp_path / "slide", (0.0005, 0.001, 0.002))
    (folder / "cut.dcm").write_bytes((folder / "1.dcm").read_bytes()[:700])
    (folder / "other.dcm").write_bytes(b"no DICOM")
    slide = OpenSlideBackend(folder / "0.dcm")
    assert slide.shapes[0] == (391, 553) and slide.shapes[1] == (196, 277)
    slide.close()


def test_the_scanned_part_is_known_and_the_rest_is_glass(write_scn):
    dark = np.full((300, 400, 3), 90, np.uint8)
    with open_slide(write_scn("a.scn", dark, (600, 500), (2000, 1500))) as slide:
        assert slide.shape == (1500, 2000) and slide.bounds == (600, 500, 400, 300)
        whole = slide.read(0, 0, 1500, 2000)
        inside = np.zeros((1500, 2000), bool)
        inside[500:800, 600:1000] = True
        assert (whole[~inside] == 255).all() and (whole[inside] < 120).all()


def test_a_slide_without_a_larger_canvas_has_no_bounds(tmp_path):
    slide = OpenSlideBackend(dicom(tmp_path / "slide", (0.0005, 0.001, 0.002)))
    assert slide.bounds is None
    slide.close()


CLOSED_WHILE_READ = """
import random, sys, threading, time
from pathlib import Path
from chrep_model.slides.backends.openslide import OpenSlideBackend

for turn in range(12):
    slide, said = OpenSlideBackend(Path(sys.argv[1])), []

    def read(seed):
        choose = random.Random(seed)
        try:
            while True:
                slide.read(0, choose.randrange(150), choose.randrange(300), 240, 250)
        except BaseException as error:
            said.append(type(error).__name__ + str(error).removeprefix(sys.argv[1]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for thread in threads: thread.start()
    time.sleep(random.Random(turn).uniform(0.005, 0.05))
    slide.close()
    for thread in threads: thread.join()
    assert said == ["SlideError: the slide has been closed. Open it again."] * 3, said
    slide.close()
print("fine")
"""


def test_closing_while_threads_read_ends_in_a_clear_error_and_no_crash(tmp_path):
    folder = dicom(tmp_path / "slide", (0.0005, 0.001, 0.002))
    done = subprocess.run(
        [sys.executable, "-c", CLOSED_WHILE_READ, str(folder)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr[-2000:]


def test_reads_go_on_while_others_read(tmp_path):
    """The handle is shared, not locked: two reads are under way at once."""
    slide = OpenSlideBackend(dicom(tmp_path / "slide", (0.0005, 0.001, 0.002)))
    both, plain = threading.Barrier(2, timeout=20), slide._shared.slide

    class Waiting:
        def read_region(self, *region):
            both.wait()
            return plain.read_region(*region)

        def close(self):
            plain.close()

    slide._shared.slide = Waiting()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: slide.read(0, 0, 0, 50, 50), range(2))
    np.testing.assert_array_equal(first, second)
    slide.close()


@pytest.fixture
def damaged(tmp_path, shared_data):
    """The real DICOM slide with two frames that are no JPEG any more."""
    folder = tmp_path / "damaged"
    shutil.copytree(shared_data / "slides" / "CMU-1-Small-Region-dicom", folder)
    file = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    starts, at = [], data.find(b"\xff\xd8\xff")
    while at >= 0:
        starts.append(at)
        at = data.find(b"\xff\xd8\xff", at + 3)
    for frame in (40, 60):
        data[starts[frame] : starts[frame] + 2] = b"\0\0"
    file.write_bytes(data)
    return folder


def corners(slide):
    return [
        (row, col)
        for row in range(0, slide.shape[0] - 256, 256)
        for col in range(0, slide.shape[1] - 256, 256)
    ]


def fails(slide, corner):
    try:
        slide.read(*corner, 256, 256)
    except SlideError as error:
        assert f"level 0 at row {corner[0]}, column {corner[1]}" in str(error)
        return True
    return False


def test_a_damaged_tile_spoils_no_other_region(damaged):
    with open_slide(damaged) as slide:
        places = corners(slide)
        one_by_one = [fails(slide, place) for place in places]
        with ThreadPoolExecutor(4) as pool:
            in_threads = list(pool.map(lambda place: fails(slide, place), places))
    alone = []
    for place in places:
        with open_slide(damaged) as slide:
            alone.append(fails(slide, place))
    assert 0 < sum(alone) < len(places) / 10
    assert one_by_one == in_threads == alone
