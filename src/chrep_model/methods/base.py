"""The interface of all methods: fit on spots, compute a response to features, read genes from it.

A method never sees a slide, a file or raw counts. It gets a table of training spots and gives back something
that answers for new features in two steps: `respond` does what does not depend on the gene (hidden layers,
neighbours, weights), `read` gives the values of the genes asked for, cheaply. Switching the gene on a screen
is one `read`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from chrep_model.calibration.gallery import Gallery, Neighbours
from chrep_model.calibration.trust import Trust
from chrep_model.errors import SettingsError
from chrep_model.statistics import unit_rows
from chrep_model.training.objective import Objective
from chrep_model.training.run import SILENT_RUN, Run
from chrep_model.training.samples import SpotTable

Response = dict[str, NDArray[Any]]
"""Arrays with one row per tile; what they hold is the method's affair."""

Arrays = dict[str, NDArray[Any]]
Genes = NDArray[np.int64] | slice
ALL = slice(None)

Kind = Literal["baseline", "rival", "own"]
"""What a method is here: something simple to beat, what others published, or the project's own."""

REACH = 200
"""How many of the nearest gallery spots a response names: up to so many, any k can be tried later."""


@dataclass(frozen=True)
class Term:
    """One summand of a prediction.

    Attributes
    ----------
    name : str
        Of what answers.
    answer : ndarray
        (n, number of genes) float32, standardised expression.
    weight : ndarray
        (number of genes,) float32; the prediction is the sum of weight * answer.
    """

    name: str
    answer: NDArray[np.float32]
    weight: NDArray[np.float32]


class FittedMethod(ABC):
    """A method after `fit`.

    Attributes
    ----------
    name : str
        Of its `Method`; `registry.register` sets it.
    variants : tuple of str
        Which predictions it can give, of ``raw | estimate | correction | literal | calibrated``; the last one
        is the one to trust.
    gallery : Gallery
        Training spots in the space in which this method compares tissue.
    trust : Trust or None
        How far its last variant is to be trusted; None for a method that does not say. A bundle stores it.
    k : int or None
        Of how many gallery spots it takes the measured values; None for a method that takes none.
    temperature : float or None
        Of the weights of those spots; None where they are not weighed by a softmax.
    device : str
        Where gallery spots are looked for; it changes nothing but the time.
    """

    name: ClassVar[str]
    variants: ClassVar[tuple[str, ...]] = ("raw",)
    gallery: Gallery
    trust: Trust | None = None
    k: int | None = None
    temperature: float | None = None
    device: str = "cpu"

    def respond(self, features: NDArray[np.float32]) -> Response:
        """Return everything that does not depend on the gene, for features (n, d)."""
        z = self.compare(features)
        near = self.gallery.search(z, max(self.k or 0, REACH), device=self.device)
        return {
            "distance": (1 - near.similarity[:, 0]).astype(np.float32),
            "neighbours": near.index,
            "similarity": near.similarity,
            **self._respond(features, z),
        }

    @abstractmethod
    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return standardised expression (n, number of genes) of a response, for columns `genes`."""

    def predict(self, features: NDArray[np.float32], variant: str | None = None) -> NDArray[np.float32]:
        """Return standardised expression of all genes, (n, genes); by default of the last variant."""
        return self.read(self.respond(features), variant or self.variants[-1])

    def interval(
        self, response: Response, variant: str, genes: Genes = ALL, level: float = 0.9
    ) -> NDArray[np.float32] | None:
        """Return the half width, standardised, of intervals with a share `level` of measured values.

        Returns
        -------
        ndarray or None
            (n, number of genes) float32; None for another variant than the last, and for a method without
            `trust`.

        Raises
        ------
        SettingsError
            `level` is none of `calibration.trust.LEVELS`.
        """
        if self.trust is None or variant != self.variants[-1]:
            return None
        return self.trust.half_width(self.spread(response, genes), response["distance"], genes, level)

    def neighbours(self, response: Response) -> Neighbours:
        """Return the gallery spots that the prediction uses, else the nearest ones."""
        return Neighbours(response["neighbours"][:, : self.k], response["similarity"][:, : self.k])

    def weights(self, response: Response) -> NDArray[np.float32] | None:
        """Return the weights of `neighbours` in their mean, (n, k) float32, rows sum to 1; or None."""
        return None if self.temperature is None else self.neighbours(response).weights(self.temperature)

    def terms(self, response: Response, genes: Genes = ALL) -> list[Term]:
        """Return the terms that add up to the last variant."""
        answer = self.read(response, self.variants[-1], genes)
        name = self.name if self.k is None else "estimate"
        return [Term(name, answer, np.ones(answer.shape[1], np.float32))]

    def reweighted(self, k: int, temperature: float) -> Self:
        """Return a copy with another k and temperature; everything else fitted stays.

        Responses of either serve the other, up to `REACH` neighbours.

        Raises
        ------
        SettingsError
            The method has no temperature, or a value is not above zero.
        """
        if self.temperature is None or k < 1 or temperature <= 0:
            raise SettingsError(
                f"{self.name} cannot take {k} neighbours at temperature {temperature:g}",
                remedy="Both have to be above zero, and the method has to have a temperature.",
            )
        other = copy.copy(self)
        other.k, other.temperature = k, temperature
        return other

    def spread(self, response: Response, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return how much the neighbours' measured values differ, (n, number of genes); 0 without any."""
        return np.zeros_like(self.gallery.expression[:1, genes]).repeat(len(response["distance"]), axis=0)

    def compare(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project features (n, d) into the space of the gallery, rows of unit length."""
        return unit_rows(features)

    @abstractmethod
    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response: ...

    @abstractmethod
    def arrays(self) -> Arrays:
        """Return the fitted numbers, except the gallery, by name, for the bundle."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedMethod:
        """Build it from stored `arrays`; KeyError or ValueError if they do not fit."""


class Method(ABC):
    """A way to learn expression from features; `registry.register` makes it known.

    Attributes
    ----------
    name : str
        By which command line, settings files and bundles call it; a file of this folder has the same name.
    title : str
        How reports write it.
    description : str
        What it does, in one sentence.
    kind : {"baseline", "rival", "own"}
        Every method is held against the best rival.
    reference : str
        Where it was published, for the report's list of references.
    fitted_class : type
        What `fit` returns, and what a bundle of the method is read into.
    settings_class : type or None
        Settings that a user can give under the method's name.
    random : bool
        Whether the seed makes a difference.
    streams : bool
        Whether `fit` reads the features of a large table in parts instead of into memory.

    Parameters
    ----------
    settings : BaseModel, optional
        Of the `settings_class`; None for a method that has none, or that is to choose them itself.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    kind: ClassVar[Kind]
    reference: ClassVar[str] = ""
    fitted_class: ClassVar[type[FittedMethod]]
    settings_class: ClassVar[type[BaseModel] | None] = None
    random: ClassVar[bool] = False
    streams: ClassVar[bool] = False

    def __init__(self, settings: Any = None) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, table: SpotTable, *, seed: int, run: Run = SILENT_RUN) -> FittedMethod:
        """Fit the method on training spots.

        The same table and seed give the same numbers on the same machine.
        """

    def objective(self, inputs: int, genes: int) -> Objective | None:
        """Return network and loss for fine-tuning an encoder of `inputs` features; None if it has none."""
        return None


def gallery_of(table: SpotTable, z: NDArray[np.float32]) -> Gallery:
    """Return a gallery of the table's spots under embeddings `z`, (n, d) of unit rows."""
    return Gallery(
        z, table.targets, table.section, table.patient, table.position, table.section_names,
        measured=table.measured,
    )  # fmt: skip


def leave_section_out(table: SpotTable) -> list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Return (training rows, held-out rows) for each section, for validation inside the training.

    Raises
    ------
    SettingsError
        The table has a single section.
    """
    sections = np.unique(table.section)
    if len(sections) < 2:
        raise SettingsError(
            "leaving a section out needs at least two training sections", remedy="Add sections to the cohort."
        )
    return [(table.section != s, table.section == s) for s in sections]


def held_out_trust(table: SpotTable, fit: Callable[[SpotTable], FittedMethod]) -> Trust | None:
    """Fit a `Trust` to predictions of each section by a fit without that section.

    Parameters
    ----------
    table : SpotTable
        Training spots; with a single section nothing can be learned, and the answer is None.
    fit : callable
        Fits the method to part of the table. It must not carry over anything learned on the whole table.
    """
    if len(np.unique(table.section)) < 2:
        return None
    predicted, spread = np.empty_like(table.targets), np.empty_like(table.targets)
    distance = np.empty(len(table), np.float32)
    for train, test in leave_section_out(table):
        fitted = fit(table.rows(train))
        response = fitted.respond(table.features[test])
        predicted[test] = fitted.read(response, fitted.variants[-1])
        spread[test], distance[test] = fitted.spread(response), response["distance"]
    return trust_of(table, predicted, spread, distance)


def trust_of(
    table: SpotTable,
    predicted: NDArray[np.float32],
    spread: NDArray[np.float32],
    distance: NDArray[np.float32],
) -> Trust | None:
    """Fit a `Trust` to held-out predictions of a table's spots; None if no gene was measured twice."""
    known = table.learnable()
    if known is not None and not known[np.unique(table.section)].any():
        return None
    return Trust.fit(predicted, table.targets, table.section, spread, distance, known)
