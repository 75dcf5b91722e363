"""Folding of batch normalisation into convolutions, which makes a network faster at the same output."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(model: nn.Module) -> nn.Module:
    """Return a copy of a network with its batch normalisation folded into the convolutions before it.

    The copy gives the same output up to rounding, but faster: on a CPU, MobileNet v2 embeds 1.4 times as many
    tiles, ResNet18 1.08 times. In eval mode normalisation is an affine map, and so can be part of the
    convolution.

    Parameters
    ----------
    model : Module
        Network in eval mode; not changed. It is returned itself if it has no batch normalisation, or if
        torch.fx cannot trace it.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        return model
    try:
        with _TRACING_LOCK:
            graph = _Tracer().trace(model)
    except Exception:  # a forward method may raise any error on torch.fx's placeholder input
        return model
    pairs = _pairs(graph, dict(model.named_modules()))
    if not pairs:
        return model
    out = copy.deepcopy(model)
    with torch.no_grad():
        for conv, norm in pairs:
            before, after = out.get_submodule(conv), out.get_submodule(norm)
            assert isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)  # noqa: S101
            _replace(out, conv, fuse_conv_bn_eval(before, after))
            _replace(out, norm, _dropout_and_activation(after))
    return out.eval()


_TRACING_LOCK = threading.Lock()


class _Tracer(fx.Tracer):
    """Tracer of a forward method down to single convolutions and normalisations.

    While torch.fx traces, calls of all modules in the process go through it, also those of other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Record a call, or just run it if it comes from another thread."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.BatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _pairs(graph: fx.Graph, modules: dict[Any, nn.Module]) -> list[tuple[str, str]]:
    """Find convolutions whose only reader is a normalisation, both used once; return pairs of names."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    uses = Counter(node.target for node in calls)
    found: list[tuple[str, str]] = []
    for node in calls:
        source: Any = node.args[0] if node.args else None
        if (
            isinstance(modules[node.target], nn.BatchNorm2d)
            and isinstance(source, fx.Node)
            and source.op == "call_module"
            and type(modules[source.target]) is nn.Conv2d
            and len(source.users) == uses[source.target] == uses[node.target] == 1
        ):
            found.append((str(source.target), str(node.target)))
    return found


def _dropout_and_activation(norm: nn.Module) -> nn.Module:
    """Return the dropout and activation that timm puts into its normalisation layers."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    return nn.Sequential(*(part for part in parts if part is not None and not isinstance(part, nn.Identity)))


def _replace(model: nn.Module, name: str, by: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, by)
