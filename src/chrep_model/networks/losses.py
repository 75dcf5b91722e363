"""The losses of CHRep (arXiv 2604.21573): correlation-aware regression, symmetric alignment, topology.

All are computed in float32; expression is standardised per gene.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pearson_by_section(predicted: Tensor, truth: Tensor, section: Tensor) -> Tensor:
    """Mean gene-wise Pearson correlation, within each section of the batch and then over sections.

    Within sections, because a correlation over pooled sections rewards guessing the section's offset.

    Parameters
    ----------
    predicted, truth : Tensor
        (b, genes) float.
    section : Tensor
        (b,) int, the section of each spot.

    Returns
    -------
    Tensor
        Scalar in [-1, 1]; 0 where no gene varies in any section.
    """
    values = []
    for s in section.unique():
        rows = section == s
        if int(rows.sum()) < 3:
            continue
        p = predicted[rows].float()
        t = truth[rows].float()
        p, t = p - p.mean(0), t - t.mean(0)
        sd_p, sd_t = p.pow(2).mean(0).add(1e-12).sqrt(), t.pow(2).mean(0).sqrt()
        varies = sd_t > 1e-6
        if bool(varies.any()):
            values.append(((p * t).mean(0) / (sd_p * sd_t + 1e-8))[varies].mean())
    return torch.stack(values).mean() if values else predicted.new_zeros(())


def regression_loss(predicted: Tensor, truth: Tensor, section: Tensor, *, mae: float, pcc: float) -> Tensor:
    """L_reg = MSE + mae * MAE + pcc * (1 - PCC), eq. of the regression term."""
    p, t = predicted.float(), truth.float()
    loss = F.mse_loss(p, t) + mae * F.l1_loss(p, t)
    if pcc:
        loss = loss + pcc * (1 - pearson_by_section(p, t, section))
    return loss


def alignment_loss(image: Tensor, gene: Tensor, temperature: Tensor) -> Tensor:
    """Symmetric InfoNCE between unit rows m_i (image) and q_i (gene): L_con = (L_{M->G} + L_{G->M}) / 2."""
    logits = image.float() @ gene.float().T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def topology_loss(feature: Tensor, adjacency: Tensor, section: Tensor) -> Tensor:
    """L_spa = || S~(F_G) - A~ ||_F^2, how far the features' similarities are from the spatial graph.

    S holds the positive cosines of features centred within their section, A the multi-hop adjacency; both
    without diagonal and without pairs across sections, and both scaled to unit Frobenius norm. The value lies
    in [0, 2] whatever the batch size.

    Parameters
    ----------
    feature : Tensor
        (b, d), F_G.
    adjacency : Tensor
        (b, b) float, A_topo of the batch's spots.
    section : Tensor
        (b,) int.

    Returns
    -------
    Tensor
        Scalar; 0 for a batch without an edge, where the loss says nothing.
    """
    same = section[:, None] == section[None, :]
    share = same.float() / same.sum(1, keepdim=True)
    f = feature.float()
    unit = F.normalize(f - share @ f, dim=1)
    allowed = same & ~torch.eye(len(f), dtype=torch.bool, device=f.device)
    similarity = torch.relu(unit @ unit.T) * allowed
    graph = adjacency.float() * allowed
    norm = graph.norm()
    if float(norm) == 0.0:
        return feature.sum() * 0.0
    difference = similarity / (similarity.norm() + 1e-8) - graph / norm
    return difference.pow(2).sum()
