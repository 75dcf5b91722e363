"""Writing as a whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chrep_model.errors import BundleError, PredictionError
from chrep_model.files import make_writable, write_atomically


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_when_it_is_complete(tmp_path):
    target = tmp_path / "a.txt"
    with write_atomically(target) as part:
        part.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / "old").write_text("old")
    with write_atomically(target) as part:
        part.mkdir()
        (part / "new").write_text("new")
    assert names_in(target) == ["new"]
    assert names_in(tmp_path) == ["a.zarr"]


def test_an_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "a.zarr"
    target.mkdir()
    (target / "old").write_text("old")
    rename = Path.rename

    def refuse(self, to):
        if "partial" in self.name:
            raise OSError(13, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PredictionError, match="Permission denied"), write_atomically(target) as part:
        part.mkdir()
    assert names_in(target) == ["old"]
    assert names_in(tmp_path) == ["a.zarr"]


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(target) as part:
        part.write_text("half")
        1 / 0  # noqa: B018
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_file_that_the_disk_has_no_room_for_when_it_is_synced(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PredictionError, match="No space left"), write_atomically(target) as part:
        part.write_text("new")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_file_never_replaces_a_folder(tmp_path):
    target = tmp_path / "a"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(PredictionError, match="cannot be written"), write_atomically(target) as part:
        part.write_text("new")
    assert names_in(tmp_path) == ["a"] and names_in(target) == ["kept"]


def test_a_folder_that_another_process_wrote_first_stays(tmp_path):
    target = tmp_path / "a.zarr"
    with write_atomically(target, once=True) as late:
        late.mkdir()
        (late / "late").touch()
        with write_atomically(target, once=True) as early:
            early.mkdir()
            (early / "early").touch()
    assert names_in(tmp_path) == ["a.zarr"] and names_in(target) == ["early"]


def test_the_error_has_the_class_and_words_that_were_asked_for(tmp_path):
    (tmp_path / "file").touch()
    words = (BundleError, "the bundle cannot be kept", "Try another.")
    with pytest.raises(BundleError) as caught, write_atomically(tmp_path / "file" / "a", *words) as part:
        part.write_text("new")
    told = "the bundle cannot be kept (Not a directory). Try another."
    assert str(caught.value) == f"{tmp_path}/file/a: {told}"


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("cannot write (errno = 28, ...)")]
)
def test_a_full_disk_is_said(tmp_path, error):
    with pytest.raises(PredictionError, match=r"a.h5ad: cannot be written \(No space left on device\)"):  # noqa: SIM117
        with write_atomically(tmp_path / "a.h5ad") as part:
            part.write_text("half")
            raise error
    assert not names_in(tmp_path)


def test_a_folder_where_a_file_is(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PredictionError, match=r"file.*cannot be written.*Choose another folder"):
        make_writable(tmp_path / "file" / "out")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PredictionError, match="Permission denied"):
            make_writable(tmp_path)
    finally:
        tmp_path.chmod(0o700)
