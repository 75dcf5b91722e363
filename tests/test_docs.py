"""The pictures of README.md and docs: there, used, described, and few enough to be looked at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PICTURES = sorted((ROOT / "docs" / "images").glob("*.png"))
#: A window on a screen of 13 inches.
SIZE, MOST_BYTES = (1280, 800), 350_000


def pictures_of(page: Path) -> list[tuple[str, Path]]:
    """What is said of each picture of a page, and its file."""
    found = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [(words, (page.parent / name).resolve()) for words, name in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_picture_and_page_that_is_named_is_there(page):
    for words, path in pictures_of(page):
        assert path.is_file(), f"{page.name} shows {path}"
        assert len(words) > 20, f"{page.name} does not say what is on {path.name}"
    for name in re.findall(r"(?<!!)\[[^\]]*\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in name or (page.parent / name).exists(), f"{page.name} links to {name}"


def test_each_picture_is_used():
    shown = {path for page in PAGES for _, path in pictures_of(page)}
    assert PICTURES and set(PICTURES) <= shown


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_each_picture_is_of_a_small_screen_and_quickly_loaded(picture):
    assert picture.stat().st_size < MOST_BYTES
    with Image.open(picture) as image:
        assert image.size == SIZE


def test_the_tour_is_short_and_linked():
    assert 1 <= len(pictures_of(ROOT / "docs" / "tour.md")) <= 10
    assert "(docs/tour.md)" in PAGES[0].read_text(encoding="utf-8")
