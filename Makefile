# Two commands for people; both make .venv ready first (tools/setup.sh: seconds when there is nothing to do).
#
#   make demo    a small cohort, a model trained on it and a prediction, in demo/; napari opens on a display
#   make test    the tests, with or without a display
#
# PYTHON=python3.12 picks the interpreter of a new .venv; ARGS="-k tiles" goes to pytest.

.PHONY: help demo test

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

demo:
	@tools/setup.sh demo
	.venv/bin/chrep demo -o demo

# The canvas stays blank on Qt's "offscreen" platform, so a setting of that kind is not passed on; pytest-xvfb
# brings the display.
test:
	@tools/setup.sh test
	env -u QT_QPA_PLATFORM .venv/bin/python -m pytest $(ARGS)
