"""Import of torchvision where its compiled extension does not match the installed torch.

The torchvision wheel of the package index is built against a CUDA torch. With a CPU build of the same version
its extension cannot be loaded, and the import fails because torchvision refers to operators (``nms``,
``qnms``) that the extension would have declared. timm imports torchvision, although the encoders use none of
these operators. Declaring them is enough: image transforms and feature extraction then work, and calling a
detection operator still raises.

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

# Keeps the libraries alive: torch removes the declarations of a garbage-collected Library.
_declared: dict[str, Any] = {}
_lock = threading.Lock()


def ensure_torchvision() -> None:
    """Import torchvision; declare the operators of its extension if that cannot be loaded.

    Nothing happens if torchvision is not installed: the import that needs it will report that.

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
