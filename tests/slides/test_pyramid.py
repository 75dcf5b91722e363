import numpy as np
import pytest
import tifffile
from PIL import Image

from chrep_model.slides.slide import open_slide

RNG = np.random.default_rng(0)


def test_file_levels_are_shown_as_they_are(write_pyramid):
    image = RNG.integers(0, 256, (1500, 1100, 3), dtype=np.uint8)
    with open_slide(write_pyramid(image, levels=2)) as slide:
        arrays = slide.pyramid()
        assert [a.shape for a in arrays] == [(1500, 1100, 3), (750, 550, 3)]
        assert all(a.dtype == np.uint8 for a in arrays)
        assert arrays[0].chunksize == (1024, 1024, 3)
        for i, array in enumerate(arrays):
            np.testing.assert_array_equal(
                array.compute(scheduler="threads"), slide.read(0, 0, *array.shape[:2], level=i)
            )
            np.testing.assert_array_equal(
                array[700:733, 500:540, 1].compute(), slide.read(700, 500, 33, 40, level=i)[..., 1]
            )


def test_missing_levels_are_means_of_four(write_pyramid):
    image = RNG.integers(0, 256, (2500, 4101, 3), dtype=np.uint8)
    with open_slide(write_pyramid(image, levels=1, tile=240)) as slide:
        arrays = slide.pyramid()
        assert [a.shape[:2] for a in arrays] == [(2500, 4101), (1250, 2050), (625, 1025), (312, 512)]
        assert arrays[0].chunksize == (960, 960, 3)
        blocks = image[:, :4100].reshape(1250, 2, 2050, 2, 3).astype(float).mean((1, 3))
        np.testing.assert_array_equal(arrays[1].compute(), np.floor(blocks + 0.5))


def test_names_follow_the_content(write_pyramid):
    image = RNG.integers(0, 256, (1500, 1100, 3), dtype=np.uint8)
    first, copy = (write_pyramid(image, levels=1, name=n) for n in ("a.ome.tif", "b.ome.tif"))
    other = write_pyramid(255 - image, levels=1, name="c.ome.tif")
    names = []
    for path in (first, copy, other):
        with open_slide(path) as slide:
            names.append([a.name for a in slide.pyramid()])
    copy.write_bytes(first.read_bytes())  # tifffile gives each file an id of its own
    with open_slide(copy) as slide:
        assert [a.name for a in slide.pyramid()] == names[0]
    assert not set(names[0]) & set(names[2])


@pytest.mark.parametrize("max_px", [100, 700, 5000])
def test_thumbnail_is_the_whole_slide(write_pyramid, max_px):
    rows, cols = np.mgrid[:1200, :900]
    image = np.stack([rows * 255 // 1200, cols * 255 // 900, rows * 0 + 50], -1).astype(np.uint8)
    with open_slide(write_pyramid(image, levels=2)) as slide:
        thumbnail, downsample = slide.thumbnail(max_px)
        assert max(thumbnail.shape) == min(max_px, 1200)
        assert downsample == pytest.approx(1200 / min(max_px, 1200))
        row, col = thumbnail.shape[0] // 3, thumbnail.shape[1] // 2
        source = image[int((row + 0.5) * downsample), int((col + 0.5) * downsample)]
        np.testing.assert_allclose(thumbnail[row, col].astype(int), source, atol=3)
        assert slide.thumbnail(max_px)[0] is thumbnail
        assert not thumbnail.flags.writeable


@pytest.mark.parametrize("max_px", [333, 700, 2900])
def test_a_thumbnail_in_pieces_is_that_of_the_whole(write_pyramid, max_px):
    image = RNG.integers(0, 256, (3000, 700, 3), dtype=np.uint8)
    with open_slide(write_pyramid(image, levels=1, tile=256)) as slide:
        found, downsample = slide.thumbnail(max_px)
        *_, source = (a for a in slide.pyramid() if a.shape[0] >= max_px)
        size = found.shape[1], found.shape[0]
        whole = Image.fromarray(source.compute()).resize(size, Image.Resampling.BOX)
    assert found.shape[0] == max_px
    assert downsample == pytest.approx(3000 / max_px)
    assert np.abs(found.astype(int) - np.asarray(whole)).max() <= 1


def test_a_slide_of_sixty_thousand_pixels_needs_little_memory(tmp_path):
    """Opened, shown and read in a process of its own, whose peak of memory is what counts."""
    import subprocess
    import sys

    path = tmp_path / "huge.tif"
    tile = np.full((512, 512, 3), 230, np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for side in (60_000, 15_000, 3_750):
            count = (-(-side // 512)) ** 2
            # Most tiles are left out, as scanners do on glass: the grid is what makes a slide large.
            tiles = (tile if i % 37 == 0 else None for i in range(count))
            options = {"photometric": "rgb", "compression": "zlib", "subfiletype": int(side < 60_000)}
            writer.write(tiles, shape=(side, side, 3), dtype="u1", tile=(512, 512), metadata=None, **options)
    code = f"""
import resource
from chrep_model.slides.slide import open_slide
import dask.array
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slide = open_slide({str(path)!r}, mpp=0.25)
assert [level.downsample for level in slide.levels] == [1, 4, 16], slide.levels
arrays = slide.pyramid()
assert arrays[-1].shape == (937, 937, 3), arrays[-1].shape
assert slide.read(0, 0, 512, 512).max() == 230
arrays[0][30_000:31_000, 30_000:31_000].compute()
slide.thumbnail()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600_000  # kB; the slide has 10.8 GB of pixels
