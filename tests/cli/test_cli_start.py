"""Help, usage, start-up and interruption: each in a process of its own where that matters."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time

import anndata
import pytest

from chrep_model import __version__
from chrep_model.cli import console
from chrep_model.errors import CohortError

COMMANDS = ("demo", "info", "train", "calibrate", "predict", "evaluate", "doctor")
RUN = "import sys; from chrep_model.cli import main; main()"


def test_help_loads_nothing_slow():
    code = (
        "import sys\n"
        "from chrep_model.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as left: assert not left.code\n"
        "slow = {'torch', 'squidpy', 'anndata', 'scipy', 'pandas', 'zarr', 'matplotlib', 'napari'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(chrep, command):
    result = chrep(command, "--help")
    assert result.code == 0
    assert f"  chrep {command}" in result.out.partition("Example")[2]
    assert "--debug" in result.out


def test_version(chrep):
    assert chrep("--version").out == f"chrep {__version__}\n"


@pytest.mark.parametrize(
    "args",
    [["predict"], ["nosuch"], ["predict", "a.svs", "-b", "b", "-o", "c", "--stride", "x"], ["--nosuch"]],
)
def test_wrong_usage_is_2(chrep, args):
    result = chrep(*args)
    assert result.code == 2
    assert "chrep" in result.err and "Traceback" not in result.err


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback(chrep, tmp_path, before):
    args = ["--debug", "info", tmp_path / "no"] if before else ["info", tmp_path / "no", "--debug"]
    result = chrep(*args)
    assert result.code == 1
    assert result.err.startswith("Traceback")
    assert result.err.endswith("no: there is no such file or folder. Check the name.\n")
    assert "Traceback" not in chrep("info", tmp_path / "no").err


def test_a_fault_of_ours_is_one_line_too(chrep, tmp_path, monkeypatch):
    def fault(*_):
        raise KeyError("a\nb")

    monkeypatch.setattr("chrep_model.cli.info._facts_of", fault)
    result = chrep("info", tmp_path)
    assert result.code == 1 and result.err.count("\n") == 1
    assert "unexpected KeyError" in result.err and "--debug" in result.err


def test_errors_of_the_system_and_of_memory():
    line = console.one_line(OSError(28, "No space left on device", "out/a.h5ad"))
    assert line.startswith("out/a.h5ad: No space left on device.")
    assert "--batch-size" in console.one_line(MemoryError())


def test_no_progress_in_a_pipe(capsys):
    with console.progress() as progress:
        progress.message("training")
        progress.advance(1, 2, "tiles")
    assert capsys.readouterr() == ("", "")


def test_a_table_lines_up(capsys):
    console.table([("a", "10"), ("bcd", "5")], ("name", "n"))
    assert capsys.readouterr().out == "name   n\na     10\nbcd    5\n"


def test_json_knows_no_nan(capsys):
    console.say_json({"a": float("nan"), "b": (1.0, None)})
    assert capsys.readouterr().out == '{\n "a": null,\n "b": [\n  1.0,\n  null\n ]\n}\n'


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_ctrl_c_is_clean(tiny_cohort, tiny_bundle, tmp_path):
    """Stopped while it writes: one word, exit code 1, and nothing half-written."""
    hold = (
        "import anndata, signal, time, sys\n"
        # A process started in the background of a script ignores the signal from birth.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def hold(self, path, *a, **k):\n"
        "    path.write_bytes(b'half'); print('writing', flush=True); time.sleep(60)\n"
        "anndata.AnnData.write_h5ad = hold\n"
    )
    slide, out = tiny_cohort / "SYNTHETIC_P1A.jpg", tmp_path / "out"
    args = ["predict", slide, "--mpp", "0.7", "-b", tiny_bundle, "-o", out]
    process = subprocess.Popen(
        [sys.executable, "-c", hold + RUN, *map(str, args)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, "chrep: cancelled\n")
    assert not list(out.iterdir())


CODES = "A\x1b[31m\x9b1mB\u202e\nC\x7f"
ESCAPED = r"A\x1b[31m\x9b1mB\u202e\nC\x7f"


def test_nothing_that_a_terminal_would_obey_is_printed(capsys):
    console.say(f"µm {CODES}")
    console.table([(CODES, "1"), ("x", "22")])
    console.warn(CODES)
    console.complain(ValueError(CODES))
    out, err = capsys.readouterr()
    first, second, third = out.splitlines()
    assert first == f"µm {ESCAPED}"
    assert second.endswith(" 1") and third.endswith("22") and len(second) == len(third)
    assert all(line.isprintable() for line in (*out.splitlines(), *err.splitlines()))
    console.say_json({CODES: [CODES]})
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines()) and json.loads(out) == {CODES: [CODES]}


def test_info_escapes_names_out_of_a_file(chrep, cohort):
    path = cohort / "SYNTHETIC_P1A.h5ad"
    table = anndata.read_h5ad(path)
    table.var_names = [CODES, *table.var_names[1:]]
    table.write_h5ad(path)
    result = chrep("info", path)
    assert (result.code, result.err) == (0, "")
    assert ESCAPED in result.out and "\x1b" not in result.out and "\x9b" not in result.out


def test_an_error_of_megabytes_is_cut():
    error = CohortError("a" * 3_000_000 + "b", path="x.h5ad", remedy="c" * 2_000_000 + "d")
    assert 1900 < len(str(error)) < 2100 and len(error.what) < 1010
    assert str(error).startswith("x.h5ad: aaa") and str(error).endswith("cccd") and "ab. c" in str(error)
    assert str(copy.copy(error)) == str(error)  # as what comes out of a worker process
    assert len(console.one_line(ValueError("a " * 1_000_000))) < 1200
