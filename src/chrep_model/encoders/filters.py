"""Image filters for batches of planes, as torch convolutions on CPU and GPU.

All take float32 planes (b, c, h, w) and treat each plane on its own.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDING = 1e-4
"""Optical density differences below this are ignored: float32 rounding depends on the batch size."""


def _kernels(sigma: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Sample a Gaussian of width `sigma` (px) and its first and second derivative, each (2 r + 1,)."""
    radius = max(1, math.ceil(3.0 * sigma))
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    g = torch.exp(-0.5 * (t / sigma) ** 2)
    g /= g.sum()
    first = -t / sigma**2 * g
    second = (t**2 / sigma**4 - 1 / sigma**2) * g
    second -= second.mean()  # so that a constant plane gives zero in spite of the truncation
    return g.float().to(device), first.float().to(device), second.float().to(device)


def _convolve(planes: Tensor, kernel: Tensor, axis: int) -> Tensor:
    b, c, h, w = planes.shape
    n, radius = b * c, kernel.numel() // 2
    pad = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
    # torch can only mirror planes larger than the kernel's radius; smaller ones repeat their border.
    mode = "reflect" if radius < planes.shape[axis] else "replicate"
    padded = F.pad(planes.reshape(1, n, h, w), pad, mode=mode)
    shape = (1, 1, 1, -1) if axis == 3 else (1, 1, -1, 1)
    # One group per plane is about thirty times faster on a CPU than a batch of planes with one channel.
    return F.conv2d(padded, kernel.view(shape).expand(n, -1, -1, -1), groups=n).reshape(b, c, h, w)


def gaussian(planes: Tensor, sigma: float) -> Tensor:
    """Blur planes with a Gaussian of width `sigma` (px)."""
    g, _, _ = _kernels(sigma, planes.device)
    return _convolve(_convolve(planes, g, 3), g, 2)


def gaussian_derivatives(planes: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute gradient and Laplacian of planes smoothed with a Gaussian of width `sigma` (px).

    Returns
    -------
    dy, dx, laplacian : Tensor
        Each (b, c, h, w): ``sigma * d/dy``, ``sigma * d/dx`` and ``sigma**2 * (d2/dy2 + d2/dx2)``
        (Lindeberg's scale normalisation, which makes results at different scales comparable).
    """
    g, first, second = _kernels(sigma, planes.device)
    smooth_x, smooth_y = _convolve(planes, g, 3), _convolve(planes, g, 2)
    dy = _convolve(smooth_x, first, 2) * -sigma
    dx = _convolve(smooth_y, first, 3) * -sigma
    laplacian = (_convolve(smooth_x, second, 2) + _convolve(smooth_y, second, 3)) * sigma**2
    return dy, dx, laplacian


def structure_coherence(dy: Tensor, dx: Tensor, window: float) -> tuple[Tensor, Tensor]:
    """Measure how uniform the direction of the gradient is, locally and over the whole plane.

    Computed from the double-angle vector of the structure tensor, so that opposite gradients count as one
    direction and the result does not change when the tile is rotated.

    Parameters
    ----------
    dy, dx : Tensor
        Gradients, (b, c, h, w).
    window : float
        Width (px) of the Gaussian neighbourhood of the local coherence.

    Returns
    -------
    local, overall : Tensor
        Each (b, c), in [0, 1]: 0 = no preferred direction, 1 = one direction only.
    """
    c = dy.shape[1]
    energy = dy**2 + dx**2
    parts = torch.cat([dx**2 - dy**2, 2 * dx * dy, energy], dim=1)
    # The neighbourhood is wide and the result is averaged, so a quarter of the pixels is enough.
    parts = F.avg_pool2d(parts, 2)
    smooth = gaussian(parts, max(window / 2, 0.5))
    cos2, sin2, total = smooth.chunk(3, dim=1)
    local = (torch.sqrt(cos2**2 + sin2**2) / (total + 1e-6)).mean((2, 3))
    mean = parts.mean((2, 3))
    overall = torch.sqrt(mean[:, :c] ** 2 + mean[:, c : 2 * c] ** 2) / (mean[:, 2 * c :] + 1e-6)
    return local, overall


def uniform_patterns(plane: Tensor, radius: int) -> Tensor:
    """Compute the histogram of local binary patterns: 8 neighbours, rotation-invariant and uniform.

    These are the patterns "riu2" of Ojala et al. 2002.

    Parameters
    ----------
    plane : Tensor
        (b, 1, h, w).
    radius : int
        Distance of the neighbours in px; diagonal ones are taken at the nearest pixel.

    Returns
    -------
    Tensor
        (b, 10), shares that sum to one: uniform patterns with 0..8 bits set, and all non-uniform patterns.
    """
    diagonal = max(1, round(radius / math.sqrt(2)))
    ring = [(0, radius), (diagonal, diagonal), (radius, 0), (diagonal, -diagonal)]
    ring += [(-dy, -dx) for dy, dx in ring]
    inner = plane[:, 0, radius:-radius, radius:-radius]
    h, w = inner.shape[1:]
    bits = torch.stack(
        [
            plane[:, 0, radius + dy : radius + dy + h, radius + dx : radius + dx + w] >= inner - ROUNDING
            for dy, dx in ring
        ],
        dim=1,
    )
    changes = (bits != bits.roll(1, dims=1)).sum(1, dtype=torch.uint8)
    codes = torch.where(
        changes <= 2, bits.sum(1, dtype=torch.uint8), torch.tensor(9, dtype=torch.uint8, device=plane.device)
    )
    flat = codes.flatten(1)
    return torch.stack([(flat == code).float().mean(1) for code in range(10)], dim=1)


def peaks(plane: Tensor, distance: int) -> Tensor:
    """Find pixels that are the largest within `distance` px (a square window), (b, 1, h, w) bool.

    Among equal pixels the last counts, towards the lower right.
    """
    size = 2 * distance + 1
    down, right = (torch.arange(n, device=plane.device) for n in plane.shape[2:])
    plane = plane + 0.1 * ROUNDING * (down[:, None] + 0.618 * right)
    rows = F.max_pool2d(plane, (size, 1), stride=1, padding=(distance, 0))
    return plane == F.max_pool2d(rows, (1, size), stride=1, padding=(0, distance))


def spread(planes: Tensor) -> Tensor:
    """Compute the standard deviation of each plane's pixels, (b, c); faster than `Tensor.std` on a CPU."""
    mean = planes.mean((2, 3), keepdim=True)
    return torch.sqrt(((planes - mean) ** 2).mean((2, 3)))


def quantiles(planes: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Compute quantiles (nearest rank) of each plane's pixels, (b, c, len(shares)).

    Of a large plane only every fourth pixel is used. Selecting ranks is faster than sorting.
    """
    step = 2 if planes.shape[2] >= 128 else 1
    flat = planes[:, :, ::step, ::step].flatten(2)
    n = flat.shape[2]
    ranks = [1 + round(share * (n - 1)) for share in shares]
    return torch.stack([flat.kthvalue(rank, dim=2).values for rank in ranks], dim=2)
