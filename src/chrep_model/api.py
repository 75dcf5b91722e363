"""The functions behind ``import chrep_model``: training, calibration, prediction and evaluation.

The functions accept paths as well as open objects, and raise the same errors as the command line. Slow
imports are inside the functions that need them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from chrep_model.bundle import Bundle, load_bundle
from chrep_model.cohorts.cohort import Cohort, open_cohort
from chrep_model.cohorts.pair_check import check_cohort, first_error
from chrep_model.config import validated
from chrep_model.errors import SettingsError
from chrep_model.geometry import Rect
from chrep_model.prediction.stored import read_prediction
from chrep_model.progress import Progress
from chrep_model.slides.slide import Slide, open_slide

if TYPE_CHECKING:
    from chrep_model.evaluation.benchmark import Summary
    from chrep_model.prediction.prediction import Prediction

__all__ = [
    "calibrate",
    "evaluate",
    "list_encoders",
    "list_methods",
    "load_bundle",
    "open_cohort",
    "open_slide",
    "predict",
    "read_prediction",
    "train",
]

_Path = str | os.PathLike[str]


def train(
    cohort: Cohort | _Path,
    out: _Path,
    *,
    method: str = "chrep",
    encoder: str = "stainbank",
    genes: int | _Path = 785,
    device: str = "auto",
    **settings: Any,
) -> Bundle:
    """Train a model on measured sections and write it as a bundle.

    Parameters
    ----------
    cohort : Cohort or path
        Cohort of at least two sections; a path is opened with `open_cohort`.
    out : path
        Folder of the bundle; written when it is complete, and replaces an older bundle.
    method : str
        One of `list_methods`.
    encoder : str
        One of `list_encoders`.
    genes : int or path
        Number of genes to choose on the training sections, or a text file with one gene per line.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device, for the encoder.
    **settings
        Other fields of `pipeline.TrainSettings`: ``weights`` (path of the encoder's safetensors), ``tile_um``
        (side of a tile, µm), ``mpp`` (µm per px of a tile), ``context_um`` (radii of neighbourhoods, µm),
        ``batch_size``, ``seed``, ``exclude_sections``, ``finetune``, ``note``, and the settings of a method
        under its name, such as ``chrep={"trees": 100}``.

    Returns
    -------
    Bundle
        The model, loaded from `out`.

    Raises
    ------
    SettingsError
        A setting is unknown or wrong.
    CohortError, SlideError, GeneError, BundleError
        Sections have errors, or there are fewer than two, genes are unknown, or `out` cannot be written.
    """
    from chrep_model import pipeline

    values = {"method": method, "encoder": encoder, "genes": _genes(genes), **settings}
    valid = validated(pipeline.TrainSettings, values)
    sections = _checked(cohort, valid.exclude_sections)
    return pipeline.train(sections, valid, out, device=device, progress=Progress(warn=_warn))


def calibrate(bundle: Bundle | _Path, cohort: Cohort | _Path, out: _Path, *, device: str = "auto") -> Bundle:
    """Fit a model to a new site by its measured sections, without training its networks again.

    Parameters
    ----------
    bundle : Bundle or path
        Model of the method ``"chrep"``; it is not changed.
    cohort : Cohort or path
        Cohort of at least two sections of the new site.
    out : path
        Folder of the new bundle.
    device : str
        ``"auto"`` or a torch device, for the encoder.

    Returns
    -------
    Bundle
        The new model, loaded from `out`.

    Raises
    ------
    BundleError, CohortError, SlideError
        The model cannot be calibrated, or sections have errors.
    """
    from chrep_model import pipeline

    return pipeline.calibrate(
        _bundle(bundle), _checked(cohort), out, device=device, progress=Progress(warn=_warn)
    )


def predict(
    slide: Slide | _Path,
    bundle: Bundle | _Path,
    *,
    region: tuple[float, float, float, float] | None = None,
    stride: float = 1.0,
    device: str = "auto",
) -> Prediction:
    """Predict gene expression on the tissue of a slide.

    Parameters
    ----------
    slide : Slide or path
        A path is opened with `open_slide`; open it yourself to give µm per px, or one scene of several.
    bundle : Bundle or path
        A trained model.
    region : tuple of float, optional
        Only tiles that overlap this rectangle, (x, y, width, height) in level-0 px.
    stride : float
        Distance between neighbouring tiles as a fraction of a tile: 0.5 for tiles that overlap by half, 2 for
        a coarse map.
    device : str
        ``"auto"`` (a GPU where there is one) or a torch device.

    Returns
    -------
    Prediction
        Values in log10(1 + 1e4 · share of a spot's counts): `Prediction.map` gives one gene as an array
        (rows, cols) of tiles, `Prediction.to_anndata` all tiles x genes.

    Raises
    ------
    SettingsError
        `region` is no rectangle, or `stride` not above zero.
    SlideError, ScaleError, BundleError
        Slide or model cannot be read, or the slide's µm per px are unknown or too coarse for the model.
    PredictionError
        There is no tissue in `region`.
    """
    from chrep_model.prediction.predictor import Predictor

    rect = None if region is None else _rect(region)
    predictor = Predictor(_bundle(bundle), device=device, whole_slides=region is None)
    opened = slide if isinstance(slide, Slide) else open_slide(slide)
    return predictor.predict(opened, rect, stride=stride)


def evaluate(
    cohort: Cohort | _Path,
    out: _Path,
    *,
    methods: str | Sequence[str] | None = None,
    encoder: str = "stainbank",
    genes: int | _Path = 785,
    seeds: int = 1,
    processes: int = 1,
    device: str = "auto",
    **settings: Any,
) -> Summary:
    """Compare methods on sections left out of training, all on the same encoder, folds and genes.

    Parameters
    ----------
    cohort : Cohort or path
        Cohort of all sections.
    out : path
        Folder of tables and report; if it exists already, only missing fits are computed.
    methods : str or sequence of str, optional
        Names from `list_methods`; by default all.
    encoder, genes, device
        See `train`; every fold chooses its genes on its own training sections.
    seeds : int
        Number of repeats of methods that use random numbers.
    processes : int
        Number of fits at a time. More than 1 starts processes: guard your script by
        ``if __name__ == "__main__":``.
    **settings
        Other fields of `evaluation.benchmark.EvaluateSettings`: ``split`` (``"section"`` or ``"patient"``),
        ``test_sections``, and those of the encoder and of the methods as in `train`.

    Returns
    -------
    Summary
        ``scores`` has a row for each method, variant, test section, seed and metric; ``report.html`` in
        ``folder`` shows them.

    Raises
    ------
    SettingsError, CohortError, SlideError, GeneError
        As in `train`.
    LeakError
        A section is in the cohort twice, or a method read data of a test section.
    """
    from chrep_model.evaluation import benchmark

    values = {"encoder": encoder, "genes": _genes(genes), "seeds": seeds, **settings}
    if methods is not None:
        values["methods"] = (methods,) if isinstance(methods, str) else tuple(methods)
    valid = validated(benchmark.EvaluateSettings, values, command="evaluate")
    return benchmark.evaluate(
        _checked(cohort), valid, out, device=device, processes=processes, progress=Progress(warn=_warn)
    )


def list_methods() -> list[str]:
    """Return the names of all methods that can be trained and compared."""
    from chrep_model.methods.registry import names

    return list(names())


def list_encoders(pattern: str = "*") -> list[str]:
    """Return the names of encoders that match a pattern, the built-in one first, then those of timm.

    Parameters
    ----------
    pattern : str
        Pattern with ``*`` and ``?`` as in file names, such as ``"resnet*"``. The built-in encoder is
        ``"stainbank"``.
    """
    from chrep_model.encoders.stainbank import STAINBANK
    from chrep_model.encoders.torchvision_compat import ensure_torchvision

    ensure_torchvision()
    import timm

    return [*([STAINBANK] if fnmatchcase(STAINBANK, pattern) else []), *timm.list_models(pattern)]


def _bundle(bundle: Bundle | _Path) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else load_bundle(bundle)


def _genes(genes: int | _Path) -> int | _Path:
    """Check that genes are given as a number or a path; ``True`` would be taken for one gene."""
    if isinstance(genes, bool) or not isinstance(genes, (int, str, os.PathLike)):
        raise SettingsError(
            "genes are a number or the path of a text file", remedy="Write the names into a file, one a line."
        )
    return genes


def _rect(region: tuple[float, float, float, float]) -> Rect:
    """Return a region as a rectangle; SettingsError if it is none."""
    try:
        return Rect.of(region)
    except (TypeError, ValueError):
        raise SettingsError(
            f"the region {region!r} is no rectangle", remedy="Give (x, y, width, height) in level-0 px."
        ) from None


def _checked(cohort: Cohort | _Path, excluded: Collection[str] = ()) -> Cohort:
    """Open a cohort and check its sections except excluded ones, as the command line does."""
    if not isinstance(cohort, Cohort):
        cohort = open_cohort(cohort)
    found = check_cohort(cohort.without(excluded) if excluded else cohort)
    if (wrong := first_error(cohort, found)) is not None:
        raise wrong
    for name, findings in found.items():
        for finding in findings:
            if finding.level != "ok":
                _warn(f"section {name}: {finding.text} {finding.remedy}".rstrip())
    return cohort


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=4)
