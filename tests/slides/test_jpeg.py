"""JPEG streams that end unusually are read where none of their pixels can be missing."""

import imagecodecs
import numpy as np
import pytest

from chrep_model.slides.backends.jpeg import complete, frame_size

END = b"\xff\xd9"


@pytest.fixture(scope="module")
def stream(make_tissue):
    return imagecodecs.jpeg8_encode(make_tissue(128, 128), 90)


def test_bytes_behind_the_end_are_no_part_of_it(stream):
    for more in (0, 1, 70, 5000):
        for filling in (b"\0", b"\xff", b"junk"):
            found = complete(stream + filling * more, imagecodecs.jpeg8_decode)
            np.testing.assert_array_equal(imagecodecs.jpeg8_decode(found), imagecodecs.jpeg8_decode(stream))
    assert frame_size(stream) == (128, 128)


def test_without_end_mark_a_stream_is_read_where_it_is_whole(stream):
    for more in (b"", bytes(300)):
        found = complete(stream[:-2] + more, imagecodecs.jpeg8_decode)
        np.testing.assert_array_equal(imagecodecs.jpeg8_decode(found), imagecodecs.jpeg8_decode(stream))


def test_without_end_mark_zeros_at_the_end_may_be_of_the_scan():
    """Be it a byte of zeros, or what follows each byte of 255."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(2000))
    flat = (np.full((8 * side, 8 * side, 3), 255, np.uint8) for side in range(1, 40))
    seen = set()
    for image in [*noise, *flat]:
        stream = imagecodecs.jpeg8_encode(image, 90)
        if stream[-3]:
            continue
        seen.add(stream[-4] == 255)
        found = complete(stream[:-2], imagecodecs.jpeg8_decode)
        np.testing.assert_array_equal(imagecodecs.jpeg8_decode(found), imagecodecs.jpeg8_decode(stream))
    assert seen == {True, False}


@pytest.mark.parametrize("cut", [4, 10, 200, 2000])
def test_what_is_cut_is_refused(stream, cut):
    for more in (b"", bytes(cut), bytes(5000)):  # also where zeros stand for what is missing
        with pytest.raises(ValueError, match="too early"):
            complete(stream[:-cut] + more, imagecodecs.jpeg8_decode)


def test_streams_in_several_scans_are_refused_without_their_end(make_tissue):
    """A scan may be missing as a whole, and nothing would tell."""
    import io

    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(make_tissue(128, 128)).save(held, "JPEG", progressive=True)
    data = held.getvalue()
    assert data.endswith(END)
    assert complete(data + bytes(100), imagecodecs.jpeg8_decode) == data
    with pytest.raises(ValueError, match="too early"):
        complete(data[:-2], imagecodecs.jpeg8_decode)


def test_streams_with_restarts_are_refused_without_their_end(make_tissue):
    import io

    from PIL import Image

    held = io.BytesIO()
    Image.fromarray(make_tissue(128, 128)).save(held, "JPEG", restart_marker_blocks=8)
    data = held.getvalue()
    assert b"\xff\xdd" in data
    with pytest.raises(ValueError, match="too early"):
        complete(data[:-2], imagecodecs.jpeg8_decode)


def test_no_frame_header_is_an_error(stream):
    with pytest.raises(ValueError, match="frame header"):
        frame_size(b"\xff\xd8" + bytes(100))
