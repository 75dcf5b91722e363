"""Read lists of genes, and match them to the gene names of sections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from chrep_model.cohorts.section import Section
from chrep_model.cohorts.tables.names import without_version
from chrep_model.errors import GeneError


def read_gene_list(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read gene names from a text file, one per line; empty lines and text after a ``#`` are skipped.

    Raises
    ------
    GeneError
        The file is missing, is not text, or names no gene.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is no text" if isinstance(error, UnicodeDecodeError) else str(error.strerror or error)
        raise GeneError(
            f"the list of genes cannot be read ({reason})",
            path=path,
            remedy="Give a text file, one gene a line.",
        ) from error
    names = tuple(name for line in lines if (name := line.split("#")[0].strip()))
    if not names:
        raise GeneError("the list of genes is empty", path=path, remedy="Write one gene a line.")
    return names


def listed(
    genes: Sequence[str] | os.PathLike[str],
    sections: tuple[Section, ...],
    known: tuple[str, ...],
    warn: Callable[[str], None],
) -> tuple[str, ...]:
    """Return the listed genes that the sections have, under the sections' names for them.

    Parameters
    ----------
    genes : sequence of str, or path
        Gene names, or a text file of them.
    sections : tuple of Section
    known : tuple of str
        The names of all genes of the sections.
    warn : callable
        Called with a line about names that no section has, and one about names that were translated.

    Raises
    ------
    GeneError
        The list is empty, repeats a gene, or has no gene of any section.
    """
    path = None
    if isinstance(genes, (str, os.PathLike)):
        path = Path(genes)
        genes = read_gene_list(path)
    names = tuple(genes)
    if not names:
        raise GeneError("the list of genes is empty", remedy="Name at least one gene.")
    present = set(known)
    if not present.issuperset(names):
        others = _by_other_names(sections)
        called = {
            name: others[without_version(name)]
            for name in names
            if name not in present and without_version(name) in others
        }
        names = tuple(called.get(name, name) for name in names)
        if called:
            one, own = next(iter(called.items()))
            warn(f"{len(called)} listed genes have other names in the sections: {own} is taken for {one}")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise GeneError(
            f"genes are listed twice: {', '.join(repeated[:5])}", path=path, remedy="List each one once."
        )
    unknown = [name for name in names if name not in present]
    if len(unknown) == len(names):
        raise GeneError(
            f"none of the {len(names)} listed genes is in a training section: {first(unknown)}",
            path=path,
            remedy=nearest(unknown[0], known),
        )
    if unknown:
        where = "" if path is None else f"{path}: "
        warn(
            f"{where}{len(unknown)} of {len(names)} listed genes are in no training section "
            f"and are left out: {first(unknown)}. {nearest(unknown[0], known)}"
        )
    return tuple(name for name in names if name in present)


def _by_other_names(sections: Iterable[Section]) -> dict[str, str]:
    """Map ids and symbols, without version, to the sections' gene names; ambiguous ones are left out."""
    found: dict[str, set[str]] = {}
    for section in sections:
        for name, other in zip(section.genes, section.gene_ids or section.genes, strict=True):
            for called in {without_version(name), without_version(other)} - {""}:
                found.setdefault(called, set()).add(name)
    return {called: next(iter(names)) for called, names in found.items() if len(names) == 1}


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint that names the known genes closest to an unknown name."""
    # Compared in lower case: case is the most common difference (mouse and human symbols).
    by_lower = {other.lower(): other for other in known}
    near = [by_lower[lower] for lower in get_close_matches(name.lower(), by_lower, n=3)]
    return (
        f"Nearest to {name!r}: {', '.join(near)}."
        if near
        else "No name comes near it; check the kind of names."
    )


def first(names: Sequence[str], count: int = 5) -> str:
    """Return the first few of some gene names as text."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
