"""What a tile may look like and still be the same tissue: turned, mirrored, stained a little otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_DARKEST = 1 / 255


@dataclass(frozen=True)
class Augmentation:
    """One random change for each tile of a batch.

    Attributes
    ----------
    turn : Tensor
        (n,) int in 0 to 7: quarter turns, and from 4 on a mirror image after them.
    gain : Tensor
        (n, 3) float: factors of the optical density of red, green and blue.
    """

    turn: Tensor
    gain: Tensor

    @classmethod
    def draw(cls, n: int, jitter: float) -> Augmentation:
        """Draw for `n` tiles by torch's generator of the CPU; gains are uniform in 1 ± jitter."""
        return cls(torch.randint(8, (n,)), 1 + jitter * (2 * torch.rand(n, 3) - 1))

    def part(self, rows: slice) -> Augmentation:
        """Those of some tiles of the batch."""
        return Augmentation(self.turn[rows], self.gain[rows])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Change pixels (n, 3, px, px) in [0, 1]; white stays white.

        By Beer and Lambert's law the optical density -log(pixel) is proportional to the amount of stain, so
        that a factor of the density is a power of the pixel.
        """
        gain = self.gain.to(pixels.device)[:, :, None, None]
        out = pixels.clamp_min(_DARKEST) ** gain
        turned = torch.empty_like(out)
        for turn in range(8):
            rows = (self.turn == turn).to(out.device)
            tiles = torch.rot90(out[rows], turn % 4, dims=(2, 3))
            turned[rows] = tiles.flip(3) if turn >= 4 else tiles
        return turned
