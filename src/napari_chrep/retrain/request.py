"""Define the settings of a retraining job, and the layout of its workspace folder."""

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
"""Default number of epochs of fine-tuning; more than a few take hours without a GPU."""


class RetrainRequest(BaseModel):
    """Settings of one retraining job.

    Attributes
    ----------
    preset : {"calibrate", "train", "finetune", "add"}
        What is trained: gallery, corrector and combination ("calibrate"); also the heads ("train"); also the
        encoder ("finetune"). "add" only adds spots to the gallery.
    in_use : Path
        The model in use, with which the new one is compared.
    out : Path
        Path of the new model if the user accepts it.
    genes : int or "same"
        Number of genes to choose on the cohort, or "same" for those of the model in use. Only for presets
        that train heads.
    encoder : {"same", "stainbank"}
        Encoder of the model in use, or the built-in one. Only for the preset "train".
    seed : int
        Seed of the random numbers.
    epochs : int
        Maximum number of epochs of fine-tuning.
    folds : int
        Maximum number of groups of sections that are held out for the comparison.
    device : str
        ``"auto"`` or a torch device, for the encoder.
    cache : Path, optional
        Folder of the cached embeddings; the default cache unless given.
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
        """Maximum number of groups held out; at most 1 for fine-tuning, because that is slow."""
        return 0 if self.preset == "add" else min(self.folds, 1) if self.preset == "finetune" else self.folds

    def encoder_of(self, card: Card) -> str:
        """Return the name of the encoder, given the card of the model in use."""
        return card.encoder if self.encoder == "same" else self.encoder


@dataclass(frozen=True)
class Workspace:
    """Folder of one retraining job, beside the path of its new model.

    Attributes
    ----------
    folder : Path
        Holds the job, the cohort's manifest, unfinished networks, the models of the comparison, the new model
        and the comparison.
    """

    folder: Path

    @classmethod
    def beside(cls, out: Path) -> Workspace:
        """Return the workspace for a new bundle `out`."""
        return cls(out.with_name(f"{out.name}.retraining"))

    @property
    def job_file(self) -> Path:
        """File with the job as JSON."""
        return self.folder / "job.json"

    @property
    def manifest(self) -> Path:
        """File with the cohort's manifest."""
        return self.folder / "cohort.yaml"

    @property
    def comparison_file(self) -> Path:
        """File with the comparison as JSON; it is written last."""
        return self.folder / "comparison.json"

    @property
    def folds(self) -> Path:
        """Folder of the models trained for the comparison."""
        return self.folder / "folds"

    @property
    def is_finished(self) -> bool:
        """Whether the job is finished and waits for the user's decision."""
        return self.comparison_file.is_file()

    @property
    def has_progress(self) -> bool:
        """Whether the folder holds intermediate results, so that resuming saves time."""
        own = {self.job_file.name, self.manifest.name, "lock", "genes.txt"}
        return self.folder.is_dir() and any(path.name not in own for path in self.folder.iterdir())

    def result(self, job: RetrainRequest) -> Path:
        """Return the folder of the new bundle; its name is written on the bundle's card."""
        return self.folder / job.out.name

    def begin(self, job: RetrainRequest, cohort: Cohort | Manifest) -> None:
        """Create the folder with the job and the cohort, which the child process reads.

        Parameters
        ----------
        job : RetrainRequest
            The settings.
        cohort : Cohort or Manifest
            The sections to train on. The files of a manifest are first opened by the child process.

        Raises
        ------
        BundleError
            The new model cannot be written to `job.out`, or that path holds something else.
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
        """Read the job from its file.

        Raises
        ------
        SettingsError
            The file is missing or invalid.
        """
        return _read(RetrainRequest, self.job_file)

    def read_comparison(self) -> ModelComparison:
        """Read the comparison from its file; raises the same errors as `read_job`."""
        return _read(ModelComparison, self.comparison_file)


def _read(model: type[M], path: Path) -> M:
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise SettingsError(
            "this file of a retraining cannot be read", path=path, remedy="Start the retraining anew."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically: completely or not at all."""
    with write_atomically(path, SettingsError) as part:
        part.write_text(text, encoding="utf-8")


def free_place(in_use: Path, preset: Preset, folder: Path) -> Path:
    """Return an unused path in `folder` for the model that a preset makes from the one in use."""
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
