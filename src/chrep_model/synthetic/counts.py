"""Negative binomial counts of a synthetic section, with means that follow the tissue under each spot."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from .blueprint import Blueprint
from .cells import KINDS, Cells
from .gene_programmes import ABUNDANCE, GENES, PROGRAMME_OF, PROGRAMMES
from .tissue import COMPARTMENTS, Tissue

Array = NDArray[np.float64]

_NOISE_SHARE = (
    0.012  # share of all counts per unit of relative weight, for each gene of the programme "noise"
)
_SHAPE = 6.0  # of the negative binomial: variance = mean + mean² / shape


@dataclass(frozen=True)
class Spots:
    """Positions of one section's spots and the tissue under each.

    Attributes
    ----------
    xy_um
        float64 (n, 2) centres (x, y) in µm from the picture's top left corner.
    grid
        int64 (n, 2), column and row in the array of spots.
    fractions
        float64 (n, number of compartments), share of each compartment under the spot.
    fields
        Name -> float64 (n,): means of the smooth fields, and densities of cells per mm².
    """

    xy_um: Array
    grid: NDArray[np.int64]
    fractions: Array
    fields: dict[str, Array]


def place_spots(plan: Blueprint, tissue: Tissue, cells: Cells) -> Spots:
    """Place a hexagonal array of spots on a section; keep those with at least half their area on tissue."""
    height, width = plan.size_um
    pitch, drop = plan.pitch_um, plan.pitch_um * np.sqrt(3) / 2
    rng = np.random.default_rng([plan.seed, 5])
    rows, cols = int(height // drop) + 1, int(width // pitch) + 1
    row, col = (a.ravel() for a in np.mgrid[:rows, :cols])
    start = rng.uniform(0.3, 0.7, 2)
    xy = np.stack([(col + start[0] + 0.5 * (row % 2 - 0.5)) * pitch, (row + start[1]) * drop], axis=1)
    edge = plan.spot_um / 2
    inside = (xy > edge).all(axis=1) & (xy[:, 0] < width - edge) & (xy[:, 1] < height - edge)
    xy, grid = xy[inside], np.stack([col, row], axis=1)[inside]
    fractions = tissue.fractions(xy, plan.spot_um)
    kept = fractions.sum(axis=1) >= 0.5
    xy, grid, fractions = xy[kept], grid[kept], fractions[kept]
    fields = {
        name: tissue.mean_under(getattr(tissue, name), xy, plan.spot_um)
        for name in ("hypoxia", "interferon", "grade", "her2", "density", "margin")
    }
    area = np.pi * (plan.spot_um / 2000) ** 2
    centres = np.stack([cells.x, cells.y], axis=1).astype(np.float64)
    for name, kinds in (("lymphocytes_per_mm2", ("lymphocyte",)), ("red_cells_per_mm2", ("red cell",))):
        chosen = centres[np.isin(cells.kind, [KINDS.index(k) for k in kinds])]
        fields[name] = _count_in_discs(xy, chosen, plan.spot_um / 2) / area
    return Spots(xy, grid, fractions, fields)


def _count_in_discs(xy: Array, points: Array, radius: float) -> Array:
    """Count the points within `radius` of every centre, float64 (n,)."""
    if not len(points):
        return np.zeros(len(xy))
    return np.asarray(cKDTree(points).query_ball_point(xy, radius, return_length=True), np.float64)


def activities(plan: Blueprint, spots: Spots) -> dict[str, Array]:
    """Compute the activity of each gene programme in every spot: 0 to about 2, float64 (n,) each."""
    share = dict(zip(COMPARTMENTS, spots.fractions.T, strict=True))
    f, patient = spots.fields, plan.patient
    tumour, stroma, lymphoid = share["tumour"], share["stroma"], share["lymphoid"]
    infiltrate = np.clip(f["lymphocytes_per_mm2"] / 9000, 0, 1.5)
    near = np.exp(-np.abs(f["margin"]) / 250)
    living = 1 - 0.8 * share["necrosis"]
    return {
        "her2": tumour * patient.her2 * (0.4 + 1.2 * f["her2"]) + 0.04,
        "epithelium": tumour * (1.1 - 0.4 * f["grade"]) + 0.8 * share["gland"] + 0.02,
        "proliferation": tumour * (0.15 + 1.6 * f["grade"] ** 1.5) * (1 - 0.5 * f["hypoxia"])
        + 0.25 * lymphoid
        + 0.03,
        "matrix": stroma * (0.4 + f["density"]) + 0.25 * share["gland"] + 0.2 * share["vessel"] + 0.03,
        "myofibroblast": stroma * (0.15 + 1.3 * near) + 0.4 * share["vessel"] + 0.03,
        "t cell": infiltrate + 0.01,
        "b cell": lymphoid * (0.6 + 0.5 * infiltrate) + 0.08 * infiltrate + 0.01,
        "plasma cell": stroma * f["interferon"] * near * 0.9 + 0.35 * lymphoid + 0.03,
        "macrophage": 0.25 * stroma + 0.9 * share["necrosis"] + 0.35 * infiltrate + 0.05,
        "interferon": f["interferon"] ** 1.5 * (0.25 + 0.8 * tumour + 0.5 * infiltrate) + 0.05,
        "adipose": share["adipose"] * 1.6 + 0.015,
        "hypoxia": tumour * f["hypoxia"] * 1.6 + 0.8 * share["necrosis"] + 0.06,
        "necrosis": 1.8 * share["necrosis"] + 0.3 * tumour * f["hypoxia"] + 0.05,
        "endothelium": 4 * share["vessel"] + 0.25 * stroma + 0.2 * share["adipose"] + 0.04,
        "red cell": np.clip(f["red_cells_per_mm2"] / 3000, 0, 2) + 0.03,
        "normal gland": 2.2 * share["gland"] + 0.03,
        "mitochondria": (0.3 + 0.6 * tumour + 0.5 * share["gland"]) * living,
        "housekeeping": 0.45 + 0.35 * tumour + 0.35 * infiltrate,
        "noise": np.ones(len(spots.xy_um)),
    }


def _gene_rng(gene: str, salt: int) -> np.random.Generator:
    """Random generator of one gene, the same in all sections, seeds and gene lists."""
    return np.random.default_rng([zlib.crc32(gene.encode()), salt])


def expected_shares(plan: Blueprint, spots: Spots, genes: tuple[str, ...]) -> Array:
    """Compute each gene's expected share of a spot's counts.

    A gene has its own level, follows its programme with its own steepness, differs slightly between patients
    and depends slightly on a second programme. Genes of the programme "noise" have a constant share.

    Returns
    -------
    float64 (n, number of genes), rows sum to 1.
    """
    level = activities(plan, spots)
    names = [name for name in PROGRAMMES if name != "noise"]
    driven = np.zeros((len(spots.xy_um), len(genes)))
    constant = np.zeros(len(genes))
    for column, gene in enumerate(genes):
        rng = _gene_rng(gene, 0)
        base = ABUNDANCE[PROGRAMME_OF[gene]] * np.exp(0.55 * rng.standard_normal())
        if PROGRAMME_OF[gene] == "noise":
            constant[column] = base
            continue
        steep, leak = rng.uniform(0.8, 1.25), rng.uniform(0, 0.08)
        other = level[names[int(rng.integers(len(names)))]]
        patient = np.exp(0.22 * _gene_rng(gene, zlib.crc32(plan.patient.name.encode())).standard_normal())
        driven[:, column] = base * patient * (level[PROGRAMME_OF[gene]] ** steep + leak * other)
    constant *= _NOISE_SHARE / max(ABUNDANCE["noise"], 1e-12)
    driven *= (1 - constant.sum()) / driven.sum(axis=1, keepdims=True)
    return driven + constant


def draw_counts(plan: Blueprint, spots: Spots) -> sparse.csr_matrix:
    """Draw random counts for all spots of a section.

    Returns
    -------
    int32 CSR (n, number of genes).
    """
    genes = plan.genes or GENES
    rng = np.random.default_rng([plan.seed, 6])
    n = len(spots.xy_um)
    share = dict(zip(COMPARTMENTS, spots.fractions.T, strict=True))
    rich = 1 - 0.45 * share["adipose"] - 0.5 * share["necrosis"] - 0.5 * (1 - spots.fractions.sum(axis=1))
    panel = len(genes) / len(GENES)
    depth = plan.scanner.depth * panel * rich * np.exp(plan.scanner.depth_spread * rng.standard_normal(n))
    mean = expected_shares(plan, spots, genes) * depth[:, None]
    counts = rng.poisson(rng.gamma(_SHAPE, mean / _SHAPE))
    return sparse.csr_matrix(counts.astype(np.int32))
