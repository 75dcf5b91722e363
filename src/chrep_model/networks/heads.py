"""Small networks on embeddings: the parts of CHRep's first phase, and the residual head of its rivals."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """Frozen embedding to the morphology feature F_H: a linear map plus a gated non-linear residual.

    The linear map carries what a ridge regression would find; the residual starts at zero, so training
    adds to that only where it pays.

    Parameters
    ----------
    dim_in, dim : int
        Length of the embedding and of F_H.
    dropout : float
        Share of embedding entries hidden in training.
    """

    def __init__(self, dim_in: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.hide = nn.Dropout(dropout)
        self.linear = nn.Linear(dim_in, dim)
        self.norm = nn.LayerNorm(dim)
        last = nn.Linear(dim, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.residual = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """(b, dim_in) to (b, dim)."""
        feature = self.norm(self.linear(self.hide(x)))
        out: Tensor = feature + self.residual(feature)
        return out


class RegressionHead(nn.Module):
    """F_H to standardised expression: LN, Linear, GELU, Dropout, Linear."""

    def __init__(self, dim: int, hidden: int, genes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.readout = nn.Linear(hidden, genes)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, dim) to (b, genes)."""
        out: Tensor = self.readout(self.body(feature))
        return out


class CoordinateBranch(nn.Module):
    """Spot position in [0, 1]^2 to F_C through Fourier features (16 frequencies an axis)."""

    waves: Tensor

    def __init__(self, dim: int, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("waves", math.pi * 2.0 ** torch.linspace(0, 5, frequencies))
        self.body = nn.Sequential(nn.Linear(4 * frequencies, 256), nn.GELU(), nn.Linear(256, dim))

    def forward(self, position: Tensor) -> Tensor:
        """(b, 2) to (b, dim)."""
        angle = (position[:, :, None] * self.waves).flatten(1)
        out: Tensor = self.body(torch.cat([angle.sin(), angle.cos()], dim=1))
        return out


class Fusion(nn.Module):
    """F_M = LN(F_H + W [F_H; F_C]), the coordinate-guided morphology feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, feature: Tensor, coordinate: Tensor) -> Tensor:
        """(b, dim), (b, dim) to (b, dim)."""
        out: Tensor = self.norm(feature + self.mix(torch.cat([feature, coordinate], dim=1)))
        return out


class GeneEncoder(nn.Module):
    """Standardised expression to F_G: Linear, LN, GELU, Dropout, Linear."""

    def __init__(self, genes: int, dim: int, hidden: int = 512, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(genes, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, dim),
        )

    def forward(self, expression: Tensor) -> Tensor:
        """(b, genes) to (b, dim)."""
        out: Tensor = self.body(expression)
        return out


class ResidualHead(nn.Module):
    """Residual projection head of BLEEP, HECLIP and mclSTExp: u = W x, then LN(u + Dropout(W' GELU(u)))."""

    def __init__(self, dim_in: int, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(dim_in, dim)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """(b, dim_in) to (b, dim)."""
        u = self.first(x)
        out: Tensor = self.norm(u + self.second(u))
        return out


class Projection(ResidualHead):
    """The same, then unit length."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, dim_in) to (b, dim), rows of length one."""
        return nn.functional.normalize(super().forward(x), dim=1)
