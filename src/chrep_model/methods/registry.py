"""The methods by name, and the settings of those that have some; a new one is a file and two lines here."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from chrep_model.errors import SettingsError
from chrep_model.methods.base import FittedMethod, Method
from chrep_model.methods.baselines import FittedKnn, FittedMean, Knn, Mean
from chrep_model.methods.bleep import Bleep, BleepSettings, FittedBleep
from chrep_model.methods.chrep import Chrep, ChrepSettings, FittedChrep
from chrep_model.methods.hage_like import FittedHageLike, HageLike, HageLikeSettings
from chrep_model.methods.heclip import FittedHeclip, Heclip, HeclipSettings
from chrep_model.methods.mclstexp import FittedMclstexp, Mclstexp, MclstexpSettings
from chrep_model.methods.ridge import FittedRidge, Ridge
from chrep_model.methods.trees import FittedTrees, Trees


class MethodSettings(BaseModel):
    """Settings of the methods, each under its name; a method without a field has none to give.

    Those that are not given are chosen on a held-out training section, see `methods.search`.
    """

    model_config = ConfigDict(extra="forbid")

    bleep: BleepSettings | None = None
    mclstexp: MclstexpSettings | None = None
    heclip: HeclipSettings | None = None
    hage_like: HageLikeSettings | None = None
    chrep: ChrepSettings | None = None


_MAKE: dict[str, Callable[[MethodSettings], Method]] = {
    "mean": lambda _: Mean(),
    "knn": lambda _: Knn(),
    "ridge": lambda _: Ridge(),
    "trees": lambda _: Trees(),
    "bleep": lambda settings: Bleep(settings.bleep),
    "mclstexp": lambda settings: Mclstexp(settings.mclstexp),
    "heclip": lambda settings: Heclip(settings.heclip),
    "hage_like": lambda settings: HageLike(settings.hage_like),
    "chrep": lambda settings: Chrep(settings.chrep),
}
_FITTED: dict[str, type[FittedMethod]] = {
    cls.name: cls
    for cls in (
        FittedMean,
        FittedKnn,
        FittedRidge,
        FittedTrees,
        FittedBleep,
        FittedMclstexp,
        FittedHeclip,
        FittedHageLike,
        FittedChrep,
    )
}
METHODS = tuple(_MAKE)


def make_method(name: str, settings: MethodSettings | None = None) -> Method:
    """Return a method by name, under its own of the `settings`.

    Raises
    ------
    SettingsError
        There is no such method.
    """
    if name not in _MAKE:
        raise SettingsError(
            f"there is no method called {name!r}", remedy=f"Choose from {', '.join(METHODS)}."
        )
    return _MAKE[name](settings or MethodSettings())


def fitted_class(name: str) -> type[FittedMethod]:
    """Class that reads a bundle of the method; KeyError for an unknown one."""
    return _FITTED[name]
