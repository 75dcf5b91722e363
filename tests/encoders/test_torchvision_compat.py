"""The repair of torchvision, in fresh processes: an import can only be tried once in each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

START = "import sys\nfrom chrep_model.encoders import torchvision_compat as compat\n"


def run(code: str, *path: Path) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    done = subprocess.run(
        [sys.executable, "-c", START + code],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_torchvision(folder: Path, body: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "part.py").write_text("")
    (folder / "torchvision" / "__init__.py").write_text(body)
    return folder


def test_timm_imports_and_runs_after_it():
    code = """
compat.ensure_torchvision()
compat.ensure_torchvision()
import timm, torch
model = timm.create_model("test_vit", num_classes=0).eval()
with torch.inference_mode():
    print(tuple(model(torch.zeros(1, 3, 160, 160)).shape)[0])
timm.data.create_transform(**timm.data.resolve_model_data_config(model))
"""
    assert run(code).endswith("1")


def test_a_working_torchvision_is_left_alone(tmp_path):
    folder = fake_torchvision(tmp_path, "import torchvision.part\nloads = 1\n")
    code = """
compat.ensure_torchvision()
module = sys.modules["torchvision"]
compat.ensure_torchvision()
print(sys.modules["torchvision"] is module, "torchvision.part" in sys.modules, compat._declared)
print("torch" in sys.modules)
"""
    assert run(code, folder) == "True True {}\nFalse"


def test_missing_operators_are_declared_one_after_another(tmp_path):
    folder = fake_torchvision(
        tmp_path,
        """
import torchvision.part, torch
torchvision.part.loads = getattr(torchvision.part, "loads", 0) + 1
for name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, name):
        raise RuntimeError(f"operator torchvision::{name} does not exist")
""",
    )
    code = """
import gc
compat.ensure_torchvision()
gc.collect()
import torch, torchvision.part
print(sorted(compat._declared), hasattr(torch.ops.torchvision, "nms"), torchvision.part.loads)
"""
    assert run(code, folder) == "['nms', 'qnms'] True 1"  # the part was imported anew each time


@pytest.mark.parametrize(
    "message",
    ["operator torchvision::other does not exist", "operator torchvision::nms does not exist", "CUDA"],
)
def test_other_failures_are_passed_on(tmp_path, message):
    folder = fake_torchvision(tmp_path, f"raise RuntimeError({message!r})\n")
    code = """
try:
    compat.ensure_torchvision()
except RuntimeError as error:
    print(error)
"""
    assert run(code, folder) == message


def test_without_torchvision_the_importer_says_so(tmp_path):
    folder = fake_torchvision(tmp_path, "raise ImportError('not here')\n")
    assert run("compat.ensure_torchvision()\nprint('quiet')", folder) == "quiet"
