"""The house rules of the source tree, read off every import statement.

Data flow one way: a file imports from its own unit (a file or folder right below its package) and from the
units above it in `ORDER`, and no files import one another in a circle. The model knows nothing of the viewer,
the widgets nothing of torch, and whatever the command line, the reader or the plugin load at the start brings
in none of the slow packages.

The face of the model, ``import chrep_model``, shows the functions of `api`, the last unit before the command
line. It may name `api` alone, and only lazily: in a function, or for type checkers. Inside of the model these
functions are not taken from the face, only ``__version__`` is.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx
import pytest

SRC = Path(__file__).resolve().parent.parent / "src"
MODEL, PLUGIN = "chrep_model", "napari_chrep"
ORDER = {
    MODEL: (
        *("errors", "progress", "processes", "samples", "geometry", "config", "cache", "files"),
        *("statistics", "zarr_check", "mapped_arrays", "device"),
        *("slides", "cohorts", "synthetic", "encoders", "networks"),
        *("embeddings", "training", "calibration", "methods", "bundle", "prediction", "analysis", "export"),
        *("batch", "pipeline", "evaluation", "api", "cli"),
    ),
    PLUGIN: (
        *("state", "background", "canvas", "ui", "io"),
        *("explorer", "genes", "neighbours", "export", "retrain"),
    ),
}
VIEWER = {
    "napari",
    "qtpy",
    "PyQt5",
    "PyQt6",
    "PySide2",
    "PySide6",
    "superqt",
    "magicgui",
    "vispy",
    "npe2",
    PLUGIN,
}
API = f"{MODEL}.api"
SLOW = {"torch", "torchvision", "timm", "squidpy", "scanpy", "lightning"}
MAY_IMPORT_SLOW_AT_TOP = {"encoders", "networks", "calibration", "training", "methods"}
# Loaded when a command or the viewer starts: nothing slow at their top, nor at the top of what that imports.
FAST_UNITS = {
    "errors",
    "geometry",
    "config",
    "cache",
    "device",
    "zarr_check",
    "slides",
    "cohorts",
    "api",
    "cli",
}
FAST_MODULES = {"chrep_model.prediction.prediction", "chrep_model.export.writing"}
# What starts a process: only here, so that none imports from the current folder.
STARTS_PROCESSES = f"{MODEL}.processes"
POOL_OF_THE_USUAL_KIND = "a ProcessPoolExecutor without a context"
STARTERS = {
    POOL_OF_THE_USUAL_KIND,
    *("subprocess.Popen", "subprocess.run", "subprocess.call", "subprocess.check_call"),
    *("subprocess.check_output", "subprocess.getoutput", "multiprocessing.Process", "multiprocessing.Pool"),
    *("multiprocessing.get_context", "multiprocessing.set_start_method", "os.system", "os.popen", "os.fork"),
    *("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "QProcess.startDetached"),
}
# `QProcess` gets the interpreter from there as well. The doctor prints it.
SEES_PYTHON = {STARTS_PROCESSES, f"{MODEL}.cli.doctor"}
# Units of the plugin whose files are widgets, and those that work without any.
COMPUTES_IN_A_PROCESS = {"napari_chrep.retrain.work"}
WIDGETS = {"ui", "explorer", "genes", "neighbours", "export", "retrain"}


@dataclass(frozen=True)
class Import:
    """One imported module: `when` is top (on import of the file), typing (never) or inside (a function)."""

    target: str
    line: int
    when: str

    @property
    def package(self) -> str:
        return self.target.split(".")[0]


def modules_of(src: Path) -> dict[str, Path]:
    """Dotted name of every module of the two packages."""
    found = {}
    for package in (MODEL, PLUGIN):
        for path in sorted((src / package).rglob("*.py")):
            parts = path.relative_to(src).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, modules: dict[str, Path]) -> list[Import]:
    path = modules[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return [
        Import(target, line, when)
        for node, when in _statements(tree, "top")
        for target, line in _targets(node, package, modules)
    ]


def _statements(node: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    for child in ast.iter_child_nodes(node):
        yield from _within(child, when)


def _within(node: ast.AST, when: str) -> Iterator[tuple[ast.AST, str]]:
    yield node, when
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        yield from _statements(node, "inside")
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and when == "top":
        for part in node.body:
            yield from _within(part, "typing")
        for part in node.orelse:
            yield from _within(part, when)
    else:
        yield from _statements(node, when)


def _targets(node: ast.AST, package: str, modules: dict[str, Path]) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, node.lineno
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            if whole in modules or alias.name in ORDER.get(base, ()):
                yield whole, node.lineno
            else:  # a function of the face is one of `api`
                yield (API if base == MODEL and alias.name != "__version__" else base), node.lineno
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            yield node.args[0].value, node.lineno


def unit_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def violations(src: Path) -> list[str]:
    """Every broken rule of a source tree, as ``module:line: what``."""
    modules = modules_of(src)
    imports = {name: imports_of(name, modules) for name in modules}
    found = []
    for name, statements in imports.items():
        for statement in statements:
            found += [f"{name}:{statement.line}: {fault}" for fault in _faults(name, statement)]
    found += _circles(imports)
    for name, path in modules.items():
        found += [f"{name}:{line}: {fault}" for line, fault in _processes_started(name, path)]
        if is_fast(name):
            found += _slow_ways(name, imports)
    return sorted(set(found))


def is_fast(name: str) -> bool:
    package, unit = name.split(".")[0], unit_of(name)
    return package == PLUGIN or not unit or unit in FAST_UNITS or name in FAST_MODULES


def _faults(name: str, statement: Import) -> Iterator[str]:
    """What is wrong with one import: of the viewer or a slow package, or of a unit that stands below."""
    package, unit, target = name.split(".")[0], unit_of(name), statement.target
    if package == MODEL and statement.package in VIEWER:
        yield f"the model imports {target}, which belongs to the viewer"
    if statement.package in SLOW:
        if statement.when == "top" and not (package == MODEL and unit in MAY_IMPORT_SLOW_AT_TOP):
            yield f"{target} is imported at module top; import it in the function that needs it"
        elif package == PLUGIN and unit in WIDGETS and name not in COMPUTES_IN_A_PROCESS:
            yield f"{target} is imported by a widget"
    order = ORDER[package]
    if unit not in {*order, "", "__main__"}:
        yield f"{unit} has no place in the order of units"
    elif name == MODEL and target == API and statement.when != "top":
        return
    elif statement.package == package and unit_of(target) not in {"", unit} and unit != "__main__":
        if unit_of(target) not in order:
            yield f"{unit_of(target)} has no place in the order of units"
        elif not unit or order.index(unit_of(target)) > order.index(unit):
            yield f"{unit or package} imports {target}, which stands below it"


def _circles(imports: dict[str, list[Import]]) -> Iterator[str]:
    """Every circle of files that import one another, inside of functions and for types too.

    The package's face is left out: it names the front door only once a name is asked for.
    """
    graph = networkx.DiGraph()
    for name, statements in imports.items():
        if name != MODEL:
            graph.add_edges_from(
                (name, s.target) for s in statements if s.target in imports and s.target != name
            )
    for members in networkx.strongly_connected_components(graph):
        if len(members) > 1:
            yield f"a circle: {', '.join(sorted(members))}"


def _processes_started(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Where a file starts a process itself, or sees the interpreter that it would start."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = {f"{node.value.id}.{node.attr}"}
        elif isinstance(node, ast.ImportFrom):
            used = {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "ProcessPoolExecutor":
            used = set() if len(node.args) > 1 else {POOL_OF_THE_USUAL_KIND}
        else:
            continue
        if name != STARTS_PROCESSES and used & STARTERS:
            yield node.lineno, f"{min(used & STARTERS)} is left to {STARTS_PROCESSES}"
        if name not in SEES_PYTHON and "sys.executable" in used:
            yield node.lineno, f"sys.executable is left to {STARTS_PROCESSES}"


def _slow_ways(start: str, imports: dict[str, list[Import]]) -> Iterator[str]:
    """Ways from a fast module over imports at module top to a slow package."""
    ways, waiting = {start: (start,)}, [start]
    while waiting:
        name = waiting.pop()
        tops = [statement for statement in imports[name] if statement.when == "top"]
        slow = {statement.package for statement in tops} & SLOW
        for package in sorted(slow) if name != start else ():
            yield f"{start}: loads {package} by way of {' -> '.join(ways[name][1:])}"
        for statement in tops:
            parts = statement.target.split(".")
            # importing a.b.c runs a and a.b as well
            for loaded in (".".join(parts[: i + 1]) for i in range(len(parts))):
                if loaded in imports and loaded not in ways:
                    ways[loaded] = (*ways[name], loaded)
                    waiting.append(loaded)


def test_the_source_tree_keeps_its_rules():
    assert (SRC / MODEL).is_dir()
    assert violations(SRC) == []


def test_starting_loads_nothing_slow():
    fast = [name for name in modules_of(SRC) if is_fast(name) and not name.endswith("__main__")]
    assert {"chrep_model.slides.slide", "napari_chrep"} <= set(fast)
    code = f"""
import importlib, sys
for name in {fast!r}:
    importlib.import_module(name)
    slow = sorted({SLOW!r} & set(sys.modules))
    assert not slow, f"importing {{name}} loads {{slow}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr


# From here on: the checker itself, on small trees with one fault each.


def write_tree(root: Path, files: dict[str, str]) -> Path:
    complete = {f"{MODEL}/__init__.py": "", f"{PLUGIN}/__init__.py": ""} | files
    for name, text in complete.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


GOOD = {
    "chrep_model/__init__.py": "__version__ = '1'\ndef __getattr__(name):\n    from chrep_model import api",
    "chrep_model/api.py": "def f():\n    from chrep_model import pipeline",
    "chrep_model/errors.py": "class E(Exception): ...",
    "chrep_model/processes.py": "import subprocess, sys\nsubprocess.run([sys.executable])",
    "chrep_model/slides/__init__.py": "",
    "chrep_model/slides/slide.py": "from chrep_model.errors import E\nfrom chrep_model.slides import tiles",
    "chrep_model/slides/tiles.py": "from chrep_model import __version__\nfrom ..errors import E",
    "chrep_model/networks/heads.py": "import torch\nfrom chrep_model.slides.slide import x",
    "chrep_model/pipeline.py": "def f():\n    import torch\n    from chrep_model.networks import heads",
    "chrep_model/__main__.py": "from chrep_model.cli import main",
    "chrep_model/cli.py": "def main():\n    from chrep_model import pipeline",
    "chrep_model/prediction/prediction.py": "if typing.TYPE_CHECKING:\n    import torch",
    "napari_chrep/canvas/layers.py": "import napari\nfrom chrep_model.prediction.prediction import X",
    "napari_chrep/background/worker.py": "def work():\n    import torch",
    "napari_chrep/explorer/widget.py": "from qtpy import QtWidgets\nfrom napari_chrep.canvas import layers",
}

FAULTS = {
    "upwards": ({"chrep_model/slides/slide.py": "from chrep_model.cohorts import x"}, "stands below it"),
    "upwards in a function": (
        {"chrep_model/errors.py": "def f():\n    import chrep_model.slides.slide"},
        "errors:2: errors imports chrep_model.slides.slide, which stands below it",
    ),
    "upwards for types": (
        {"chrep_model/errors.py": "if TYPE_CHECKING:\n    from chrep_model.slides import slide"},
        "stands below it",
    ),
    "upwards, relatively": (
        {"chrep_model/slides/tiles.py": "from ..prediction import prediction"},
        "stands below",
    ),
    "upwards, by unit": ({"chrep_model/errors.py": "from chrep_model import slides"}, "stands below it"),
    "upwards, dynamically": (
        {"chrep_model/errors.py": "import importlib\nimportlib.import_module('chrep_model.cli')"},
        "errors:2: errors imports chrep_model.cli",
    ),
    "the package loads a unit": ({"chrep_model/__init__.py": "from .slides import slide"}, "stands below it"),
    "the package loads its functions": (
        {"chrep_model/__init__.py": "from chrep_model.api import f"},
        "chrep_model:1: chrep_model imports chrep_model.api",
    ),
    "the package names another unit": (
        {"chrep_model/__init__.py": "def __getattr__(name):\n    from chrep_model import pipeline"},
        "chrep_model imports chrep_model.pipeline, which stands below it",
    ),
    "a function of the face": (
        {"chrep_model/pipeline.py": "from chrep_model import predict"},
        "pipeline imports chrep_model.api, which stands below it",
    ),
    "unknown unit": ({"chrep_model/helpers.py": "import math"}, "helpers has no place"),
    "unknown target": (
        {"chrep_model/cli.py": "from chrep_model.helpers import x", "chrep_model/helpers.py": ""},
        "no place",
    ),
    "Qt in the model": (
        {"chrep_model/cli.py": "def f():\n    from qtpy import QtCore"},
        "belongs to the viewer",
    ),
    "napari in the model": ({"chrep_model/pipeline.py": "import napari.types"}, "belongs to the viewer"),
    "the plugin in the model": (
        {"chrep_model/cli.py": "import napari_chrep.io.reader"},
        "belongs to the viewer",
    ),
    "torch at a top": (
        {"chrep_model/pipeline.py": "import torch.nn"},
        "pipeline:1: torch.nn is imported at module top",
    ),
    "torch in a try": (
        {"chrep_model/cli.py": "try:\n    import torch\nexcept ImportError: ..."},
        "cli:2: torch",
    ),
    "torch in a class": ({"chrep_model/cli.py": "class A:\n    from torch import nn"}, "cli:2: torch"),
    "torch in an else": (
        {"chrep_model/cli.py": "if TYPE_CHECKING:\n    import ast\nelse:\n    import torch"},
        "cli:4: torch",
    ),
    "torch by a detour": (
        {"chrep_model/cli.py": "from chrep_model.networks.heads import x"},
        "cli: loads torch by way of chrep_model.networks.heads",
    ),
    "torch by a package": (
        {
            "chrep_model/networks/__init__.py": "import timm",
            "napari_chrep/canvas/layers.py": "import chrep_model.networks.zoo",
            "chrep_model/networks/zoo.py": "",
        },
        "layers: loads timm by way of chrep_model.networks",
    ),
    "torch in the plugin": (
        {"napari_chrep/state/session.py": "import torch"},
        "session:1: torch is imported at module top",
    ),
    "torch in a widget": ({"napari_chrep/genes/widget.py": "def f():\n    import torch"}, "by a widget"),
    "a process": (
        {"chrep_model/cli.py": "import subprocess\ndef f():\n    subprocess.run(['ls'])"},
        "cli:3: subprocess.run is left to chrep_model.processes",
    ),
    "a process, by its name": (
        {"chrep_model/cli.py": "from subprocess import Popen"},
        "cli:1: subprocess.Popen is left to",
    ),
    "a context": (
        {"chrep_model/cli.py": "import multiprocessing\nmultiprocessing.get_context('spawn')"},
        "cli:2: multiprocessing.get_context is left to",
    ),
    "a pool of the usual kind": (
        {"chrep_model/cli.py": "from concurrent.futures import ProcessPoolExecutor\nProcessPoolExecutor(2)"},
        "cli:2: a ProcessPoolExecutor without a context is left to",
    ),
    "an interpreter for Qt": (
        {"napari_chrep/io/job.py": "import sys\nprocess.start(sys.executable, ['-m', 'x'])"},
        "job:2: sys.executable is left to",
    ),
    "a circle": (
        {"chrep_model/slides/tiles.py": "def f():\n    from chrep_model.slides.slide import x"},
        "a circle: chrep_model.slides.slide, chrep_model.slides.tiles",
    ),
    "a circle for types": (
        {"chrep_model/slides/tiles.py": "if TYPE_CHECKING:\n    from chrep_model.slides.slide import x"},
        "a circle: chrep_model.slides.slide, chrep_model.slides.tiles",
    ),
    "a widget in a layer": (
        {"napari_chrep/canvas/layers.py": "from napari_chrep.explorer import widget"},
        "canvas imports napari_chrep.explorer.widget, which stands below it",
    ),
}


def test_checker_accepts_a_good_tree(tmp_path):
    assert violations(write_tree(tmp_path, GOOD)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_checker_finds(tmp_path, fault):
    change, expected = FAULTS[fault]
    found = violations(write_tree(tmp_path, GOOD | change))
    assert any(expected in line for line in found), found
