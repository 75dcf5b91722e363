"""Where the images of training sections are looked for, and what is taken for one."""

from __future__ import annotations

import shutil

import pytest

from chrep_model.slides.slide import open_slide
from napari_chrep.neighbours.training_images import find_images, usual_folders
from napari_chrep.state.settings import image_folder, remember_image_folder


@pytest.fixture
def names(bundle):
    return [str(section["name"]) for section in bundle.card.sections]


def test_the_files_on_the_card(bundle, names, tiny_cohort, tmp_path):
    found = find_images(bundle, [tmp_path / "not there", tmp_path, tiny_cohort])
    assert list(found) == names
    for section in bundle.card.sections:
        image = found[section["name"]]
        assert image.path == tiny_cohort / section["slide"]
        with image.open() as slide:
            assert slide.mpp.value == image.mpp == section["mpp"]


def test_another_file_of_that_name_that_is_an_image(bundle, names, tiny_cohort, tmp_path):
    picture = next(tiny_cohort.glob("*.jpg"))
    (tmp_path / f"{names[0]}.h5ad").write_bytes(b"counts")
    (tmp_path / f"{names[0]}.txt").write_text("notes")
    assert find_images(bundle, [tmp_path]) == {}
    shutil.copyfile(picture, tmp_path / f"{names[0]}.jpeg")
    shutil.copyfile(picture, tmp_path / f"{names[0]}2.jpeg")
    found = find_images(bundle, [tmp_path])
    assert {name: image.path.name for name, image in found.items()} == {names[0]: f"{names[0]}.jpeg"}


def test_the_first_folder_wins(bundle, names, tiny_cohort, tmp_path):
    name = bundle.card.sections[1]["slide"]
    shutil.copyfile(tiny_cohort / name, tmp_path / name)
    found = find_images(bundle, [tmp_path, tiny_cohort])
    assert found[names[1]].path.parent == tmp_path
    assert found[names[0]].path.parent == tiny_cohort


def test_a_folder_is_remembered(bundle, tiny_cohort, tmp_path):
    picture = next(tiny_cohort.glob("*.jpg"))
    with open_slide(picture, mpp=0.7) as slide:
        assert image_folder(bundle.card.cohort) is None
        assert usual_folders(bundle, slide) == [bundle.path.resolve().parent, tiny_cohort.resolve()]
        remember_image_folder(bundle.card.cohort, tmp_path)
        assert image_folder(bundle.card.cohort) == tmp_path
        assert usual_folders(bundle, None) == [tmp_path, bundle.path.resolve().parent]
