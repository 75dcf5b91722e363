"""Attention among the spots of a section (mclSTExp), and of genes to the tokens of a tile (HAGE-like)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

POSITIONS = 128
"""Rows and columns that have a position embedding of their own."""


class SpotTransformer(nn.Module):
    """Expression with its place on the section to a context-aware expression, the spot encoder of mclSTExp.

    h_i = g_i + Ex[x_i] + Ey[y_i], then pre-norm transformer blocks over the spots. Spots attend to those of
    their own section alone, so that a spot's code does not depend on what else is in the batch.

    Parameters
    ----------
    genes : int
        Width throughout, as published.
    blocks, heads, head_dim : int
        2 blocks of 8 heads of 64 as published.
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
            (b, 2) in [0, 1] within the section, (x, y).
        section : Tensor
            (b,) int.

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
    """Gene-type embeddings read a tile's tokens by cross-attention, and each gene is read out of what it got.

    With queries q_g of the gene embeddings E_g, and keys and values of the tokens,
    C_bg = E_g + O sum_p softmax_p(q_g . k_bp / sqrt(e)) v_bp over the heads, and w_g . C_bg + b_g is the
    prediction. As the queries are the same for all tiles, the values are multiplied by O and w_g first, and
    the (tiles, genes, dim) array C is never made.

    Parameters
    ----------
    genes, dim, heads : int
        Number of genes, width of all embeddings, heads.
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
        """Predict genes of tiles.

        Parameters
        ----------
        tokens : Tensor
            (b, p, dim).
        genes : slice or Tensor
            Which.

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
