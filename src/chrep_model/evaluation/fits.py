"""The jobs of an evaluation (one method on one fold with one seed) and the store of their results.

The result of a job is stored in a folder, with a key computed from everything that decides it: the code, the
libraries, the method with its settings, the genes and the data. So an interrupted evaluation can be
continued, and only jobs whose inputs have changed are run again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel

import chrep_model
from chrep_model.cohorts.gene_panel import GenePanel
from chrep_model.cohorts.section import Section
from chrep_model.errors import SettingsError
from chrep_model.evaluation.guard import GuardStage, check_gallery
from chrep_model.evaluation.oracle import ORACLE, LibrarySizeOracle
from chrep_model.evaluation.scoring import FitScores, MeasuredSection, score_model, score_prediction
from chrep_model.evaluation.splits import Fold
from chrep_model.files import make_writable, write_atomically
from chrep_model.methods.method_settings import MethodSettings, make_method
from chrep_model.methods.model import fit_model
from chrep_model.progress import SILENT, Progress
from chrep_model.training.run import Run

_DECIDING = ("statistics", "cohorts", "networks", "training", "calibration", "methods", "evaluation")
"""Packages and modules whose code decides the result of a job, given the features."""

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "scikit-image", "torch")


@dataclass(frozen=True)
class FitTask:
    """One job of an evaluation: a method, a test section and a seed.

    Attributes
    ----------
    method : str
        A method's name, or `ORACLE`.
    fold : str
        The test section.
    seed : int
    """

    method: str
    fold: str
    seed: int

    @property
    def name(self) -> str:
        """Name of the job's folder."""
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", self.fold)
        if plain != self.fold:  # two sections must not share a folder
            plain += "-" + hashlib.sha256(self.fold.encode()).hexdigest()[:8]
        return f"{self.method}-{plain}-{self.seed}"

    def __str__(self) -> str:
        return f"{self.method} tested on {self.fold}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Data and settings shared by all jobs of an evaluation; sent to every process.

    Attributes
    ----------
    folds : mapping
        Test section -> fold, with features.
    genes : int or tuple of str
        Number of genes to choose, or their names.
    methods : MethodSettings
        Settings of the methods.
    encoder_id : str
        Id of the encoder of the features.
    digests : mapping
        Section -> `section_digest`.
    """

    folds: Mapping[str, Fold]
    genes: int | tuple[str, ...]
    methods: MethodSettings
    encoder_id: str
    digests: Mapping[str, str]

    def key(self, job: FitTask) -> str:
        """Return a digest of everything that decides the result of a job."""
        fold = self.folds[job.fold]
        facts = {
            "code": code_digest(),
            "method": [job.method, *([] if job.method == ORACLE else self._facts_of(job.method))],
            "seed": job.seed,
            "genes": self.genes,
            "encoder": self.encoder_id,
            "split": fold.split,
            "train": [[section.name, self.digests[section.name]] for section in fold.train],
            "test": [fold.name, self.digests[fold.name]],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _facts_of(self, name: str) -> tuple[dict[str, Any], str]:
        """Return a method's settings, and the digest of its file, which may lie outside of this package."""
        method = make_method(name, self.methods)
        settings = {
            key: value.model_dump(mode="json") if isinstance(value, BaseModel) else repr(value)
            for key, value in vars(method).items()
        }
        try:
            file = Path(inspect.getfile(type(method)))
        except (OSError, TypeError) as error:  # typed into a prompt or a notebook
            raise SettingsError(
                f"the method {name} is not in a file", remedy="Write its class into a .py file and import it."
            ) from error
        return settings, hashlib.sha256(file.read_bytes()).hexdigest()


def do_job(plan: Plan, job: FitTask, progress: Progress = SILENT) -> FitScores:
    """Fit, predict and score one job, and guard the test section in each stage.

    Raises
    ------
    LeakError
        Data of the test section were read too early, or are in the gallery.
    """
    fold, maps = plan.folds[job.fold], job.seed == 0
    if job.method == ORACLE:
        panel = GenePanel.fit(fold.train, plan.genes)
        oracle = LibrarySizeOracle.fit(fold.train, panel)
        with fold.test.during(GuardStage.SCORING) as test:
            return score_prediction(oracle.predict(test), MeasuredSection.of(test, panel), maps=maps)
    method = make_method(job.method, plan.methods)
    model = fit_model(method, fold.train, fold.features, plan.genes, seed=job.seed, run=Run(progress))
    check_gallery(model.fitted.gallery, fold.train, fold.test, by_patient=fold.split == "patient")
    with fold.test.during(GuardStage.PREDICTING) as test:
        response = model.respond(test.features)
    with fold.test.during(GuardStage.SCORING) as test:
        return score_model(model, response, MeasuredSection.of(test, model.panel), maps=maps)


@dataclass(frozen=True)
class JobStore:
    """Store of the jobs' results, with one folder per job.

    Attributes
    ----------
    folder : Path
        Folder of the store, created with the first result.
    """

    folder: Path

    def has(self, job: FitTask, key: str) -> bool:
        """Return whether the store has the job's result for this key."""
        try:
            facts = json.loads((self.folder / job.name / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return isinstance(facts, dict) and facts.get("key") == key

    def keep(self, job: FitTask, key: str, outcome: FitScores) -> None:
        """Store the result of a job atomically.

        Raises
        ------
        PredictionError
            The folder cannot be written.
        """
        make_writable(self.folder)
        facts = {"method": job.method, "fold": job.fold, "seed": job.seed, "key": key}
        with write_atomically(self.folder / job.name) as folder:
            folder.mkdir()
            for field in fields(FitScores):
                frame: pd.DataFrame = getattr(outcome, field.name)
                frame.to_parquet(folder / f"{field.name}.parquet", index=False)
            (folder / "job.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def read(self, job: FitTask) -> FitScores:
        """Read the stored result of a job."""
        folder = self.folder / job.name
        return FitScores(*(pd.read_parquet(folder / f"{field.name}.parquet") for field in fields(FitScores)))


def section_digest(section: Section, features: NDArray[np.float32]) -> str:
    """Return a digest of a section's counts, spots and features.

    The features represent the slide, the tiles and the encoder from which they were computed.
    """
    digest = hashlib.sha256()
    counts = section.counts
    for array in (counts.data, counts.indices, counts.indptr, section.xy, features):
        values = np.ascontiguousarray(array)
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(values.data)
    names: Sequence[Any] = (section.genes, section.spot_ids, section.name, section.patient, section.mpp)
    digest.update(json.dumps(names).encode())
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Return a digest of the code that decides the result of a job, and of its libraries' versions."""
    digest = hashlib.sha256(json.dumps({name: version(name) for name in _LIBRARIES}).encode())
    root = Path(chrep_model.__file__).parent
    for unit in _DECIDING:
        for path in sorted([*root.glob(f"{unit}.py"), *(root / unit).rglob("*.py")]):
            place = path.relative_to(root).as_posix()
            if not place.startswith("evaluation/report"):
                digest.update(place.encode() + path.read_bytes())
    return digest.hexdigest()
