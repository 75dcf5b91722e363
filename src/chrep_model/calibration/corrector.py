"""CHRep's second phase: a small network that corrects the mean of the gallery neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from chrep_model.networks.losses import pearson_by_section, regression_loss
from chrep_model.training.faults import require_finite, spots_in_words
from chrep_model.training.loop import Task, one_thread, random_batches, run_epochs
from chrep_model.training.run import SILENT_RUN, Run


class CorrectorSettings(BaseModel):
    """Settings of CHRep's second phase; the paper gives no values, the defaults are this project's.

    Attributes
    ----------
    rho : float
        Weight of the penalty on the correction's size, relative to the squared error of one gene (G * lam_D).
        With the squared error alone, the best correction is the residual divided by 1 + rho.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rho: float = Field(1.0, ge=0, allow_inf_nan=False)
    hidden: int = Field(256, gt=0)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(50, gt=0)
    batch: int = Field(1024, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)


class Corrector(nn.Module):
    """Network r_eta that maps an embedding z to a correction per gene, which is zero before training."""

    def __init__(self, dim: int, genes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.readout = nn.Linear(hidden, genes)
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, z: Tensor) -> Tensor:
        """Return the corrections (b, genes) for embeddings (b, dim)."""
        out: Tensor = self.readout(self.body(z))
        return out


def fit_corrector(
    z: NDArray[np.float32],
    estimate: NDArray[np.float32],
    targets: NDArray[np.float32],
    section: NDArray[np.int64],
    settings: CorrectorSettings,
    *,
    mae: float,
    pcc: float,
    seed: int,
    measured: NDArray[np.bool_] | None = None,
    watched: tuple[NDArray[Any], ...] | None = None,
    run: Run = SILENT_RUN,
) -> Corrector:
    """Train a corrector of the gallery's estimates.

    The loss is L_cal = L_reg(estimate + correction, targets) + lam_D * mean squared length of the correction.

    Parameters
    ----------
    z : ndarray
        (n, d) embeddings, unit rows.
    estimate : ndarray
        (n, genes) estimate of every spot from a gallery without its own section. With that section the
        estimate would be nearly exact, and the corrector would learn nothing.
    targets : ndarray
        (n, genes) standardised expression.
    section : ndarray
        (n,) int, section of every spot.
    settings : CorrectorSettings
    mae, pcc : float
        Weights in L_reg.
    seed : int
        Random seed.
    measured : ndarray, optional
        (sections, genes) bool, which section measured which gene; all unless given. Genes do not count in
        sections that did not measure them.
    watched : tuple of ndarray, optional
        `z`, `estimate`, `targets` and `section` of held-out spots, used only for the training curve.
    run : Run
        Receives every epoch, and stores checkpoints.
    """
    torch.manual_seed(seed)
    genes = targets.shape[1]
    corrector = Corrector(z.shape[1], genes, settings.hidden, settings.dropout)
    z_t, estimate_t, target_t, section_t = (torch.from_numpy(a) for a in (z, estimate, targets, section))
    known = None if measured is None else torch.from_numpy(measured)
    lam = settings.rho / genes

    def whose(rows: NDArray[np.int64]) -> str:
        return spots_in_words(rows, section)

    def loss(rows: NDArray[np.int64]) -> Tensor:
        require_finite(rows, whose, inputs=z_t[rows], estimates=estimate_t[rows], targets=target_t[rows])
        residual = corrector(z_t[rows])
        fit = regression_loss(
            estimate_t[rows] + residual, target_t[rows], section_t[rows], mae=mae, pcc=pcc,
            measured=None if known is None else known[section_t[rows]],
        )  # fmt: skip
        return fit + lam * residual.pow(2).sum(1).mean()

    @torch.no_grad()
    def held_out() -> float:
        x, near, truth, sections = (torch.from_numpy(a) for a in watched or ())
        return float(pearson_by_section(near + corrector(x), truth, sections))

    batches, steps = random_batches(len(z), settings.batch)
    task = Task(
        corrector, loss, batches, steps, whose=whose, held_out=held_out if watched else None,
        data=(z, estimate, targets, section, *([] if measured is None else [measured]),
              f"{settings!r} {mae} {pcc}"),
    )  # fmt: skip
    with one_thread():
        run_epochs(
            task, epochs=settings.epochs, lr=settings.lr, weight_decay=settings.weight_decay,
            seed=seed, run=run,
        )  # fmt: skip
    return corrector
