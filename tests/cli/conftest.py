"""Run commands in this process and look at what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from chrep_model.cli import app

Run = Callable[..., "Result"]


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli-cache")


@pytest.fixture(autouse=True)
def _own_cache(shared_cache, monkeypatch):
    monkeypatch.setenv("CHREP_CACHE", str(shared_cache))


@pytest.fixture
def chrep(capfd) -> Run:
    """Run ``chrep ARGS``: ``chrep("info", path)`` gives code, stdout and stderr."""

    def run(*args: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            app([str(arg) for arg in args], prog_name="chrep")
        out, err = capfd.readouterr()
        return Result(int(left.value.code or 0), out, err)

    return run


@pytest.fixture
def refused(chrep, tmp_path) -> Callable[..., str]:
    """Run a command that must fail as users want it to; gives the one line it says.

    ``refused("predict", slide, "-b", bundle, "-o", out, left=[])``: exit code 1, one line and no traceback on
    stderr, nothing on stdout, and in `out` (``tmp_path / "out"``) nothing but `left`.
    """

    def run(*args: object, left: tuple[str, ...] = ()) -> str:
        result = chrep(*args)
        assert result.code == 1, result
        assert result.err.startswith("chrep: ") and result.err.endswith("\n"), result.err
        assert result.err.count("\n") == 1 and "Traceback" not in result.err, result.err
        assert result.out == ""
        assert "unexpected" not in result.err, result.err
        out = tmp_path / "out"
        found = sorted(str(p.relative_to(out)) for p in out.rglob("*")) if out.exists() else []
        assert found == sorted(left)
        return result.err

    return run


@pytest.fixture
def cohort(tiny_cohort, tmp_path) -> Path:
    """A copy of the tiny cohort, to be damaged."""
    return Path(shutil.copytree(tiny_cohort, tmp_path / "cohort"))


@pytest.fixture
def bundle(tiny_bundle, tmp_path) -> Path:
    """A copy of the tiny bundle, to be damaged."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy.chrep"))
