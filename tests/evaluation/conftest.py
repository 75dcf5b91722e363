"""A cohort in memory, in which features do say something of expression, and benchmarks on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from chrep_model.calibration.corrector import CorrectorSettings
from chrep_model.cohorts.cohort import Cohort
from chrep_model.cohorts.section import Section
from chrep_model.evaluation import benchmark
from chrep_model.evaluation.benchmark import EvaluateSettings, Summary, evaluate
from chrep_model.methods import trees
from chrep_model.methods.chrep import ChrepSettings
from chrep_model.methods.chrep.phase1 import Phase1Settings

GENES = 24
SMALL = ChrepSettings(
    trees=5,
    phase1=Phase1Settings(members=1, epochs=2, inputs=8, dim=8, hidden=8),
    corrector=CorrectorSettings(epochs=2, hidden=8),
    k=10,
)
PATIENTS = {"A1": "P1", "A2": "P1", "B1": "P2", "C1": "P3", "C2": "P3"}
Features = dict[str, np.ndarray]


def make_section(
    name: str = "A1", patient: str = "P1", side: int = 6, depth: float = 400
) -> tuple[Section, np.ndarray]:
    """A square array of spots 100 µm apart whose counts follow three factors, and features that show them."""
    rng = np.random.default_rng([*name.encode()])
    row, column = np.divmod(np.arange(side * side), side)
    factors = np.stack([np.sin(row / 2), np.cos(column / 2), rng.standard_normal(side**2)], axis=1)
    weights = np.random.default_rng(1).standard_normal((3, GENES))
    rates = np.exp(0.7 * factors @ weights) * rng.lognormal(0, 0.4, (side**2, 1))
    counts = rng.poisson(depth * rates / rates.mean() / GENES).astype(np.float32)
    section = Section(
        name=name, patient=patient, slide_path=Path(f"{name}.png"), counts_path=Path(f"{name}.h5ad"),
        counts=sparse.csr_matrix(counts), genes=tuple(f"G{i:02}" for i in range(GENES)),
        xy=np.stack([column, row], axis=1) * 200.0 + 100,
        spot_ids=tuple(f"{name}_{i}" for i in range(side**2)), mpp=0.5, spot_diameter_px=None,
    )  # fmt: skip
    noise = rng.standard_normal((side**2, 8))
    features = np.concatenate([factors + 0.3 * noise[:, :3], noise[:, 3:]], axis=1)
    return section, features.astype(np.float32)


def make_cohort(patients: dict[str, str]) -> tuple[Cohort, Features]:
    """Sections by name, each of the patient named."""
    made = {name: make_section(name, patient) for name, patient in patients.items()}
    cohort = Cohort(Path("cohort"), "cohort", tuple(section for section, _ in made.values()))
    return cohort, {name: features for name, (_, features) in made.items()}


@pytest.fixture(scope="session")
def made() -> tuple[Cohort, Features]:
    """Five sections of three patients, with features."""
    return make_cohort(PATIENTS)


@pytest.fixture
def cohort(made) -> Cohort:
    return made[0]


@pytest.fixture
def features(made) -> Features:
    return made[1]


def settings(**changes: object) -> EvaluateSettings:
    return EvaluateSettings.model_validate({"genes": 12, "chrep": SMALL, "methods": ("ridge",)} | changes)


Bench = Callable[..., Summary]


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Evaluate features that are given, and write no page: ``bench(cohort, features, out, methods=...)``.

    Takes changes of the settings, and ``run={...}`` for further arguments of `evaluate`. Forests have 5
    trees, unless processes are started, which hear nothing of it: ``few_trees=False``.
    """

    def run(
        cohort: Cohort,
        features: Features,
        out: Path,
        *,
        run: dict | None = None,
        few_trees: bool = True,
        **changes: object,
    ) -> Summary:
        with pytest.MonkeyPatch.context() as patch:
            if few_trees:
                patch.setattr(trees, "TREES", 5)
            patch.setattr(benchmark, "section_features", lambda *args, **kwargs: features)
            patch.setattr(benchmark, "write_report", lambda path, *args: path.write_text("page"))
            return evaluate(cohort, settings(**changes), out, device="cpu", **(run or {}))

    return run
