"""The same input gives the same numbers and files as ever, bit for bit.

The command line predicts the sample slide, trains a bundle and evaluates every method; digests of all that
it writes are compared with those of ``reference.json``. Other processors and other versions of the numeric
libraries round differently: there, the digests' places are taken by means and standard deviations.

After a change that is meant to alter numbers, ``CHREP_WRITE_REFERENCE=1 pytest tests/test_reference.py``
writes the file anew; its difference is part of that change.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import sklearn
import torch
import zarr
from anndata import read_h5ad

FILE = Path(__file__).with_name("reference.json")
SAMPLE = Path(__file__).resolve().parent.parent / "sample_data"
MACHINE = " ".join(
    (
        platform.machine(), torch.backends.cpu.get_cpu_capability(), f"torch {torch.__version__}",
        f"numpy {np.__version__}", f"scikit-learn {sklearn.__version__}",
    )
)  # fmt: skip
EVALUATE = """
methods: [mean, knn, ridge, trees, bleep, mclstexp, heclip, hage_like, chrep]
test_sections: [SYNTHETIC_P2A]
genes: 20
tile_um: 100
mpp: 2.0
context_um: [200.0]
chrep:
  k: 10
  trees: 5
  phase1: {members: 1, epochs: 2, inputs: 8, dim: 8, hidden: 8}
  corrector: {epochs: 2, hidden: 8}
"""
ONLY_EVALUATE = ("methods", "test_sections")
TRAIN = "\n".join(line for line in EVALUATE.splitlines() if not line.startswith(ONLY_EVALUATE))
PROGRAM = """
import json, sys
from chrep_model.cli import main

for command in json.loads(sys.argv[1]):
    try:
        main(command)
    except SystemExit as left:
        if left.code:
            raise
"""
# What names a moment or this machine, and what only follows from it.
PASSING = {"created", "seconds", "slide_path", "bundle_path", "files", "seal"}

Summary = dict[str, Any]


def chrep(commands: list[list[object]], cache: Path) -> None:
    """Run commands, one after another, in a process of its own: most of a short one is the start."""
    environment = os.environ | {"CHREP_CACHE": str(cache)}
    told = json.dumps([[str(argument) for argument in command] for command in commands])
    call = [sys.executable, "-c", PROGRAM, told]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=580, check=False)
    assert done.returncode == 0, done.stderr


def summary(values: Any) -> Summary:
    """Digest, type and shape of an array, and for numbers their mean and standard deviation."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        text = json.dumps([str(value) for value in array.ravel()])
        return {"digest": hashlib.sha256(text.encode()).hexdigest()[:16], "shape": list(array.shape)}
    known = array[np.isfinite(array)].astype(float) if array.size else np.zeros(0)
    moments = [float(f"{value:.4g}") for value in (known.mean(), known.std())] if known.size else []
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return {"digest": digest, "type": str(array.dtype), "shape": list(array.shape), "moments": moments}


def of_frame(frame: pd.DataFrame, name: str) -> dict[str, Summary]:
    columns = {f"{name}/{column}": summary(frame[column]) for column in frame if column not in PASSING}
    return {f"{name}/index": summary(frame.index), **columns}


def of_tree(values: dict[str, Any], name: str) -> dict[str, Summary]:
    """Summaries of the names and texts, and of the numbers, in nested mappings."""
    texts: list[str] = []
    numbers: list[float] = []
    tables: dict[str, Summary] = {}

    def visit(value: Any, path: str) -> None:
        texts.append(path)
        if isinstance(value, dict):
            for key in sorted(value.keys() - PASSING):
                visit(value[key], f"{path}/{key}")
        elif isinstance(value, pd.DataFrame):
            tables.update(of_frame(value, path))
        elif isinstance(value, (list, tuple, np.ndarray)):
            for number, part in enumerate(np.asarray(value, object).ravel()):
                visit(part, f"{path}/{number}")
        elif isinstance(value, (bool, int, float, np.number)):
            numbers.append(float(value))
        else:
            texts.append(str(value))

    visit(values, name)
    return {f"{name}/texts": summary(texts), f"{name}/numbers": summary(numbers), **tables}


def of_bundle(bundle: Path) -> dict[str, Summary]:
    weights = safetensors.numpy.load_file(bundle / "weights.safetensors")
    gallery = zarr.open_group(bundle / "gallery.zarr", mode="r")
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    found = {f"weights/{name}": summary(values) for name, values in weights.items()}
    found |= {f"gallery/{name}": summary(array[...]) for name, array in sorted(gallery.arrays())}
    found |= of_tree(dict(gallery.attrs), "gallery/attributes")
    found |= of_frame(pd.read_parquet(bundle / "genes.parquet"), "genes")
    return found | of_tree(card, "card")


@pytest.fixture(scope="module")
def results(tiny_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what the commands write."""
    out = tmp_path_factory.mktemp("results")
    (out / "train.yaml").write_text(TRAIN)
    (out / "evaluate.yaml").write_text(EVALUATE)
    bundle, slide = SAMPLE / "SYNTHETIC_demo.chrep", SAMPLE / "SYNTHETIC_slide.ome.tif"
    chrep(
        [
            ["predict", slide, "-b", bundle, "-o", out, "--device", "cpu"],
            ["train", tiny_cohort, "-o", out / "a.chrep", "--config", out / "train.yaml", "--device", "cpu"],
            [
                *("evaluate", tiny_cohort, "-o", out / "scores", "--config", out / "evaluate.yaml"),
                *("--device", "cpu", "--jobs", 1),
            ],
        ],
        cache=tmp_path_factory.mktemp("cache"),
    )
    return out


def predicted(out: Path) -> dict[str, Summary]:
    table = read_h5ad(out / "SYNTHETIC_slide.h5ad")
    found = {"X": summary(table.X), **of_frame(table.obs, "obs"), **of_frame(table.var, "var")}
    found |= {f"layers/{name}": summary(values) for name, values in table.layers.items()}
    found |= {f"obsm/{name}": summary(values) for name, values in table.obsm.items()}
    return found | of_tree(dict(table.uns), "uns")


def demo_bundle(_: Path) -> dict[str, Summary]:
    return of_bundle(SAMPLE / "SYNTHETIC_demo.chrep")


def trained(out: Path) -> dict[str, Summary]:
    return of_bundle(out / "a.chrep")


def evaluated(out: Path) -> dict[str, Summary]:
    folder = out / "scores"
    found = of_frame(pd.read_csv(folder / "scores.csv"), "scores")
    for table in sorted(folder.glob("*.parquet")):
        found |= of_frame(pd.read_parquet(table), table.stem)
    summarised = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    files = sorted(str(path.relative_to(folder)) for path in folder.iterdir())
    return found | of_tree(summarised, "summary") | {"files": summary(files)}


@pytest.mark.timeout(600)  # half a minute on a machine that does nothing else
@pytest.mark.parametrize("make", [predicted, demo_bundle, trained, evaluated], ids=lambda make: make.__name__)
def test_the_same_as_ever(make, results):
    found = make(results)
    reference = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if os.environ.get("CHREP_WRITE_REFERENCE"):
        reference |= {"machine": MACHINE, make.__name__: found}
        FILE.write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")
    expected = reference[make.__name__]
    assert sorted(found) == sorted(expected)
    if reference["machine"] == MACHINE:
        assert [name for name in found if found[name] != expected[name]] == []
        return
    for name, values in found.items():
        assert values["shape"] == expected[name]["shape"], name
        assert values.get("type") == expected[name].get("type"), name
        if "type" not in values and not name.endswith("/texts"):  # those may tell versions
            assert values["digest"] == expected[name]["digest"], name
        elif "float" in values.get("type", ""):
            np.testing.assert_allclose(values["moments"], expected[name]["moments"], 0.05, 0.05, err_msg=name)
