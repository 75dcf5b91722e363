"""What a retraining is asked to do, and the folder in which it works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chrep_model.bundle import check_place
from chrep_model.cohorts.manifest import Manifest, write_manifest
from chrep_model.errors import SettingsError
from chrep_model.evaluation.model_comparison import FOLDS, ModelComparison
from chrep_model.files import write_atomically

if TYPE_CHECKING:
    from chrep_model.bundle import Card
    from chrep_model.cohorts.cohort import Cohort

M = TypeVar("M", bound=BaseModel)
Preset = Literal["calibrate", "train", "finetune", "add"]

EPOCHS = 3
"""Of fine-tuning, unless the user wants others: more than a few are a matter of hours without a GPU."""


class RetrainRequest(BaseModel):
    """One retraining.

    Attributes
    ----------
    preset : {"calibrate", "train", "finetune", "add"}
        New gallery, corrector and combination; new heads; new encoder and heads; more spots in the gallery.
    in_use : Path
        The model in use, with which the new one is compared.
    out : Path
        Where the new model goes once the user takes it.
    genes : int or "same"
        So many are chosen on the cohort, or those of the model in use; of presets that train heads.
    encoder : {"same", "stainbank"}
        That of the model in use, or the built-in one; of the preset "train".
    epochs : int
        Of fine-tuning, at most.
    folds : int
        Groups of sections that are held out for the comparison, at most.
    device : str
        ``"auto"`` or a torch device, for the encoder.
    cache : Path, optional
        Where embeddings are kept; the usual place unless given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Preset
    in_use: Path
    out: Path
    genes: Annotated[int, Field(gt=0)] | Literal["same"] = "same"
    encoder: Literal["same", "stainbank"] = "same"
    seed: int = Field(0, ge=0, lt=2**32)
    epochs: int = Field(EPOCHS, gt=0)
    folds: int = Field(FOLDS, ge=0)
    device: str = "auto"
    cache: Path | None = None

    @property
    def groups(self) -> int:
        """How many groups are held out at most: refitting an encoder is too dear to do it more than once."""
        return 0 if self.preset == "add" else min(self.folds, 1) if self.preset == "finetune" else self.folds

    def encoder_of(self, card: Card) -> str:
        """Name of the encoder, given the card of the model in use."""
        return card.encoder if self.encoder == "same" else self.encoder


@dataclass(frozen=True)
class Workspace:
    """The folder of one retraining, beside the place that its outcome will take.

    Attributes
    ----------
    folder : Path
        Holds the job, the cohort's manifest, half-finished networks, models of the comparison, the outcome.
    """

    folder: Path

    @classmethod
    def beside(cls, out: Path) -> Workspace:
        """Return that of the bundle `out`."""
        return cls(out.with_name(f"{out.name}.retraining"))

    @property
    def job_file(self) -> Path:
        """The job as JSON."""
        return self.folder / "job.json"

    @property
    def manifest(self) -> Path:
        """The cohort."""
        return self.folder / "cohort.yaml"

    @property
    def comparison_file(self) -> Path:
        """The comparison as JSON; written last."""
        return self.folder / "comparison.json"

    @property
    def folds(self) -> Path:
        """Folder of the models that were made for the comparison."""
        return self.folder / "folds"

    @property
    def is_finished(self) -> bool:
        """Whether there is an outcome to decide on."""
        return self.comparison_file.is_file()

    @property
    def has_progress(self) -> bool:
        """Whether there is more than what was asked for, so that going on is of use."""
        own = {self.job_file.name, self.manifest.name, "lock", "genes.txt"}
        return self.folder.is_dir() and any(path.name not in own for path in self.folder.iterdir())

    def result(self, job: RetrainRequest) -> Path:
        """Folder of the new bundle; its name is on the bundle's card."""
        return self.folder / job.out.name

    def begin(self, job: RetrainRequest, cohort: Cohort | Manifest) -> None:
        """Make the folder with all that the child process has to know.

        Parameters
        ----------
        job : RetrainRequest
        cohort : Cohort or Manifest
            What is learned from; of a manifest, the files are looked at by the child.

        Raises
        ------
        BundleError
            The outcome's place cannot be written, or is taken by something else.
        CohortError
            The manifest cannot be written.
        """
        check_place(job.out)
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(cohort, Manifest):
            write_text(self.manifest, cohort.model_dump_json())  # JSON is YAML
        else:
            write_manifest(cohort.name, cohort.sections, self.manifest)
        write_text(self.job_file, job.model_dump_json(indent=1))

    def read_job(self) -> RetrainRequest:
        """Return the job.

        Raises
        ------
        SettingsError
            There is none, or it cannot be understood.
        """
        return _read(RetrainRequest, self.job_file)

    def read_comparison(self) -> ModelComparison:
        """Return the comparison; raises as `read_job`."""
        return _read(ModelComparison, self.comparison_file)


def _read(model: type[M], path: Path) -> M:
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise SettingsError(
            "this file of a retraining cannot be read", path=path, remedy="Start the retraining anew."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small file as a whole or not at all."""
    with write_atomically(path, SettingsError) as part:
        part.write_text(text, encoding="utf-8")


def free_place(in_use: Path, preset: Preset, folder: Path) -> Path:
    """Return a name in `folder` for what a preset makes of a model; one that nothing has."""
    stem = in_use.name.removesuffix(".chrep")
    for number in range(1, 10_000):
        suffix = "" if number == 1 else f"-{number}"
        place = folder / f"{stem}_{_NAMES[preset]}{suffix}.chrep"
        if not place.exists() and not Workspace.beside(place).folder.exists():
            return place
    raise SettingsError("there is no free name", path=folder, remedy="Choose another folder.")


_NAMES: dict[Preset, str] = {
    "calibrate": "calibrated",
    "train": "retrained",
    "finetune": "fine-tuned",
    "add": "corrected",
}
