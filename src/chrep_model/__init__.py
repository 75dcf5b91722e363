"""Predict spatial gene expression from H&E slides, and compare methods for it.

>>> import chrep_model as chrep
>>> prediction = chrep.predict("slide.svs", "breast.chrep")

The functions of `chrep_model.api` are loaded on first use, so that importing the package stays fast.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

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

if TYPE_CHECKING:
    from chrep_model.api import (
        calibrate,
        evaluate,
        list_encoders,
        list_methods,
        load_bundle,
        open_cohort,
        open_slide,
        predict,
        read_prediction,
        train,
    )
else:  # hidden from type checkers, which would let it give every name

    def __getattr__(name):
        if name in __all__:
            from chrep_model import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
