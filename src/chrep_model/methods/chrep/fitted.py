"""CHRep after its fit: predict from what was learned."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from chrep_model.calibration.calibrator import Answers, Combination
from chrep_model.calibration.corrector import Corrector
from chrep_model.calibration.gallery import Gallery, neighbour_spread, weighted_mean
from chrep_model.methods.base import ALL, Arrays, FittedMethod, Genes, Response, Term
from chrep_model.methods.chrep.phase1 import Phase1
from chrep_model.methods.chrep.simple_learners import SimpleLearners

LEARNERS = ("head", "estimate", "correction", "linear", "trees")


class FittedChrep(FittedMethod):
    """A fitted `Chrep`."""

    variants: ClassVar[tuple[str, ...]] = ("raw", "estimate", "correction", "calibrated")
    k: int
    temperature: float

    def __init__(
        self,
        phase1: Phase1,
        corrector: Corrector,
        gallery: Gallery,
        k: int,
        temperature: float,
        simple: SimpleLearners | None = None,
        combination: Combination | None = None,
    ) -> None:
        self.phase1, self.corrector, self.gallery = phase1, corrector.eval(), gallery
        self.k, self.temperature = k, temperature
        self.simple, self.combination = simple, combination
        readout = corrector.readout
        self._correction = (readout.weight.detach().numpy().T, readout.bias.detach().numpy())

    def compare(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return z_i, the morphology feature F_H at unit length."""
        return self.phase1.compared(features)

    def _respond(self, features: NDArray[np.float32], z: NDArray[np.float32]) -> Response:
        with torch.inference_mode():
            hidden = self.corrector.body(torch.from_numpy(z)).numpy()
        response = {
            "head": self.phase1.hidden(features),
            "corrector": hidden,
        }
        if self.simple is not None:
            response["linear"] = self.simple.linear(features)
            response["forest"] = self.simple.forest.predict(features)
        return response

    def read(self, response: Response, variant: str, genes: Genes = ALL) -> NDArray[np.float32]:
        """``raw`` head; ``estimate`` gE; ``correction`` gE + D, the paper's answer; ``calibrated`` ours."""
        if variant == "raw":
            return self.phase1.read(response["head"], genes)
        found = self.neighbours(response)
        values, known = self.gallery.expression[:, genes], self.gallery.known(genes)
        estimate = weighted_mean(found, self.temperature, values, known)
        if variant == "estimate":
            return estimate
        w, b = self._correction
        corrected: NDArray[np.float32] = estimate + response["corrector"] @ w[:, genes] + b[genes]
        if variant == "correction" or self.simple is None or self.combination is None:
            return corrected
        head = self.phase1.read(response["head"], genes)
        simple = [self.simple.genes(response[name], genes) for name in ("linear", "forest")]
        return self.combination([head, estimate, corrected, *simple], genes)

    def spread(self, response: Response, genes: Genes = ALL) -> NDArray[np.float32]:
        """Return the weighted sd of the neighbours' measured values, (n, number of genes)."""
        found = self.neighbours(response)
        values, known = self.gallery.expression[:, genes], self.gallery.known(genes)
        return neighbour_spread(found, self.temperature, values, known)

    def terms(self, response: Response, genes: Genes = ALL) -> list[Term]:
        """Return `LEARNERS` with their weights in the combination; in the paper, the correction alone."""
        answers = dict(zip(LEARNERS, self.answers(response, genes), strict=False))
        if self.combination is None:
            ones = np.ones(answers["head"].shape[1], np.float32)
            weights = {"head": 0 * ones, "estimate": 0 * ones, "correction": ones}
        else:
            weights = dict(zip(LEARNERS, self.combination.weights[:, genes], strict=True))
        terms = [Term(name, answers[name], weight) for name, weight in weights.items()]
        if self.combination is not None and self.combination.offset is not None:
            offset = self.combination.offset[genes]
            everywhere = np.broadcast_to(offset, answers["head"].shape)
            terms.append(Term("site", everywhere, np.ones_like(offset)))
        return terms

    def answers(self, response: Response, genes: Genes = ALL) -> Answers:
        """Return the answers of `LEARNERS`, in that order; without the simple ones if there are none."""
        answers = [self.read(response, variant, genes) for variant in ("raw", "estimate", "correction")]
        if self.simple is None:
            return answers
        return [*answers, *(self.simple.genes(response[name], genes) for name in ("linear", "forest"))]

    def arrays(self) -> Arrays:
        """Return the weights of all parts, flat."""
        out: Arrays = {f"phase1.{k}": v for k, v in self.phase1.arrays().items()}
        out |= {f"corrector.{k}": v.numpy() for k, v in self.corrector.state_dict().items()}
        out |= {"k": np.array([self.k]), "temperature": np.array([self.temperature])}
        if self.simple is not None and self.combination is not None:
            out |= {f"simple.{k}": v for k, v in self.simple.arrays().items()}
            found = {"weights": self.combination.weights, "offset": self.combination.offset}
            out |= {f"combination.{k}": v for k, v in found.items() if v is not None}
        return out

    @classmethod
    def from_arrays(cls, arrays: Arrays, gallery: Gallery) -> FittedChrep:
        """Build it from stored `arrays`."""

        def part(prefix: str) -> Arrays:
            return {k.removeprefix(f"{prefix}."): v for k, v in arrays.items() if k.startswith(f"{prefix}.")}

        state = {k: torch.from_numpy(v) for k, v in part("corrector").items()}
        hidden, dim = state["body.0.weight"].shape
        corrector = Corrector(dim, len(state["readout.bias"]), hidden, 0.0)
        corrector.load_state_dict(state)
        simple = combination = None
        if "combination.weights" in arrays:
            simple = SimpleLearners.from_arrays(part("simple"))
            combination = Combination(**part("combination"))
        k, temperature = int(arrays["k"][0]), float(arrays["temperature"][0])
        return cls(
            Phase1.from_arrays(part("phase1")), corrector, gallery, k, temperature, simple, combination
        )
