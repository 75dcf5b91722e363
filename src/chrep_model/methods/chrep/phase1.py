"""CHRep's phase 1 on frozen embeddings: an adapter and a head under three losses.

Regression reads F_H, contrast reads F_M (F_H with the coordinates) against F_G, topology reads F_G;
coordinate branch, fusion, gene encoder and projections serve in training alone and are not kept. A gene that
a section did not measure takes no part in regression; the gene encoder reads the training mean in its place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from chrep_model.mapped_arrays import temporary_array, write_rows
from chrep_model.methods.base import ALL, Arrays, Genes
from chrep_model.methods.network_inputs import Inputs
from chrep_model.networks.heads import (
    Adapter,
    CoordinateBranch,
    Fusion,
    GeneEncoder,
    Projection,
    RegressionHead,
)
from chrep_model.networks.losses import alignment_loss, regression_loss, topology_loss
from chrep_model.statistics import unit_rows
from chrep_model.training.loop import train_objective
from chrep_model.training.objective import Objective, SpotBatch
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable
from chrep_model.training.streamed import Streamed

_WIDTH = 256
"""Of F_G and of the projections."""


class Phase1Settings(BaseModel):
    """Settings of CHRep's phase 1; the paper names no values.

    Attributes
    ----------
    reg, con, spa, mae, pcc : float
        lam_reg, lam_con, lam_spa, lam_mae, lam_PCC.
    inputs : int
        Principal components of the embeddings that the adapter reads.
    dim, hidden : int
        Width of F_H and of the head.
    members : int
        Networks that differ in their random numbers and are averaged.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reg: float = Field(1.0, ge=0)
    con: float = Field(0.1, ge=0)
    spa: float = Field(0.03, ge=0)
    mae: float = Field(0.5, ge=0)
    pcc: float = Field(1.0, ge=0)
    inputs: int = Field(64, gt=0)
    dim: int = Field(64, gt=0)
    hidden: int = Field(128, gt=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    members: int = Field(3, gt=0)
    epochs: int = Field(30, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    sections_per_batch: int = Field(4, gt=0)
    spots_per_section: int = Field(64, gt=0)


class Member(Objective):
    """One network of the ensemble: adapter and head, which are kept, and parts for the losses alone."""

    def __init__(self, inputs: int, genes: int, s: Phase1Settings) -> None:
        super().__init__()
        self.settings = s
        self.adapter = Adapter(inputs, s.dim, s.dropout)
        self.head = RegressionHead(s.dim, s.hidden, genes)
        self.coordinates = CoordinateBranch(s.dim)
        self.fusion = Fusion(s.dim)
        self.gene_encoder = GeneEncoder(genes, _WIDTH)
        self.image_projection = Projection(s.dim, _WIDTH)
        self.gene_projection = Projection(_WIDTH, _WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @property
    def temperature(self) -> Tensor:
        """The learned tau, within [0.01, 0.5]."""
        return torch.exp(-self.log_scale).clamp(0.01, 0.5)

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return L = lam_reg * L_reg + lam_con * L_con + lam_spa * L_spa."""
        s, feature = self.settings, self.adapter(x)
        fit = regression_loss(
            self.head(feature), batch.targets, batch.section, mae=s.mae, pcc=s.pcc, measured=batch.measured
        )
        total = s.reg * fit
        if s.con or s.spa:
            gene = self.gene_encoder(batch.targets)
        if s.con:
            image = self.image_projection(self.fusion(feature, self.coordinates(batch.position)))
            total = total + s.con * alignment_loss(image, self.gene_projection(gene), self.temperature)
        if s.spa:
            total = total + s.spa * topology_loss(gene, batch.adjacency, batch.section)
        return total

    def predict(self, x: Tensor) -> Tensor:
        """Return standardised expression (n, genes) by the head."""
        out: Tensor = self.head(self.adapter(x))
        return out


@dataclass(frozen=True)
class Phase1:
    """The fitted phase 1: maps inputs to F_H and F_H to expression, averaged over members.

    Attributes
    ----------
    inputs : Inputs
        Embeddings to what the adapters read.
    adapters, heads : list of Module
        One of each per member.
    """

    inputs: Inputs
    adapters: list[Adapter]
    heads: list[RegressionHead]

    def compared(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return F_H at unit length, (n, members * dim); for streamed features as a temporary memory map."""
        if not isinstance(features, Streamed):
            return unit_rows(self.feature(features))
        z = temporary_array((len(features), sum(adapter.linear.out_features for adapter in self.adapters)))
        write_rows(z, (unit_rows(self.feature(piece)) for piece in features.pieces()))
        return z

    @torch.inference_mode()
    def feature(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return F_H (n, members * dim), the members' side by side, so that a cosine averages over them."""
        x = torch.from_numpy(self.inputs(features))
        return torch.cat([adapter(x) for adapter in self.adapters], dim=1).numpy()

    @torch.inference_mode()
    def hidden(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the heads' last hidden layers, (n, members * hidden), which do not depend on the gene."""
        x = torch.from_numpy(self.inputs(features))
        parts = [head.body(adapter(x)) for adapter, head in zip(self.adapters, self.heads, strict=True)]
        return torch.cat(parts, dim=1).numpy()

    def read(self, hidden: NDArray[np.float32], genes: Genes = ALL) -> NDArray[np.float32]:
        """Return expression (n, number of genes) from `hidden`."""
        w = np.concatenate([h.readout.weight.detach().numpy()[genes] for h in self.heads], axis=1)
        b = np.mean([h.readout.bias.detach().numpy()[genes] for h in self.heads], axis=0)
        return (hidden @ w.T / len(self.heads) + b).astype(np.float32)

    def arrays(self) -> Arrays:
        """Return all numbers, flat."""
        out = self.inputs.arrays()
        for kind, modules in (("adapter", self.adapters), ("head", self.heads)):
            for i, module in enumerate(modules):
                out |= {f"{kind}{i}.{k}": v.numpy() for k, v in module.state_dict().items()}
        return out

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Phase1:
        """Build it from stored `arrays`, whose shapes give the widths."""
        adapters: list[Adapter] = []
        heads: list[RegressionHead] = []
        while f"adapter{len(adapters)}.linear.weight" in arrays:
            i = len(adapters)
            states = [
                {
                    k.removeprefix(f"{kind}{i}."): torch.from_numpy(v)
                    for k, v in arrays.items()
                    if k.startswith(f"{kind}{i}.")
                }
                for kind in ("adapter", "head")
            ]
            dim, inputs = states[0]["linear.weight"].shape
            genes, hidden = states[1]["readout.weight"].shape
            adapter, head = Adapter(inputs, dim, 0.0), RegressionHead(dim, hidden, genes, 0.0)
            adapter.load_state_dict(states[0])
            head.load_state_dict(states[1])
            adapters.append(adapter.eval())
            heads.append(head.eval())
        if not adapters:
            raise ValueError("no adapter")
        return cls(Inputs.from_arrays(arrays), adapters, heads)


def fit_phase1(table: SpotTable, settings: Phase1Settings, seed: int, run: Run = SILENT_RUN) -> Phase1:
    """Train the members one after the other."""
    inputs = Inputs.fit(table, settings.inputs)
    x = inputs(table.features)
    watched = None if run.watched is None else (inputs(run.watched.features), run.watched)
    members = [
        _fit_member(table, x, settings, seed + 1000 * i, watched, run.within(f"member {i + 1}"))
        for i in range(settings.members)
    ]
    return Phase1(inputs, [m.adapter for m in members], [m.head for m in members])


def _fit_member(
    table: SpotTable,
    x: NDArray[np.float32],
    s: Phase1Settings,
    seed: int,
    watched: tuple[NDArray[np.float32], SpotTable] | None,
    run: Run,
) -> Member:
    torch.manual_seed(seed)
    member = Member(x.shape[1], table.targets.shape[1], s)
    train_objective(
        member, x, table, epochs=s.epochs, lr=s.lr, weight_decay=s.weight_decay, seed=seed,
        sections_per_batch=s.sections_per_batch, spots_per_section=s.spots_per_section, watched=watched,
        run=run,
    )  # fmt: skip
    return member
