"""README.md, docs and the site: pictures there, used and described; pages listed, short and up to date."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
import yaml
from PIL import Image

from chrep_model.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DRAWINGS = sorted((ROOT / "docs" / "images").glob("*.svg"))
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
    assert PICTURES and DRAWINGS and {*PICTURES, *DRAWINGS} <= shown


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_each_picture_is_of_a_small_screen_and_quickly_loaded(picture):
    assert picture.stat().st_size < MOST_BYTES
    with Image.open(picture) as image:
        assert image.size == SIZE


def test_the_tour_is_short_and_linked():
    assert 1 <= len(pictures_of(ROOT / "docs" / "tour.md")) <= 10
    assert "(docs/tour.md)" in PAGES[0].read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").split()) <= 600


def test_every_page_is_in_the_site():
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = re.findall(r"[\w-]+\.md", str(nav))
    assert len(listed) == len(set(listed))
    made = {"index.md", "contributing.md", "changelog.md", "command-line.md"}
    assert set(listed) - made == {page.name for page in PAGES[2:]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_source_that_are_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|yml|sh))`", text):
        places = (ROOT, ROOT / "src", ROOT / "src/chrep_model", ROOT / "src/chrep_model/slides")
        assert any((place / name).is_file() for place in places), f"{page.name} names {name}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|`)make ([a-z0-9-]+)", text, re.M):
        assert re.search(rf"^(?:[\w-]+ )*{name}(?: [\w-]+)*:", makefile, re.M), f"no make {name}"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    return import_module


def test_the_picture_of_the_rooms_is_up_to_date(tool):
    drawn = tool("draw_rooms").draw()
    assert drawn == (ROOT / "docs/images/rooms.svg").read_text(encoding="utf-8"), "run tools/draw_rooms.py"


def test_the_page_of_the_command_line_describes_every_command(tool):
    page = tool("site_pages").command_line()
    for name, command in typer.main.get_command(app).commands.items():
        assert f"## chrep {name}\n" in page
        for option in command.params:
            assert option.hidden or all(form in page for form in option.opts if form.startswith("-"))


def test_the_page_of_the_architecture_lists_every_room(tool):
    page = tool("site_pages").on_page_markdown((ROOT / "docs/architecture.md").read_text(encoding="utf-8"))
    assert re.search(r"^\| `chrep_model/slides` \| \w+ .*\|$", page, re.M)
    assert "<!--" not in page
