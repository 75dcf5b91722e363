"""Let torchvision be imported where its compiled part does not fit the installed torch.

The torchvision wheel of the package index is built against a CUDA torch. Beside a CPU build of the same
version its extension cannot be loaded, and the import stops because torchvision describes operators (``nms``,
``qnms``) that nobody declared. timm imports torchvision, although the encoders use none of these operators.
Declaring them is enough: image transforms and feature extraction then work, and calling a detection operator
still raises.

Call `ensure_torchvision` before the first import of timm or torchvision.
"""

from __future__ import annotations

import importlib
import re
import sys
import threading
from typing import Any

_SCHEMAS = {
    name: f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")
}
_MISSING = re.compile(r"operator torchvision::(\w+) does not exist")

# torch forgets the declarations of a Library that is garbage-collected.
_declared: dict[str, Any] = {}
_lock = threading.Lock()


def ensure_torchvision() -> None:
    """Import torchvision, declaring the operators that its extension could not.

    A torchvision that imports by itself is left as it is, and so is one that is not installed or fails in
    any other way: the import that needs it says so best.

    Raises
    ------
    RuntimeError
        torchvision lacks an operator that is not known here.
    """
    with _lock:
        while "torchvision" not in sys.modules:
            try:
                importlib.import_module("torchvision")
            except ImportError:
                return
            except RuntimeError as error:
                found = _MISSING.search(str(error))
                if found is None or found[1] not in _SCHEMAS or found[1] in _declared:
                    raise
                _forget_half_imported()
                _declare(found[1])


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


def _declare(name: str) -> None:
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define(_SCHEMAS[name])
    _declared[name] = library
