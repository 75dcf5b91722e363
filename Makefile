# Commands for people; each makes its environment ready first (tools/setup.sh: seconds if nothing is to do).
#
#   make demo          a small cohort, a model trained on it, a prediction, in demo/; napari opens on a display
#   make test          the tests in two processes, with or without a display; but for the slow ones
#   make test-all      all tests
#   make test-wheel    the wheel, installed where no source is: chrep demo, and the samples in napari
#   make screenshots   the pictures of README.md and docs/tour.md, in docs/images, with or without a display
#   make test-pyside6  those of the plugin on PySide6 instead of PyQt6, in .venv-pyside6
#   make docs          the documentation site, in site/; open site/index.html
#   make test-peers    our exports in other programs: napari-ome-zarr, napari-spatialdata, scanpy, in .venv-peers
#
# PYTHON=python3.12 picks the interpreter of a new .venv; ARGS="-k tiles" goes to pytest.

.PHONY: help demo docs test test-all test-wheel screenshots test-pyside6 test-peers

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

demo:
	@tools/setup.sh demo
	.venv/bin/chrep demo -o demo

docs:
	@tools/setup.sh test
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict

# The canvas stays blank on Qt's "offscreen" platform, so a setting of that kind is not passed on; pytest-xvfb
# brings the display.
test: PART = -m "not slow"
test test-all:
	@tools/setup.sh test
	env -u QT_QPA_PLATFORM .venv/bin/python -m pytest -n 2 --dist loadfile $(PART) $(ARGS)

test-wheel:
	@tools/setup.sh test
	tools/test_wheel.sh

test-pyside6:
	@tools/setup.sh test-pyside6
	env -u QT_QPA_PLATFORM QT_API=pyside6 PYTEST_QT_API=pyside6 \
		.venv-pyside6/bin/python -m pytest tests/napari_chrep tests/evaluation/test_report_script.py $(ARGS)

test-peers:
	@tools/setup.sh test-peers
	env -u QT_QPA_PLATFORM .venv-peers/bin/python -m pytest tests/peers tests/test_scanpy_page.py $(ARGS)

# A display in memory where there is none; where there is one, leave the mouse alone meanwhile.
screenshots:
	@tools/setup.sh test
	$(if $(DISPLAY),,xvfb-run -a -s "-screen 0 1600x1000x24") env -u QT_QPA_PLATFORM \
		.venv/bin/python tools/screenshots.py $(ARGS)
