"""The methods by name; a new one is a file and a line here."""

from __future__ import annotations

from chrep_model.errors import SettingsError
from chrep_model.methods.base import FittedMethod, Method
from chrep_model.methods.baselines import FittedKnn, FittedMean, Knn, Mean
from chrep_model.methods.chrep import Chrep, ChrepSettings, FittedChrep
from chrep_model.methods.ridge import FittedRidge, Ridge
from chrep_model.methods.trees import FittedTrees, Trees

_FITTED: dict[str, type[FittedMethod]] = {
    cls.name: cls for cls in (FittedMean, FittedKnn, FittedRidge, FittedTrees, FittedChrep)
}
METHODS = ("mean", "knn", "ridge", "trees", "chrep")


def make_method(name: str, settings: ChrepSettings | None = None) -> Method:
    """Return a method by name; `settings` are read by ``chrep`` alone."""
    if name == "chrep":
        return Chrep(settings or ChrepSettings())
    simple: dict[str, type[Method]] = {cls.name: cls for cls in (Mean, Knn, Ridge, Trees)}
    if name not in simple:
        raise SettingsError(
            f"there is no method called {name!r}", remedy=f"Choose from {', '.join(METHODS)}."
        )
    return simple[name]()


def fitted_class(name: str) -> type[FittedMethod]:
    """Class that reads a bundle of the method; KeyError for an unknown one."""
    return _FITTED[name]
