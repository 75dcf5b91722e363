"""Shared code of the contrastive methods: a projection of images, and the mean of similar gallery spots.

Where a section did not measure a gene, the projection of expression reads the training mean; the mean of
similar spots is over those that measured the gene.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from chrep_model.calibration.gallery import Gallery, mean_of
from chrep_model.methods.base import ALL, Arrays, FittedMethod, Genes, Method, Response
from chrep_model.methods.network_inputs import Inputs
from chrep_model.methods.settings_choice import choose_settings
from chrep_model.networks.heads import ResidualHead
from chrep_model.statistics import unit_rows
from chrep_model.training.loop import train_objective
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

INPUTS = 64
"""Principal components of the frozen embeddings that the image projection reads, as in CHRep."""


class RetrievalSettings(BaseModel):
    """Settings for training a contrastive method and predicting with it.

    Attributes
    ----------
    epochs, lr, weight_decay, batch : int, float, float, int
        Of AdamW and of random batches.
    temperature : float
        tau, between embeddings that are not scaled to unit length: their squared length is about `width`.
    k : int
        Neighbours.
    width : int
        Of the common space.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(30, gt=0)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-3, ge=0)
    batch: int = Field(256, gt=1)
    temperature: float = Field(1.0, gt=0)
    k: int = Field(50, gt=0)
    width: int = Field(256, gt=0)


class Aligned(Objective):
    """Network that maps the image and the expression of a spot to similar codes."""

    image: ResidualHead


class Paired(Aligned):
    """Network that also has codes for measured spots, by which they are retrieved."""

    @abstractmethod
    def spots(self, targets: Tensor, position: Tensor, section: Tensor) -> Tensor:
        """Return codes (n, width) of measured spots, see `SpotBatch`."""


class FittedRetrieval(FittedMethod):
    """Predicts the mean of the k gallery spots whose codes are most similar to the image's.

    Parameters
    ----------
    inputs : Inputs
        Embeddings to what the projection reads.
    image : ResidualHead
        Inputs to codes.
    gallery : Gallery
        Training spots under their codes at unit length.
    k : int
        How many are asked.
    """

    k: int

    def __init__(self, inputs: Inputs, image: ResidualHead, gallery: Gallery, k: int) -> None:
        self.inputs, self.image, self.gallery, self.k = inputs, image.eval(), gallery, k

    def compare(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return codes at unit length."""
        return unit_rows(image_codes(self.image, self.inputs, features))

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        found = self.gallery.search(z, self.k, device=self.device)
        weights = np.full(found.index.shape, 1 / found.index.shape[1], np.float32)
        return {"neighbours": found.index, "similarity": found.similarity, "weights": weights}

    def weights(self, response: Response) -> NDArray[np.float32]:
        """Return the weights of the neighbours, computed from the tile's own code."""
        out: NDArray[np.float32] = response["weights"]
        return out

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return the weighted mean of the neighbours' measured values."""
        values = self.gallery.expression[:, genes]
        return mean_of(response["neighbours"], response["weights"], values, self.gallery.known(genes))

    def arrays(self) -> Arrays:
        """Return all numbers, flat."""
        image = {f"image.{k}": v.numpy() for k, v in self.image.state_dict().items()}
        return {**self.inputs.arrays(), **image, "k": np.array([self.k])}

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedRetrieval:
        """Build it from stored `arrays`, whose shapes give the widths."""
        state = {
            k.removeprefix("image."): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("image.")
        }
        width, inputs = state["first.weight"].shape
        image = ResidualHead(inputs, width)
        image.load_state_dict(state)
        return cls(Inputs.from_arrays(arrays), image, gallery, int(arrays["k"][0]))


class Retrieval(Method):
    """A contrastive method.

    Parameters
    ----------
    settings : RetrievalSettings, optional
        One of `candidates` is chosen on a held-out training section unless given.
    """

    random = True
    candidates: ClassVar[tuple[Any, ...]]
    settings: RetrievalSettings | None

    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedRetrieval:
        """Choose the settings, train, and store the training spots in the gallery by their codes."""

        def fit(settings: RetrievalSettings, rows: SpotTable, run: Run) -> FittedRetrieval:
            torch.manual_seed(seed)
            inputs = Inputs.fit(rows, INPUTS)
            network = self.network(inputs.count, rows.targets.shape[1], settings)
            train_objective(
                network, inputs(rows.features), rows, epochs=settings.epochs, lr=settings.lr,
                weight_decay=settings.weight_decay, batch_size=settings.batch, seed=seed, run=run,
            )  # fmt: skip
            return self.fitted(network, inputs, rows, settings)

        return fit(self.settings or choose_settings(self.candidates, fit, table, run), table, run)

    def objective(self, inputs: int, genes: int) -> Aligned:
        """Return its network."""
        return self.network(inputs, genes, self.settings or self.candidates[0])

    @abstractmethod
    def network(self, inputs: int, genes: int, settings: Any) -> Aligned:
        """Return the untrained network."""

    @abstractmethod
    def fitted(self, network: Any, inputs: Inputs, table: SpotTable, settings: Any) -> FittedRetrieval:
        """Return the fitted method of a trained network."""


@torch.inference_mode()
def image_codes(image: ResidualHead, inputs: Inputs, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return codes (n, width) of features (n, d), not normalised."""
    out: NDArray[np.float32] = image(torch.from_numpy(inputs(features))).numpy()
    return out


@torch.inference_mode()
def spot_codes(network: Paired, table: SpotTable) -> NDArray[np.float32]:
    """Return codes (n, width) of the table's measured spots, computed per section."""
    arrays = (table.targets, table.unit_position(), table.section)
    parts = []
    for s in np.unique(table.section):
        rows = np.flatnonzero(table.section == s)
        parts.append((rows, network.spots(*(torch.from_numpy(a[rows]) for a in arrays)).numpy()))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    out: NDArray[np.float32] = np.concatenate([codes for _, codes in parts])[order]
    return out
