"""Attention layers: between spots of a section (mclSTExp), and from genes to a tile's tokens (HAGE-like)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POSITIONS = 128
"""Number of position embeddings for rows, and for columns."""


class SpotTransformer(nn.Module):
    """Spot encoder of mclSTExp: a transformer over the expression and positions of a section's spots.

    h_i = g_i + Ex[x_i] + Ey[y_i], then pre-norm transformer blocks over the spots. Spots attend only to spots
    of their own section, so that a spot's code does not depend on the other sections of the batch.

    Parameters
    ----------
    genes : int
        Number of genes, which is the width of all layers, as published.
    blocks, heads, head_dim : int
        Number of blocks, heads per block and width of a head; as published by default.
    """

    def __init__(self, genes: int, blocks: int = 2, heads: int = 8, head_dim: int = 64) -> None:
        super().__init__()
        self.row, self.column = (nn.Embedding(POSITIONS, genes) for _ in range(2))
        self.blocks = nn.ModuleList(_Block(genes, heads, head_dim) for _ in range(blocks))

    def forward(self, expression: Tensor, position: Tensor, section: Tensor) -> Tensor:
        """Encode spots.

        Parameters
        ----------
        expression : Tensor
            (b, genes).
        position : Tensor
            (b, 2), (x, y) scaled to [0, 1] within the section.
        section : Tensor
            (b,) int, section of each spot.

        Returns
        -------
        Tensor
            (b, genes).
        """
        place = (position * (POSITIONS - 1)).round().long()
        h = expression + self.column(place[:, 0]) + self.row(place[:, 1])
        together = section[:, None] == section[None, :]
        for block in self.blocks:
            h = block(h, together)
        out: Tensor = h
        return out


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, dim)
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))

    def forward(self, h: Tensor, together: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(1, (self.heads, -1)).transpose(0, 1)
            for part in self.qkv(self.before(h)).chunk(3, 1)
        )
        heard = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=together)
        h = h + self.out(heard.transpose(0, 1).flatten(1))
        out: Tensor = h + self.feed(h)
        return out


class GeneAttention(nn.Module):
    """Predict genes from a tile's tokens by cross-attention, with one learned query per gene.

    With queries q_g of the gene embeddings E_g, and keys and values of the tokens,
    C_bg = E_g + O sum_p softmax_p(q_g . k_bp / sqrt(e)) v_bp over the heads, and w_g . C_bg + b_g is the
    prediction. As all tiles have the same queries, the values are multiplied by O and w_g first; the
    (tiles, genes, dim) array C is never computed.

    Parameters
    ----------
    genes, dim, heads : int
        Number of genes, width of all embeddings and number of heads.
    """

    def __init__(self, genes: int, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.genes = nn.Parameter(torch.zeros(genes, dim))
        self.before = nn.LayerNorm(dim)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.weight = nn.Parameter(torch.zeros(genes, dim))
        self.bias = nn.Parameter(torch.zeros(genes))

    def forward(self, tokens: Tensor, genes: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Predict the expression of genes in tiles.

        Parameters
        ----------
        tokens : Tensor
            (b, p, dim), p tokens per tile.
        genes : slice or Tensor
            Genes to predict.

        Returns
        -------
        prediction : Tensor
            (b, number of genes).
        context : Tensor
            (b, dim), C averaged over these genes.
        """
        e, w, heads = self.genes[genes], self.weight[genes], (self.heads, -1)
        q, k, v = (
            layer(x).unflatten(-1, heads)
            for layer, x in ((self.query, self.before(e)), (self.key, tokens), (self.value, tokens))
        )
        share = torch.einsum("bphe,ghe->bhpg", k, q / math.sqrt(q.shape[-1])).softmax(2).flatten(1, 2)
        values = torch.einsum("bphe,dhe->bhpd", v, self.out.weight.unflatten(1, (self.heads, -1))).flatten(
            1, 2
        )
        own = (w * (e + self.out.bias)).sum(1) + self.bias[genes]
        prediction = (share * (values @ w.T)).sum(1) + own
        context = (share.mean(2)[:, None] @ values)[:, 0] + self.out.bias + e.mean(0)
        return prediction, context
