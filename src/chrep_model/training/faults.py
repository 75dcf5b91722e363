"""Detection of NaN and infinite values in training, with messages that name the spots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from chrep_model.errors import TrainingError

_LISTED = 5
"""Largest number of rows that a message lists per section."""

Whose = Callable[[NDArray[np.int64]], str]
"""Function that describes rows of the training table."""

_LOOK = "Look at the tiles and counts of these spots, or exclude the section."
_LOWER = "Lower the learning rate."


class NotFinite(Exception):  # noqa: N818 - internal; `during` converts it to the error for users
    """Raised if values in a batch are NaN or infinite.

    Attributes
    ----------
    what, remedy : str
        Message and advice, as for `ChrepError`.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what, self.remedy = what, remedy

    def during(self, part: str, epoch: int, batch: int) -> TrainingError:
        """Return the error for users, which names the network, the epoch and the batch."""
        of = f" of {part}" if part else ""
        return TrainingError(
            f"training{of} stopped at epoch {epoch}, batch {batch}: {self.what}", remedy=self.remedy
        )


def require_finite(rows: NDArray[np.int64], whose: Whose, **values: Tensor) -> None:
    """Check that the inputs and targets of a batch are finite, while values still belong to single spots.

    Parameters
    ----------
    rows : ndarray
        (b,) rows of the training table.
    whose : callable
        Function that describes rows.
    **values : Tensor
        Values to check, (b, ...), by their names in the message, such as ``inputs`` and ``targets``.

    Raises
    ------
    NotFinite
        Some values are not finite; the message names their spots.
    """
    for name, value in values.items():
        if not bool(torch.isfinite(value).all()):
            bad = ~torch.isfinite(value).flatten(1).all(1).cpu().numpy()
            raise NotFinite(f"the {name} of {whose(rows[bad])} are not finite", _LOOK)


def require_finite_loss(value: Tensor, rows: NDArray[np.int64], whose: Whose) -> None:
    """Check that the loss of a batch with finite inputs and targets is finite."""
    if not bool(torch.isfinite(value)):
        what = f"the loss of {whose(rows)} is {float(value.detach())}, its inputs and targets are finite"
        raise NotFinite(what, _LOWER)


def clip_finite(module: nn.Module, most: float, rows: NDArray[np.int64], whose: Whose) -> None:
    """Clip the gradients of `module` to the norm `most`.

    Raises
    ------
    NotFinite
        A gradient is not finite; the message names the parameters.
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
    """Describe rows of a training table by their numbers."""
    return f"rows {_first(np.sort(rows))}"


def spots_in_words(rows: NDArray[np.int64], section: NDArray[np.int64], names: Sequence[str] = ()) -> str:
    """Describe rows of a training table, section by section.

    Parameters
    ----------
    rows : ndarray
        (b,) rows.
    section : ndarray
        (n,) section number of every row of the table.
    names : sequence of str, optional
        Names of the sections, by their numbers.
    """
    return " and ".join(
        f"section {names[s] if names else s} ({rows_in_words(rows[section[rows] == s])})"
        for s in dict.fromkeys(section[rows].tolist())
    )


def _first(items: Iterable[object]) -> str:
    listed = [str(item) for item in items]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more
