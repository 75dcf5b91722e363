"""The built-in encoder: about 130 statistics of a tile's stain, texture and nuclei, without weights.

Networks trained on photographs are hardly better, and these statistics need no download and each has a name.
All lengths are in µm, so that embeddings do not depend on the slide's resolution.
"""

from __future__ import annotations

import json

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from chrep_model.encoders.encoder import Encoder, SlideState, encoder_id
from chrep_model.encoders.filters import (
    ROUNDING,
    gaussian,
    gaussian_derivatives,
    peaks,
    quantiles,
    spread,
    structure_coherence,
    uniform_patterns,
)
from chrep_model.errors import SettingsError
from chrep_model.slides.stain import fit_stains
from chrep_model.slides.tiles import TileSpec

STAINBANK = "stainbank"
"""Name of this encoder."""

VERSION = 2
"""Increased whenever a number changes its meaning; stored embeddings and bundles are keyed by it."""

SCALES_UM = (0.7, 1.4, 2.8, 5.6)
"""Widths of the Gaussians, each twice the last: chromatin, small nuclei, large nuclei, groups of cells."""

QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)
_STAINS = ("haematoxylin", "eosin", "residual")
NUCLEUS_OCTAVES = (1, 2, 3)
"""Indices of the `SCALES_UM` that detect nuclei: a disc responds most at sigma = radius / sqrt(2)."""


class Stainbank(torch.nn.Module):
    """Statistics of a tile's stain densities, multi-scale texture and nuclei.

    Parameters
    ----------
    mpp : float
        µm per px of the tiles.
    unmix : Tensor
        (3, 3) float: matrix from optical density (R, G, B) to densities of haematoxylin, eosin and residual,
        as fitted on the slide.
    strength : Tensor
        (2,) float: density of strongly stained haematoxylin and eosin on the slide; densities are divided by
        it, so that pale and dark scans are comparable.
    """

    unmix: Tensor
    scale: Tensor

    def __init__(self, mpp: float, unmix: Tensor, strength: Tensor) -> None:
        super().__init__()
        self.mpp = mpp
        self.sigma = max(SCALES_UM[0] / mpp, 0.6)
        self.register_buffer("unmix", unmix.float())
        self.register_buffer("scale", torch.cat([strength.float(), strength.float().mean()[None]]))

    @torch.inference_mode()
    def forward(self, tiles: Tensor) -> Tensor:
        """Embed tiles (b, h, w, 3) uint8 as statistics (b, len(names())) float32."""
        rgb = tiles.permute(0, 3, 1, 2).float()
        density = -torch.log10((rgb + 1.0) / 256.0)
        stains = torch.einsum("bchw,cs->bshw", density, self.unmix) / self.scale.view(1, 3, 1, 1)
        parts = [
            self._colour(rgb, density, stains),
            self._texture(stains[:, :2]),
            self._patterns(stains[:, :1]),
        ]
        return torch.cat(parts, dim=1)

    @staticmethod
    def _colour(rgb: Tensor, density: Tensor, stains: Tensor) -> Tensor:
        centre = _centre(stains)
        sd = spread(stains)
        mean = stains.mean((2, 3))
        haematoxylin, eosin = (stains[:, :2] - mean[:, :2, None, None]).unbind(1)
        together = (haematoxylin * eosin).mean((1, 2)) / (sd[:, 0] * sd[:, 1] + 1e-6)
        total = density.sum(1)
        bare = (total < 0.15).float()
        holes = (gaussian(F.avg_pool2d(total[:, None], 4), 1.5)[:, 0] < 0.15).float()
        return torch.cat(
            [
                mean, sd, quantiles(stains, QUANTILES).flatten(1),
                centre.mean((2, 3)), spread(centre),
                rgb.mean((2, 3)) / 255, spread(rgb) / 255,
                together[:, None], bare.mean((1, 2))[:, None], holes.mean((1, 2))[:, None],
            ],
            dim=1,
        )  # fmt: skip

    def _texture(self, planes: Tensor) -> Tensor:
        """Compute texture at all scales, on planes halved for each, so that one small kernel serves all."""
        parts: list[Tensor] = []
        blobs: list[Tensor] = []
        dark = gaussian(planes[:, :1], 2 * self.sigma) > 0.6
        haematoxylin = planes[:, :1]
        for octave in range(len(SCALES_UM)):
            if octave:
                planes = F.avg_pool2d(planes, 2)
            smooth = gaussian(planes, self.sigma)
            dy, dx, laplacian = gaussian_derivatives(planes, self.sigma)
            contrast = spread(laplacian)
            energy = torch.sqrt(dy**2 + dx**2)
            local, overall = structure_coherence(dy, dx, 3 * self.sigma)
            sharp = quantiles(-laplacian, (0.95,))[:, :, 0]
            # A soft threshold: at a sharp one rounding, which depends on the batch size, would decide.
            darkness = -laplacian / (contrast[:, :, None, None] + ROUNDING)
            share = (10 * (darkness - 1) + 0.5).clamp(0, 1).mean((2, 3))
            parts += [spread(smooth), contrast, sharp, share]
            parts += [energy.mean((2, 3)), spread(energy), local, overall]
            if octave in NUCLEUS_OCTAVES:
                blobs.append(-laplacian[:, :1])
            if octave == NUCLEUS_OCTAVES[0]:
                haematoxylin = planes[:, :1]
        parts += [dark.float().mean((2, 3)), _centre(dark.float()).mean((2, 3))]
        parts.append(self._nuclei(haematoxylin, blobs))
        return torch.cat(parts, dim=1)

    def _nuclei(self, haematoxylin: Tensor, answers: list[Tensor]) -> Tensor:
        """Detect nuclei as peaks of the LoG over scales; return their number, size, darkness and crowding."""
        size = haematoxylin.shape[2:]
        um = self.mpp * 2 ** NUCLEUS_OCTAVES[0]
        stack = torch.cat(
            [F.interpolate(a, size=size, mode="bilinear", align_corners=False) for a in answers], dim=1
        )
        best, scale = stack.max(1, keepdim=True)
        found = (peaks(best, max(1, round(2.0 / um))) & (best > 0.15)).float()
        mm2 = (um / 1000) ** 2
        count = found.sum((1, 2, 3))
        at_least_one = count.clamp(min=1)

        def over_nuclei(values: Tensor) -> Tensor:
            return (values * found).sum((1, 2, 3)) / at_least_one

        mean_h = over_nuclei(haematoxylin)
        spread_h = torch.sqrt(over_nuclei((haematoxylin - mean_h[:, None, None, None]) ** 2))
        crowding = over_nuclei(gaussian(found, 15.0 / um)) / mm2
        density = count / (size[0] * size[1] * mm2)
        centre = _centre(found).mean((1, 2, 3)) / mm2
        sizes = [over_nuclei((scale == i).float()) for i in range(len(answers))]
        columns = [torch.log1p(density), torch.log1p(centre), torch.log1p(crowding)]
        return torch.stack([*columns, mean_h, spread_h, over_nuclei(best), *sizes], dim=1)

    def _patterns(self, haematoxylin: Tensor) -> Tensor:
        radii = (max(1, round(0.7 / self.mpp)), max(2, round(2.0 / self.mpp)))
        return torch.cat([uniform_patterns(haematoxylin, radius) for radius in radii], dim=1)


def names() -> list[str]:
    """Return the name of each statistic, in the order of `Stainbank`'s columns."""
    stain = list(_STAINS)
    out = [f"{s} mean" for s in stain] + [f"{s} sd" for s in stain]
    out += [f"{s} q{round(100 * q)}" for s in stain for q in QUANTILES]
    out += [f"{s} centre mean" for s in stain] + [f"{s} centre sd" for s in stain]
    out += [f"{c} mean" for c in "RGB"] + [f"{c} sd" for c in "RGB"]
    out += ["haematoxylin-eosin correlation", "bare share", "hole share"]
    measures = (
        "blur sd",
        "LoG sd",
        "LoG q95",
        "LoG dark share",
        "edge mean",
        "edge sd",
        "coherence",
        "direction",
    )
    out += [f"{s} {m} {um} µm" for um in SCALES_UM for m in measures for s in stain[:2]]
    out += ["dark share", "dark share, centre"]
    out += ["nuclei per mm2 (log)", "nuclei per mm2, centre (log)", "nuclear crowding (log)"]
    out += ["nuclear haematoxylin mean", "nuclear haematoxylin sd", "nuclear contrast"]
    out += [f"nuclei of {SCALES_UM[i] * 2**0.5:.1f} µm radius, share" for i in NUCLEUS_OCTAVES]
    out += [
        f"pattern {ring} {code}" for ring in ("fine", "coarse") for code in (*map(str, range(9)), "other")
    ]
    return out


def _centre(planes: Tensor) -> Tensor:
    """Cut out the central half of each side: the tissue under the spot, not beside it."""
    h, w = planes.shape[2:]
    return planes[:, :, h // 4 : h - h // 4, w // 4 : w - w // 4]


class StainbankEncoder(Encoder):
    """The built-in encoder; stain colours and strengths are fitted per slide."""

    def __init__(self, spec: TileSpec, device: torch.device) -> None:
        # A cell has to fit in, and be more than a few pixels.
        if spec.px < 24 or spec.um < 12:
            raise SettingsError(
                f"a tile of {spec.um:g} µm ({spec.px} px at {spec.mpp:g} µm/px) has no room for texture",
                remedy="Use a wider tile (--tile-um) or finer pixels (--mpp).",
            )
        self.name, self.spec, self.device = STAINBANK, spec, device
        self.dim = len(names())
        self.id = encoder_id({"encoder": STAINBANK, "version": VERSION, "mpp": spec.mpp, "px": spec.px})
        self._module: tuple[str, torch.nn.Module] | None = None

    def fit_slide(self, sample: NDArray[np.uint8]) -> SlideState:
        """Stain colours and strengths of the slide."""
        fit = fit_stains(sample)
        return {"unmix": fit.unmix.tolist(), "strength": fit.strength.tolist(), "source": fit.source}

    def encode(self, tiles: NDArray[np.uint8], state: SlideState) -> NDArray[np.float32]:
        """Tiles (n, px, px, 3) uint8 to embeddings (n, dim) float32."""
        key = json.dumps(state, sort_keys=True)
        if self._module is None or self._module[0] != key:
            module = Stainbank(self.spec.mpp, torch.tensor(state["unmix"]), torch.tensor(state["strength"]))
            self._module = (key, module.to(self.device).eval())
        out: NDArray[np.float32] = self._module[1](torch.from_numpy(tiles).to(self.device)).cpu().numpy()
        return out
