"""mclSTExp (Brief. Bioinform. 25(6) bbae551, 2024) on frozen embeddings.

A transformer encodes the expression of a spot with its place and the other spots of its section; codes of
images and spots are aligned by a symmetric contrastive loss. A tile gets the mean of the most similar spots,
weighted by one over their squared distance.

In the published code attention runs over the mini-batch, sections mixed and, at the seams, test spots among
training spots; here over the spots of one section, which makes codes independent of the batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chrep_model.calibration.gallery import Gallery
from chrep_model.methods.base import Arrays, Response, gallery_of
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.registry import register
from chrep_model.methods.retrieval import (
    FittedRetrieval,
    Paired,
    Retrieval,
    RetrievalSettings,
    image_codes,
    spot_codes,
)
from chrep_model.networks.attention import SpotTransformer
from chrep_model.networks.heads import ResidualHead
from chrep_model.networks.losses import alignment_loss
from chrep_model.statistics import unit_rows
from chrep_model.training.objective import SpotBatch
from chrep_model.training.samples import SpotTable

_CHUNK = 64
"""Tiles whose distances to all their neighbours fit into the memory."""


class MclstexpSettings(RetrievalSettings):
    """Settings of mclSTExp. Published: rate, decay, batch, temperature, width; k and norm vary by cohort.

    Attributes
    ----------
    norm : {1, 2}
        Of the distance in the weights.
    """

    lr: float = 1e-4
    batch: int = 128
    k: int = 200
    norm: Literal[1, 2] = 1


class MclstexpNetwork(Paired):
    """Image projection and spot transformer, trained with a symmetric contrastive loss."""

    temperature: Tensor

    def __init__(self, inputs: int, genes: int, settings: MclstexpSettings) -> None:
        super().__init__()
        self.settings = settings
        self.image = ResidualHead(inputs, settings.width, dropout=0.0)
        self.spot = SpotTransformer(genes)
        self.projection = ResidualHead(genes, settings.width, dropout=0.0)
        self.register_buffer("temperature", torch.tensor(settings.temperature))

    def loss(self, x: Tensor, batch: SpotBatch) -> Tensor:
        """Return the symmetric cross entropy between image and spot codes."""
        spots = self.spots(batch.targets, batch.position, batch.section)
        return alignment_loss(self.image(x), spots, self.temperature)

    def spots(self, targets: Tensor, position: Tensor, section: Tensor) -> Tensor:
        """Return the codes of spots, each computed from all spots of its section."""
        out: Tensor = self.projection(self.spot(targets, position, section))
        return out


class FittedMclstexp(FittedRetrieval):
    """Fitted `Mclstexp`.

    Parameters
    ----------
    inputs, image, gallery, k
        See `FittedRetrieval`.
    length : ndarray
        (n,) float32 of the gallery's codes.
    norm : int
        1 or 2.
    """

    def __init__(
        self, inputs: Inputs, image: ResidualHead, gallery: Gallery, k: int,
        length: NDArray[np.float32], norm: int,
    ) -> None:  # fmt: skip
        super().__init__(inputs, image, gallery, k)
        self.length, self.norm = length, norm

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        """Find neighbours by cosine, and weight them by the distance between codes of any length."""
        response = super()._respond(features, z)
        codes = image_codes(self.image, self.inputs, features)
        for start in range(0, len(codes), _CHUNK):
            part = slice(start, start + _CHUNK)
            found = response["neighbours"][part]
            near = self.gallery.z[found] * self.length[found][:, :, None]
            distance = np.linalg.norm(near - codes[part, None], ord=self.norm, axis=2)
            weights = 1 / np.maximum(distance, 1e-6) ** 2
            response["weights"][part] = weights / weights.sum(1, keepdims=True)
        return response

    def arrays(self) -> Arrays:
        """Return all fitted numbers by name."""
        return {**super().arrays(), "length": self.length, "norm": np.array([self.norm])}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedMclstexp:
        """Build it from stored `arrays`."""
        base = FittedRetrieval.from_arrays(arrays, gallery)
        return cls(base.inputs, base.image, gallery, base.k, arrays["length"], int(arrays["norm"][0]))


@register
class Mclstexp(Retrieval):
    """mclSTExp; see the module."""

    name = "mclstexp"
    title = "mclSTExp"
    description = "Contrastive learning with spatial context on the expression side."
    kind = "rival"
    reference = "mclSTExp: Briefings in Bioinformatics 25(6), bbae551 (2024)."
    fitted_class = FittedMclstexp
    settings_class = MclstexpSettings
    candidates: ClassVar[tuple[MclstexpSettings, ...]] = (
        MclstexpSettings(),
        MclstexpSettings(k=50),
        MclstexpSettings(k=50, lr=3e-4, temperature=16),
        MclstexpSettings(k=50, lr=1e-3),
        MclstexpSettings(k=100, lr=1e-3, norm=2),
        MclstexpSettings(k=25, lr=1e-3),
    )

    def network(self, inputs: int, genes: int, settings: MclstexpSettings) -> MclstexpNetwork:
        """Return a new, untrained network."""
        return MclstexpNetwork(inputs, genes, settings)

    def fitted(
        self, network: MclstexpNetwork, inputs: Inputs, table: SpotTable, settings: MclstexpSettings
    ) -> FittedMclstexp:
        """Put the spots into the gallery under their codes."""
        codes = spot_codes(network, table)
        length = np.linalg.norm(codes, axis=1)
        gallery = gallery_of(table, unit_rows(codes))
        return FittedMclstexp(inputs, network.image, gallery, settings.k, length, settings.norm)
