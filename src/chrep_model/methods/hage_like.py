"""HAGE-like method, by the abstract of HAGE (MICCAI 2025, paper 2215); equations and code are unpublished.

Gene-type embeddings, started from the genes' co-expression, read the tile by cross-attention; patches alike
in expression and in looks are clustered coarsely and finely, and a supervised contrastive loss draws those
of a cluster together. How that is done is ours; it must not be called HAGE.

A frozen embedding is one vector, not a map of patches: linear slices of it are the tokens.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.cluster.hierarchy import fcluster, ward
from torch import Tensor, nn

from chrep_model.calibration.gallery import Gallery
from chrep_model.methods.base import ALL, Arrays, FittedMethod, Genes, Method, Response, gallery_of
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.registry import register
from chrep_model.methods.settings_choice import choose_settings
from chrep_model.networks.attention import GeneAttention
from chrep_model.networks.heads import GeneEncoder
from chrep_model.networks.losses import alignment_loss, squared_error, supervised_contrastive_loss
from chrep_model.statistics import unit_rows
from chrep_model.training.loop import train_objective
from chrep_model.training.objective import Objective, SpotBatch
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

CLUSTERS = (8, 64)
"""Coarse and fine."""

HEADS = 4
_BLOCK = 50
"""Principal components of expression, and of looks, by which spots are clustered."""


class HageLikeSettings(BaseModel):
    """Settings of the HAGE-like method; HAGE's own are not known.

    Attributes
    ----------
    hier, con : float
        Weights of the losses over clusters, and of image against expression.
    temperature : float
        Of both.
    inputs : int
        Principal components of the embeddings that are read.
    tokens, dim : int
        Slices of them, and width of all embeddings.
    hide : float
        Share of inputs hidden in training.
    epochs, lr, weight_decay, batch
        Of AdamW and of random batches.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hier: float = Field(0.5, ge=0)
    con: float = Field(0.5, ge=0)
    temperature: float = Field(0.1, gt=0)
    inputs: int = Field(32, gt=0)
    tokens: int = Field(4, gt=0)
    dim: int = Field(32, gt=0, multiple_of=HEADS)
    hide: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(40, gt=0)
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    batch: int = Field(256, gt=1)


class HageLikeNetwork(Objective):
    """Tokens and gene attention, with losses over clusters and against expression."""

    started: Tensor
    temperature: Tensor

    def __init__(self, inputs: int, genes: int, settings: HageLikeSettings) -> None:
        super().__init__()
        self.settings = settings
        self.tokens = Tokens(inputs, settings.tokens, settings.dim, settings.hide)
        self.attention = GeneAttention(genes, settings.dim, HEADS)
        self.norm = nn.LayerNorm(settings.dim)
        self.code = GeneEncoder(genes, settings.dim)
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("temperature", torch.tensor(settings.temperature))
        self._expression: NDArray[np.float64] | None = None
        self._clusters: list[Tensor] = []

    def before_epoch(self, x: Tensor, targets: Tensor) -> None:
        """Initialise gene embeddings from co-expression, once; cluster the spots anew."""
        if not bool(self.started):
            self._start(targets)
        if self.settings.hier:
            with torch.no_grad():
                looks = torch.cat([self._read(part)[1] for part in x.split(512)])
            if self._expression is None:
                self._expression = _block(targets.cpu().numpy())
            tree = ward(np.hstack([self._expression, _block(looks.cpu().numpy())]))
            self._clusters = [torch.from_numpy(fcluster(tree, k, "maxclust")).to(x.device) for k in CLUSTERS]

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return MSE + con * alignment + hier * mean over both levels of the supervised contrast.

        The squared error counts what was measured; elsewhere expression is read as the training mean.
        """
        s = self.settings
        predicted, looks = self._read(x)
        total = squared_error(predicted.float(), batch.targets, batch.measured)
        if s.con:
            code = F.normalize(self.code(batch.targets), dim=1)
            total = total + s.con * alignment_loss(looks, code, self.temperature)
        for clusters in self._clusters:
            contrast = supervised_contrastive_loss(looks, clusters[batch.rows], s.temperature)
            total = total + s.hier / len(CLUSTERS) * contrast
        return total

    def predict(self, x: Tensor) -> Tensor:
        """Return standardised expression (n, genes)."""
        return torch.cat([self._read(part)[0] for part in x.split(512)])

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction (b, genes), and r_i = LN(mean token + mean over genes of C) at length one, (b, dim)."""
        tokens = self.tokens(x)
        predicted, context = self.attention(tokens)
        return predicted, F.normalize(self.norm(tokens.mean(1) + context), dim=1)

    @torch.no_grad()
    def _start(self, targets: Tensor) -> None:
        """Set E to the leading eigenvectors of the gene-gene correlation, mean square one."""
        z = (targets - targets.mean(0)) / targets.std(0).clamp(min=1e-6)
        dim = self.attention.genes.shape[1]
        _, size, directions = torch.linalg.svd(z / math.sqrt(len(z)), full_matrices=False)
        kept = (directions[:dim].T * size[:dim]).float()
        genes = self.attention.genes
        genes.zero_()
        genes[:, : kept.shape[1]] = kept / kept.pow(2).mean().sqrt().clamp(min=1e-6)
        self.attention.weight.copy_(genes / dim)
        self.attention.bias.copy_(-(genes * self.attention.weight).sum(1))
        self.started.fill_(True)


class Tokens(nn.Module):
    """Cuts a feature vector into linear slices, each normalised: (b, inputs) to (b, tokens, dim)."""

    def __init__(self, inputs: int, tokens: int, dim: int, hide: float) -> None:
        super().__init__()
        self.shape = (tokens, dim)
        self.hide = nn.Dropout(hide)
        self.linear = nn.Linear(inputs, tokens * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens."""
        out: Tensor = self.norm(self.linear(self.hide(x)).unflatten(1, self.shape))
        return out


def _block(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return scores of the leading principal components, scaled to rows of mean length one."""
    centred = (values - values.mean(0)).astype(np.float64)
    u, size, _ = np.linalg.svd(centred, full_matrices=False)
    scores = u[:, :_BLOCK] * size[:_BLOCK]
    out: NDArray[np.float64] = scores / max(float(np.linalg.norm(scores, axis=1).mean()), 1e-12)
    return out


class FittedHageLike(FittedMethod):
    """A fitted `HageLike`."""

    def __init__(self, inputs: Inputs, tokens: Tokens, attention: GeneAttention, gallery: Gallery) -> None:
        self.inputs, self.tokens, self.attention = inputs, tokens.eval(), attention.eval()
        self.gallery = gallery

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        with torch.inference_mode():
            return {"tokens": self.tokens(torch.from_numpy(self.inputs(features))).numpy()}

    @torch.inference_mode()
    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return expression of the requested genes, computed from the tokens."""
        tokens = torch.from_numpy(response["tokens"])
        which = genes if isinstance(genes, slice) else torch.from_numpy(genes)
        parts = [self.attention(part, which)[0] for part in tokens.split(512)]
        out: NDArray[np.float32] = torch.cat(parts).numpy()
        return out

    def arrays(self) -> Arrays:
        """Return all numbers, flat."""
        parts = {"tokens": self.tokens, "attention": self.attention}
        out = {f"{name}.{k}": v.numpy() for name, part in parts.items() for k, v in part.state_dict().items()}
        return {**self.inputs.arrays(), **out}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedHageLike:
        """Build it from stored `arrays`, whose shapes give the widths."""
        genes, dim = arrays["attention.genes"].shape
        width, inputs = arrays["tokens.linear.weight"].shape
        tokens, attention = Tokens(inputs, width // dim, dim, 0.0), GeneAttention(genes, dim, HEADS)
        for name, part in (("tokens", tokens), ("attention", attention)):
            prefix = f"{name}."
            part.load_state_dict(
                {
                    k.removeprefix(prefix): torch.from_numpy(v)
                    for k, v in arrays.items()
                    if k.startswith(prefix)
                }
            )
        return cls(Inputs.from_arrays(arrays), tokens, attention, gallery)


@register
class HageLike(Method):
    """The HAGE-like method; see the module.

    Parameters
    ----------
    settings : HageLikeSettings, optional
        One of `candidates` is chosen on a held-out training section unless given.
    """

    name = "hage_like"
    title = "HAGE-like"
    description = "Gene embeddings that attend to the image; built from the abstract of HAGE."
    kind = "rival"
    reference = "HAGE: MICCAI 2025. The row HAGE-like follows its abstract, not its code."
    fitted_class = FittedHageLike
    settings_class = HageLikeSettings
    random = True
    candidates: ClassVar[tuple[HageLikeSettings, ...]] = (
        HageLikeSettings(),
        HageLikeSettings(hier=0.1, con=0.1),
        HageLikeSettings(hier=0.1, con=0.1, inputs=64),
        HageLikeSettings(hier=0.1, con=0.1, inputs=64, hide=0.3),
        HageLikeSettings(hier=0.1, con=0.1, inputs=16),
        HageLikeSettings(hier=0.1, con=0.1, epochs=80),
    )
    settings: HageLikeSettings | None

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedHageLike:
        """Choose the settings and train."""

        def fit(s: HageLikeSettings, rows: SpotTable, run: Run) -> FittedHageLike:
            torch.manual_seed(seed)
            inputs = Inputs.fit(rows, s.inputs)
            network = HageLikeNetwork(inputs.count, rows.targets.shape[1], s)
            train_objective(
                network, inputs(rows.features), rows, epochs=s.epochs, lr=s.lr, weight_decay=s.weight_decay,
                batch_size=s.batch, seed=seed, run=run,
            )  # fmt: skip
            gallery = gallery_of(rows, unit_rows(rows.features))
            return FittedHageLike(inputs, network.tokens, network.attention, gallery)

        return fit(self.settings or choose_settings(self.candidates, fit, table, run), table, run)

    def objective(self, inputs: int, genes: int) -> HageLikeNetwork:
        """Return its network."""
        return HageLikeNetwork(inputs, genes, self.settings or self.candidates[0])
