"""Errors that a user can meet.

Each message says what is wrong, where, and what to do about it. The command line prints it as one line and
the plugin shows it as it stands, so it must be understood without a traceback.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 1000
"""Characters of what an error says; names out of a damaged file can be megabytes long."""


def printable(text: str) -> str:
    """Escape unprintable characters, so that names from files cannot bring line breaks or terminal codes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shortened(text: str) -> str:
    """Cut the middle out of a text of more than `LONGEST` characters."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


class ChrepError(Exception):
    """An error to be shown to the user as it is.

    Parameters
    ----------
    what
        What is wrong, as a phrase or sentence without the closing full stop. Of a very long one the middle is
        left out, here and in `remedy`.
    path
        The file or folder that it is about.
    remedy
        What the user can do, as a full sentence.

    Attributes
    ----------
    what, path, remedy
        As given; ``path`` is a `str` or ``None``.
    """

    def __init__(self, what: str, *, path: str | os.PathLike[str] | None = None, remedy: str = "") -> None:
        self.what = shortened(what).rstrip(".")
        super().__init__(self.what)
        self.path = None if path is None else os.fspath(path)
        self.remedy = shortened(remedy).strip()

    def __str__(self) -> str:
        """Return ``PATH: what. remedy``, without a path or remedy that is not known."""
        return self._sentence(self.path)

    @property
    def short(self) -> str:
        """The message with the file's name instead of its path, for narrow places."""
        return self._sentence(None if self.path is None else Path(self.path).name)

    def _sentence(self, about: str | None) -> str:
        text = f"{about}: {self.what}" if about else self.what
        return printable(f"{text}. {self.remedy}" if self.remedy else text)

    def __reduce__(self) -> tuple[object, ...]:  # survives the trip from a worker process
        return _rebuild, (type(self), self.what, self.path, self.remedy)


def _rebuild(kind: type[ChrepError], what: str, path: str | None, remedy: str) -> ChrepError:
    return kind(what, path=path, remedy=remedy)


class SlideError(ChrepError):
    """A slide cannot be opened or read."""


class ScaleError(SlideError):
    """The µm per pixel of a slide are missing, contradictory, or too coarse for a model."""


class CohortError(ChrepError):
    """Slides and spots of a cohort are missing, damaged, or do not belong together."""


class GeneError(ChrepError):
    """A gene is unknown, or a list of genes cannot be used."""


class BundleError(ChrepError):
    """A trained model on disk is damaged, incomplete, or does not match what it is used with."""


class TrainingError(ChrepError):
    """A network cannot be trained on what it was given."""


class PredictionError(ChrepError):
    """A prediction cannot be made, merged, or read."""


class SettingsError(ChrepError):
    """A setting is unknown or out of range."""


class LeakError(ChrepError):
    """Data of a test section would have reached the training."""


class JobError(ChrepError):
    """One part of an evaluation failed, for a reason that is not the user's."""


class Cancelled(ChrepError):  # noqa: N818 - not a failure: the user asked for it
    """The user stopped the work."""


@contextmanager
def damage_as_error(
    kind: type[ChrepError], what: str, path: str | os.PathLike[str], remedy: str
) -> Iterator[None]:
    """Turn any error that a damaged file causes in other libraries into one ChrepError.

    Parameters
    ----------
    kind : type
        Of the error; those that are a `ChrepError` already pass as they are.
    what : str
        What is wrong, such as "this file is truncated or damaged"; the reason follows in brackets.
    path, remedy
        See `ChrepError`.
    """
    try:
        yield
    except ChrepError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise kind(f"{what} ({reason})", path=path, remedy=remedy) from error
