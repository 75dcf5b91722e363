"""Nothing in the current folder is run, whatever works there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from chrep_model import processes

SETTINGS = {
    "genes": 20,
    "context_um": [300.0],
    "chrep": {
        "phase1": {"members": 1, "epochs": 2},
        "corrector": {"epochs": 2},
        "k": 50,
        "trees": 5,
    },
}

# The console script `chrep` with several commands after one another: each alone would spend most of its time
# on importing torch. Like the console script, the file lies where nothing is planted.
COMMANDS = """
import os, shutil, sys
from pathlib import Path

from chrep_model import cli

def chrep(*arguments):
    try:
        cli.main(arguments)
    except SystemExit as left:
        assert not left.code, (arguments, left.code)

if __name__ == "__main__":
    bundle, settings, out, sample = sys.argv[1:]
    from chrep_model import pipeline
    from chrep_model.batch import cluster
    from chrep_model.prediction.stored import read_prediction
    from chrep_model.analysis.variability import variability
    from chrep_model.encoders import tuning
    tuning.SIZES = (2,)
    slide = ("SYNTHETIC_P1A.jpg", "--mpp", "0.7")

    chrep("info", ".")
    chrep("info", "SYNTHETIC_P1A.h5ad")
    chrep("info", "SYNTHETIC_P1A.jpg")
    chrep("doctor")
    chrep("train", ".", "-o", f"{out}/new.chrep", "--config", settings)
    chrep("calibrate", bundle, ".", "-o", f"{out}/own.chrep")
    chrep("evaluate", ".", "-o", f"{out}/report", "--methods", "mean", "--genes", "20", "--jobs", "2")
    chrep("predict", *slide, "--stride", "0.5", "-b", bundle, "-o", f"{out}/one")
    chrep("tune", "-b", bundle, "--device", "cpu")

    with cluster.one_worker_each(["0"]) as address:
        more = ("-o", f"{out}/cluster", "--scheduler", address, "--device", "cpu")
        chrep("predict", *slide, "-b", bundle, *more)
    assert list(variability(read_prediction(Path(out, "one", "SYNTHETIC_P1A.h5ad"), [])))

    pipeline.train = lambda cohort, settings, out, **_: shutil.copytree(bundle, out)  # it was seen above
    os.environ["CHREP_SAMPLE_DATA"] = sample
    chrep("demo", "-o", f"{out}/demo", "--no-gui")
    print("ALL DONE")
"""


@pytest.fixture
def sample(tiny_cohort, write_pyramid, tmp_path) -> Path:
    """What `chrep demo` needs."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "sample"
    shutil.copytree(tiny_cohort, folder)
    with Image.open(folder / "SYNTHETIC_P1A.jpg") as image:
        slide = write_pyramid(np.asarray(image), mpp=0.7, levels=2, name="SYNTHETIC_slide.ome.tif")
    slide.rename(folder / slide.name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)  # a dozen commands; half a minute on a machine that does nothing else
def test_no_command_runs_what_lies_in_the_current_folder(canaries, sample, tiny_bundle, tmp_path):
    folder, ran = canaries
    script, settings = tmp_path / "bin" / "chrep.py", tmp_path / "settings.yaml"
    script.parent.mkdir()
    script.write_text(COMMANDS)
    settings.write_text(json.dumps(SETTINGS))
    environment = {**os.environ, "CHREP_CACHE": str(tmp_path / "cache"), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, script, tiny_bundle, settings, tmp_path / "out", sample],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip
    assert [path.name for path in ran.iterdir()] == []
    assert done.returncode == 0 and done.stdout.endswith("ALL DONE\n"), done.stderr


def test_a_child_process_gets_no_current_folder_from_the_environment(canaries, monkeypatch):
    """An empty entry, as `export PYTHONPATH=$PYTHONPATH:/some/place` makes it, means the current folder."""
    folder, ran = canaries
    monkeypatch.chdir(folder)
    elsewhere = folder.parent / "own modules"
    elsewhere.mkdir()
    (elsewhere / "own_module.py").write_text("import sys\nprint(sys.argv[1], sys.path)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["", ".", "./", str(elsewhere)]))
    done = processes.run_python("own_module", "argument", capture_output=True)
    assert done.returncode == 0 and list(ran.iterdir()) == [], done.stderr
    assert done.stdout.startswith(b"argument [") and str(folder).encode() not in done.stdout
    with processes.spawning():
        assert os.environ["PYTHONPATH"] == str(elsewhere) and os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ and os.environ["PYTHONPATH"].startswith(os.pathsep)
    monkeypatch.setenv("PYTHONPATH", "")
    assert "PYTHONPATH" not in processes.child_environment()


def test_numba_takes_no_folder_of_pickles_from_the_current_folder(tmp_path, monkeypatch):
    own = tmp_path / "own modules"
    own.mkdir()
    (own / "own_module.py").write_text("from numba import config\nprint(repr(config.CACHE_DIR))\n")
    (tmp_path / ".numba_config.yaml").write_text("cache_dir: planted\ncuda_driver: planted.so\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(own))
    assert processes.run_python("own_module", capture_output=True).stdout.split() == [b"''"]
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/of/the/user")
    assert processes.run_python("own_module", capture_output=True).stdout.split() == [b"'/of/the/user'"]


@pytest.mark.parametrize("how", [["-m", "own_module"], ["-c", "import own_module"]])
def test_a_program_leaves_the_current_folder_out(tmp_path, how):
    """What it is started with may bring it in; from then on nothing is imported from there."""
    code = (
        "import sys\n"
        "from chrep_model.processes import leave_out_current_folder\n"
        "leave_out_current_folder()\n"
        "import importlib.util as util, chrep_model.samples\n"
        "print(util.find_spec('planted'), util.find_spec('napari_chrep') is not None)\n"
    )
    for name in ("own_module", "planted"):
        (tmp_path / f"{name}.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *how], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "None True\n", done.stderr
