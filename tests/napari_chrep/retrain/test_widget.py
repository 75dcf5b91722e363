"""The widget in a real viewer: start, look on, decide; and what stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QPoint, Qt

from chrep_model.bundle import load_bundle
from napari_chrep.retrain.retrainer import Retrainer
from napari_chrep.state.viewers import kept_for

LONG_MS = 120_000


class Retraining:
    """The widget, driven by mouse and keys."""

    def __init__(self, desk, bundle):
        self.desk, self.qtbot, self.bundle = desk, desk.qtbot, bundle
        desk.load(bundle)
        self.widget = desk.dock("Retrain")
        self.retrainer = self.widget.retrainer

    def click(self, button):
        assert button.isEnabled() and not button.isHidden(), button.text()
        self.qtbot.mouseClick(button, Qt.MouseButton.LeftButton, pos=QPoint(8, button.height() // 2))

    def type(self, name, text):
        field = self.widget.form.fields[name]
        field.selectAll()
        self.qtbot.keyClicks(field, text)

    def add(self, folder: Path):
        self.widget.cohort.add([folder])
        self.qtbot.waitUntil(lambda: len(self.widget.cohort.cohort or ()) == 3, timeout=LONG_MS)

    def until(self, state):
        self.qtbot.waitUntil(lambda: self.retrainer.state == state, timeout=LONG_MS)

    @property
    def table(self):
        return [[cell.text for cell in row] for row in self.widget.outcome.scores.rows]


@pytest.fixture
def retraining(desk, small_bundle, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return Retraining(desk, Path(shutil.copytree(small_bundle, folder / "small.chrep")))


def test_from_start_to_use_and_back(retraining, tiny_cohort, small_cohort):
    widget, session = retraining.widget, retraining.desk.session
    before, folder = load_bundle(retraining.bundle).hash, retraining.bundle.parent
    assert not widget.start.isEnabled() and "Add sections" in widget.estimate.text()
    retraining.add(tiny_cohort)
    retraining.qtbot.waitUntil(lambda: widget.estimate.text().startswith("About"), timeout=LONG_MS)
    assert "tile" in widget.estimate.text() and "4 models" in widget.estimate.text()

    retraining.type("folds", "many")
    assert not widget.start.isEnabled() and "Correct the value" in widget.start.toolTip()
    assert widget.form.faults["folds"].text() == "a number from 0"
    retraining.type("folds", "2")
    assert "in turn" in widget.form.faults["folds"].text()

    retraining.click(widget.start)
    assert retraining.retrainer.state == "running" and not widget.cancel.isHidden()
    retraining.until("outcome")
    assert session.bundle.hash == before  # nothing is in use before the user says so
    assert widget.curves.lines and all(points for points in widget.curves.lines.values())
    assert any(pcc is not None for points in widget.curves.lines.values() for *_, pcc in points)
    rows = retraining.table
    assert [row[0] for row in rows] == [small_cohort.names[2], f"{small_cohort.names[0]} ✱", "Mean"]
    assert float(rows[0][4]) == pytest.approx(float(rows[0][3]) - float(rows[0][2]), abs=0.0011)
    assert "flatters" in widget.outcome.how.text() and "has not seen" in widget.outcome.verdict.text()

    retraining.click(widget.outcome.use)
    retraining.qtbot.waitUntil(lambda: session.bundle.hash != before, timeout=LONG_MS)
    assert Path(session.bundle.path) == folder / "small_calibrated.chrep"
    assert sorted(path.name for path in folder.iterdir()) == ["small.chrep", "small_calibrated.chrep"]
    assert load_bundle(retraining.bundle).hash == before
    retraining.desk.wait()
    retraining.click(widget.undo)
    retraining.qtbot.waitUntil(lambda: session.bundle.hash == before, timeout=LONG_MS)
    retraining.desk.wait()


@pytest.mark.slow
def test_cancelled_interrupted_and_gone_on_with(retraining, tiny_cohort, make_napari_viewer):
    widget, session, retrainer = retraining.widget, retraining.desk.session, retraining.retrainer
    before, folder = load_bundle(retraining.bundle).hash, retraining.bundle.parent
    retraining.add(tiny_cohort)
    widget.form.presets["train"].setChecked(True)
    retraining.type("folds", "0")
    retraining.click(widget.start)
    retraining.click(widget.cancel)
    assert widget.cancel.text() == "Cancelling…"
    retraining.until("idle")
    assert "as it was" in widget.status.text() and session.bundle.hash == before
    gone = lambda: [path.name for path in folder.iterdir()] == ["small.chrep"]  # noqa: E731
    retraining.qtbot.waitUntil(gone, timeout=LONG_MS)

    retraining.click(widget.start)
    second = lambda: len(widget.curves.lines) > 2 or retrainer.state == "outcome"  # noqa: E731
    retraining.qtbot.waitUntil(second, timeout=LONG_MS)
    retrainer._process.kill()  # as a crash would
    retraining.until("interrupted")
    assert "Resume" in widget.status.text() and session.bundle.hash == before
    # A new window finds it
    other = kept_for(make_napari_viewer(), Retrainer)
    assert other.state == "interrupted" and other.job.out == retrainer.job.out
    retraining.click(widget.resume)
    retraining.until("outcome")
    assert "Not compared" in widget.outcome.how.text() and widget.outcome.table.isHidden()
    retraining.click(widget.outcome.discard)
    retraining.qtbot.waitUntil(gone, timeout=LONG_MS)
    assert retrainer.state == "idle" and session.bundle.hash == before


@pytest.mark.slow
def test_the_open_sections_spots_join(retraining, tiny_cohort, small_cohort, canaries, monkeypatch):
    """In a folder whose Python files must not be run."""
    downloaded, ran = canaries
    monkeypatch.chdir(downloaded)
    widget, session = retraining.widget, retraining.desk.session
    assert not widget.add_spots.isEnabled()
    section = small_cohort.sections[2]
    retraining.desk.open(section.slide_path)
    retraining.click(widget.add_spots)
    retraining.until("outcome")
    assert list(ran.iterdir()) == []
    assert "flatter" in widget.outcome.how.text()
    retraining.click(widget.outcome.use)
    retraining.qtbot.waitUntil(lambda: session.bundle.path != retraining.bundle, timeout=LONG_MS)
    assert [s["name"] for s in session.bundle.card.sections] == list(small_cohort.names)
    retraining.desk.wait()


def test_a_failure_is_told_and_leaves_nothing(retraining, tiny_cohort, tmp_path):
    """The cohort is damaged after it was checked; then the window is closed in the middle of a run."""
    widget, before = retraining.widget, len(notification_manager.records)
    copy = Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))
    retraining.add(copy)
    for path in copy.glob("*.h5ad"):
        path.write_bytes(b"nothing")
    retraining.click(widget.start)
    retraining.until("idle")
    said = [record.message for record in notification_manager.records[before:]]
    assert len(said) == 1 and ".h5ad" in said[0]
    assert "as it was" in widget.status.text()
    gone = lambda: [path.name for path in retraining.bundle.parent.iterdir()] == ["small.chrep"]  # noqa: E731
    retraining.qtbot.waitUntil(gone, timeout=LONG_MS)

    retraining.click(widget.start)
    process = retraining.retrainer._process
    retraining.desk.viewer.window.remove_dock_widget(widget)
    widget.deleteLater()
    retraining.qtbot.waitUntil(lambda: retraining.retrainer._process is not process, timeout=LONG_MS)
