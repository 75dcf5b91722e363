"""Random augmentation of training tiles: rotation, mirroring and variation of the stain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DARKEST = 1 / 255


@dataclass(frozen=True)
class Augmentation:
    """Random changes for a batch of tiles, one per tile.

    Attributes
    ----------
    turn : Tensor
        (n,) int in 0 to 7: number of quarter turns, modulo 4; tiles with 4 or more are then mirrored.
    gain : Tensor
        (n, 3) float: factors on the optical density of red, green and blue.
    """

    turn: Tensor
    gain: Tensor

    @classmethod
    def draw(cls, n: int, jitter: float) -> Augmentation:
        """Draw changes for `n` tiles with torch's CPU generator; gains are uniform in 1 ± jitter."""
        return cls(torch.randint(8, (n,)), 1 + jitter * (2 * torch.rand(n, 3) - 1))

    def part(self, rows: slice) -> Augmentation:
        """Return the changes of some tiles of the batch."""
        return Augmentation(self.turn[rows], self.gain[rows])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply the changes to pixels (n, 3, px, px) in [0, 1]; white stays white.

        By the Beer-Lambert law the optical density -log(pixel) is proportional to the amount of stain, so
        that a factor on the density is an exponent of the pixel.
        """
        gain = self.gain.to(pixels.device)[:, :, None, None]
        out = pixels.clamp_min(_DARKEST) ** gain
        turned = torch.empty_like(out)
        for turn in range(8):
            rows = (self.turn == turn).to(out.device)
            tiles = torch.rot90(out[rows], turn % 4, dims=(2, 3))
            turned[rows] = tiles.flip(3) if turn >= 4 else tiles
        return turned
