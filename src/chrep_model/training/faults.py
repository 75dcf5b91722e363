"""Numbers that are none: what is at fault in a batch, and whose spots it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chrep_model.errors import TrainingError

_LISTED = 5
"""Rows that a message names per section."""

Whose = Callable[[NDArray[np.int64]], str]
"""Rows of the training table in words."""

_LOOK = "Look at the tiles and counts of these spots, or exclude the section."
_LOWER = "Lower the learning rate."


class NotFinite(Exception):  # noqa: N818 - inside of training; `during` makes the error that users meet
    """Something in a batch is NaN or infinite.

    Attributes
    ----------
    what, remedy : str
        As for `ChrepError`.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy

    def during(self, part: str, epoch: int, batch: int) -> TrainingError:
        """The error for users: which network, which epoch and which batch."""
        of = f" of {part}" if part else ""
        return TrainingError(
            f"training{of} stopped at epoch {epoch}, batch {batch}: {self.what}", remedy=self.remedy
        )


def require_finite(rows: NDArray[np.int64], whose: Whose, **values: Tensor) -> None:
    """Check what a batch is made of before a loss mixes it.

    Parameters
    ----------
    rows : ndarray
        (b,) rows of the training table.
    whose : callable
        Says them in words.
    **values : Tensor
        (b, ...), by what they are, such as ``inputs`` and ``targets``.

    Raises
    ------
    NotFinite
        Some are not finite; the spots are named.
    """
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            bad = ~torch.isfinite(value).flatten(1).all(1).cpu().numpy()
            raise NotFinite(f"the {name} of {whose(rows[bad])} are not finite", _LOOK)


def require_finite_loss(value: Tensor, rows: NDArray[np.int64], whose: Whose) -> None:
    """Check the loss of a batch whose inputs and targets are finite."""
    if not bool(torch.isfinite(value)):
        what = f"the loss of {whose(rows)} is {float(value.detach())}, its inputs and targets are finite"
        raise NotFinite(what, _LOWER)


def clip_finite(module: nn.Module, most: float, rows: NDArray[np.int64], whose: Whose) -> None:
    """Clip the gradients of `module` to the norm `most`.

    Raises
    ------
    NotFinite
        A gradient is not finite; the parameters are named.
    """
    try:
        nn.utils.clip_grad_norm_(module.parameters(), most, error_if_nonfinite=True)
    except RuntimeError as error:
        names = _first(name for name, p in module.named_parameters() if _has_bad_gradient(p))
        what = f"the gradient of {names or 'all parameters together'} is not finite for {whose(rows)}"
        raise NotFinite(what, _LOWER) from error


def _has_bad_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all())


def rows_in_words(rows: NDArray[np.int64]) -> str:
    """Say rows of a training table."""
    return f"rows {_first(np.sort(rows))}"


def spots_in_words(rows: NDArray[np.int64], section: NDArray[np.int64], names: Sequence[str] = ()) -> str:
    """Say rows of a training table, section by section.

    Parameters
    ----------
    rows : ndarray
        (b,) rows.
    section : ndarray
        (n,) section number of every row of the table.
    names : sequence of str, optional
        Names behind the numbers.
    """
    return " and ".join(
        f"section {names[s] if names else s} ({rows_in_words(rows[section[rows] == s])})"
        for s in dict.fromkeys(section[rows].tolist())
    )


def _first(items: Iterable[object]) -> str:
    listed = [str(item) for item in items]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
