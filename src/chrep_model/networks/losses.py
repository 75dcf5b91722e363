"""Losses of CHRep (arXiv 2604.21573) for regression, alignment and topology, and those of other methods.

All are computed in float32; expression is standardised per gene.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pearson_by_section(predicted: Tensor, truth: Tensor, section: Tensor) -> Tensor:
    """Return the mean Pearson correlation over genes, computed within each section, averaged over sections.

    Sections are not pooled, because a pooled correlation rewards predicting only each section's mean. A gene
    that a section did not measure has a constant truth there and does not count in that section.

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


def squared_error(predicted: Tensor, truth: Tensor, measured: Tensor | None = None) -> Tensor:
    """Return the mean squared error over measured entries: `measured` (b, genes) bool, None for all."""
    return F.mse_loss(*_measured(predicted, truth, measured))


def _measured(predicted: Tensor, truth: Tensor, measured: Tensor | None) -> tuple[Tensor, Tensor]:
    return (predicted, truth) if measured is None else (predicted[measured], truth[measured])


def regression_loss(
    predicted: Tensor,
    truth: Tensor,
    section: Tensor,
    *,
    mae: float,
    pcc: float,
    measured: Tensor | None = None,
) -> Tensor:
    """Return the regression loss L_reg = MSE + mae * MAE + pcc * (1 - PCC).

    Parameters
    ----------
    predicted, truth : Tensor
        (b, genes) float.
    section : Tensor
        (b,) int, section of each spot.
    mae, pcc : float
        Weights of the terms.
    measured : Tensor, optional
        (b, genes) bool, which entries of `truth` were measured; all unless given. Entries that were not
        measured must be constant within a section, and do not count.
    """
    p, t = predicted.float(), truth.float()
    loss = squared_error(p, t, measured) + mae * F.l1_loss(*_measured(p, t, measured))
    if pcc:
        loss = loss + pcc * (1 - pearson_by_section(p, t, section))
    return loss


def alignment_loss(image: Tensor, gene: Tensor, temperature: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss of unit image and gene features, (L_{M->G} + L_{G->M}) / 2."""
    logits = image.float() @ gene.float().T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def topology_loss(feature: Tensor, adjacency: Tensor, section: Tensor) -> Tensor:
    """Return the squared distance of the features' similarities from the spatial graph, L_spa.

    L_spa = || S~(F_G) - A~ ||_F^2. S holds the positive cosines of features centred within their section, A
    the multi-hop adjacency; both without diagonal and without pairs across sections, and both scaled to unit
    Frobenius norm. The value lies in [0, 2] for any batch size.

    Parameters
    ----------
    feature : Tensor
        (b, d), F_G.
    adjacency : Tensor
        (b, b) float, A_topo of the batch's spots.
    section : Tensor
        (b,) int, section of each spot.

    Returns
    -------
    Tensor
        Scalar; 0 for a batch without edges.
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


def soft_alignment_loss(image: Tensor, spot: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of BLEEP (arXiv 2306.01859), whose targets are softened by similarity.

    Z = q m^T / tau (rows: spots), W = softmax over each row of (m m^T + q q^T) / (2 tau), and the loss is the
    mean of the cross entropies of Z with W and of Z^T with W^T. Gradients flow through W too.

    Parameters
    ----------
    image, spot : Tensor
        (b, d) rows m_i and q_i.
    temperature : float
        Temperature tau.
    """
    m, q = image.float(), spot.float()
    logits = q @ m.T / temperature
    target = F.softmax((m @ m.T + q @ q.T) / (2 * temperature), dim=1)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target.T)) / 2


def image_centric_loss(image: Tensor, spot: Tensor, temperature: float) -> Tensor:
    """Return the contrastive loss of HECLIP (arXiv 2501.14948), from images to spots only.

    Z = v t^T / tau (rows: images), W = softmax over each row of v v^T / tau, and the loss is
    -(1/b) sum_ij W_ji log softmax_j(Z_ij). Gradients flow through W too.

    Parameters
    ----------
    image, spot : Tensor
        (b, d) rows v_i and t_i.
    temperature : float
        Temperature tau.
    """
    v, t = image.float(), spot.float()
    target = F.softmax(v @ v.T / temperature, dim=1)
    return F.cross_entropy(v @ t.T / temperature, target.T)


def supervised_contrastive_loss(feature: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Return a loss that attracts rows with the same label and repels the others (Khosla 2020, eq. 2).

    Mean, over the rows i with a label that occurs more than once, of
    -mean over the other rows p with that label of
    log(exp(r_i.r_p / tau) / sum over a != i of exp(r_i.r_a / tau)).

    Parameters
    ----------
    feature : Tensor
        (b, d) rows r_i of unit length.
    label : Tensor
        (b,) int.
    temperature : float
        Temperature tau.

    Returns
    -------
    Tensor
        Scalar; 0 where no two rows share a label.
    """
    r = feature.float()
    itself = torch.eye(len(r), dtype=torch.bool, device=r.device)
    alike = (label[:, None] == label[None, :]) & ~itself
    some = alike.any(1)
    if not bool(some.any()):
        return r.sum() * 0.0
    log_share = F.log_softmax((r @ r.T / temperature).masked_fill(itself, -torch.inf), dim=1)
    attraction = log_share.masked_fill(~alike, 0.0).sum(1)
    return -(attraction[some] / alike.sum(1)[some]).mean()
