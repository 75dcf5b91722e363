"""Small networks on embeddings: parts of CHRep's first phase, and the projection head of other methods."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Adapter(nn.Module):
    """Map a frozen embedding to the morphology feature F_H by a linear layer plus a non-linear residual.

    The residual is zero before training, so that the adapter starts as a linear model.

    Parameters
    ----------
    dim_in, dim : int
        Length of the embedding and of F_H.
    dropout : float
        Share of embedding entries set to zero in training.
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
        """Map embeddings (b, dim_in) to features (b, dim)."""
        feature = self.norm(self.linear(self.hide(x)))
        out: Tensor = feature + self.residual(feature)
        return out


class RegressionHead(nn.Module):
    """Predict standardised expression from F_H: LN, Linear, GELU, Dropout, Linear."""

    def __init__(self, dim: int, hidden: int, genes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout))
        self.readout = nn.Linear(hidden, genes)

    def forward(self, feature: Tensor) -> Tensor:
        """Map features (b, dim) to expression (b, genes)."""
        out: Tensor = self.readout(self.body(feature))
        return out


class CoordinateBranch(nn.Module):
    """Map a spot's position in [0, 1]^2 to the feature F_C through Fourier features."""

    waves: Tensor

    def __init__(self, dim: int, frequencies: int = 16) -> None:
        super().__init__()
        self.register_buffer("waves", math.pi * 2.0 ** torch.linspace(0, 5, frequencies))
        self.body = nn.Sequential(nn.Linear(4 * frequencies, 256), nn.GELU(), nn.Linear(256, dim))

    def forward(self, position: Tensor) -> Tensor:
        """Map positions (b, 2) to features (b, dim)."""
        angle = (position[:, :, None] * self.waves).flatten(1)
        out: Tensor = self.body(torch.cat([angle.sin(), angle.cos()], dim=1))
        return out


class Fusion(nn.Module):
    """Combine morphology and position to the feature F_M = LN(F_H + W [F_H; F_C])."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, feature: Tensor, coordinate: Tensor) -> Tensor:
        """Combine features F_H and F_C, both (b, dim), to F_M (b, dim)."""
        out: Tensor = self.norm(feature + self.mix(torch.cat([feature, coordinate], dim=1)))
        return out


class GeneEncoder(nn.Module):
    """Map standardised expression to the feature F_G: Linear, LN, GELU, Dropout, Linear."""

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
        """Map expression (b, genes) to features (b, dim)."""
        out: Tensor = self.body(expression)
        return out


class ResidualHead(nn.Module):
    """Projection head of BLEEP, HECLIP and mclSTExp: LN(u + Dropout(W' GELU(u))) with u = W x."""

    def __init__(self, dim_in: int, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = nn.Linear(dim_in, dim)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(dim, dim), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project embeddings (b, dim_in) to (b, dim)."""
        u = self.first(x)
        out: Tensor = self.norm(u + self.second(u))
        return out


class Projection(ResidualHead):
    """Residual head whose outputs are scaled to unit length."""

    def forward(self, x: Tensor) -> Tensor:
        """Project embeddings (b, dim_in) to unit vectors (b, dim)."""
        return nn.functional.normalize(super().forward(x), dim=1)
