"""Select the rows of a table that belong to one capture and are under tissue.

A capture is one array of spots with its own picture. Tables often hold several captures, one below the other,
whose positions refer to different pictures.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chrep_model.cohorts.findings import Finding
from chrep_model.cohorts.tables.names import plain, texts
from chrep_model.errors import CohortError
from chrep_model.geometry import FloatArray

#: Columns of obs, in lower case without separators, whose values certainly name captures.
_CERTAIN = ("libraryid", "library", "capturearea", "captureareaid", "slideid", "arrayid")
#: Columns that name captures or parts of one; the positions of the spots decide which.
_PERHAPS = (
    *("sectionid", "sampleid", "samplename", "sample", "section", "slide", "batch", "origident"),
    *("dataset", "patient", "patientid", "donor", "donorid", "puck", "imageid", "slice", "sliceid"),
)
COLUMNS = (*_CERTAIN, *_PERHAPS)
#: The part of a spot's name that identifies it on its array: a barcode, a Visium HD bin, or column x row.
_BARCODE = re.compile(r"[ACGT]{14,}|s_\d{3}um_\d+_\d+|(?<![\d.])\d+x\d+(?![\d.])")
#: If a larger share of spots has the position of another spot, the table holds several arrays.
_SHARED = 0.05
#: With fewer spots, shared positions are no evidence.
_FEWEST_SPOTS = 10
MOST_CAPTURES = 200
#: Spots of two groups are too near at less than this fraction of the distance within a group.
_TOO_NEAR = 0.8
_OVERLAP = 0.10
#: For columns with other names: the share of spots that must be too near, and the fewest spots of a group.
_INTERLEAVED, _FEWEST_PER_GROUP = 0.3, 20


@dataclass(frozen=True, eq=False)
class Grouping:
    """A division of a table's rows into groups that may be captures.

    Attributes
    ----------
    where : str
        Source of the groups, such as ``obs['library_id']``.
    labels : ndarray
        str (n,), group of each row.
    certain : bool
        Whether the groups are captures, regardless of the positions.
    named : bool
        Whether the source is named after captures, samples or patients; any other column only counts if the
        lattices of its groups' spots interleave.
    """

    where: str
    labels: npt.NDArray[np.str_]
    certain: bool
    named: bool = True

    @property
    def names(self) -> list[str]:
        """Names of the captures, sorted."""
        return sorted(set(self.labels.tolist()))


def groupings(columns: Mapping[str, Any], spot_ids: Sequence[str]) -> list[Grouping]:
    """Find all groupings of the rows that may be captures, starting with columns named after captures."""
    found = []
    for name, values in sorted(columns.items(), key=lambda item: _rank(item[0])):
        labels = np.array([text.strip() for text in texts(values)])
        named = plain(name) in COLUMNS
        fewest = 1 if named else 2
        if len(labels) == len(spot_ids) and fewest <= len(set(labels.tolist())) <= _max_groups(len(labels)):
            found.append(Grouping(f"obs['{name}']", labels, plain(name) in _CERTAIN, named))
    if (ends := _by_barcode(spot_ids)) is not None:
        found.append(ends)
    return sorted(found, key=lambda grouping: not grouping.named)


def _rank(name: str) -> int:
    return COLUMNS.index(plain(name)) if plain(name) in COLUMNS else len(COLUMNS)


def _max_groups(n_spots: int) -> int:
    return min(MOST_CAPTURES, max(n_spots // 3, 1))


def _by_barcode(spot_ids: Sequence[str]) -> Grouping | None:
    """Group spots by their names without the barcode; certain if the same barcode occurs several times."""
    found = [_BARCODE.search(name) for name in spot_ids]
    if not all(found):
        return None
    places = [match.group() for match in found if match is not None]
    rest = [name.replace(place, "", 1).strip("-_ ") for name, place in zip(spot_ids, places, strict=True)]
    if not 2 <= len(set(rest)) <= _max_groups(len(rest)):
        return None
    shared = sum(count for count in Counter(places).values() if count > 1)
    certain = shared >= _SHARED * len(places)
    return Grouping("what stands around the barcodes in obs_names", np.array(rest), certain, named=certain)


def choose_rows(
    found: Sequence[Grouping],
    wanted: str | None,
    xy: FloatArray,
    array: np.ndarray | None,
    libraries: Sequence[str],
    path: Path,
) -> tuple[npt.NDArray[np.bool_], tuple[Finding, ...]]:
    """Return which rows belong to the wanted capture, and the findings.

    Parameters
    ----------
    found : sequence of Grouping
    wanted : str or None
        Name of the capture; None if the table must hold a single one.
    xy : ndarray
        (n, 2) positions.
    array : ndarray or None
        (n, 2) positions on the array.
    libraries : sequence of str
        Names in ``uns["spatial"]``.

    Raises
    ------
    CohortError
        There are several captures and none was chosen, or there is none of this name.
    """
    everything = np.ones(len(xy), bool)
    if wanted is not None:
        return _rows_of_capture(found, wanted, libraries, everything, path)
    # NaN and infinite positions of the chosen rows are refused later.
    placed = np.asarray(np.isfinite(xy).all(axis=1))
    xy, array = xy[placed], None if array is None else array[placed]
    single = _single_lattice(xy)
    for grouping in found:
        _refuse_several(grouping, placed, xy, array, single, path)
    apart = next((grouping for grouping in found if grouping.named and len(grouping.names) > 1), None)
    if apart is not None:
        return everything, (
            Finding(
                "ok",
                f"{apart.where} has several values ({_shown(apart.names)}) whose spots lie apart: all count.",
                "Choose one with library: NAME in a YAML manifest if they are different sections.",
            ),
        )
    if _share_positions(xy, array) or (not single and _blocks_interleave(xy)):
        raise CohortError(
            "many spots lie on or between others, as on no array: these are several captures, and nothing "
            "says which spot is of which",
            path=path,
            remedy="Write a file for each capture, or name them in obs['library_id'].",
        )
    one = {grouping.names[0] for grouping in found if len(grouping.names) == 1}
    if len(libraries) > 1 and not one & set(libraries):
        return everything, (
            Finding(
                "warning",
                f"uns['spatial'] names several captures ({_shown(libraries)}), and obs does not say of which "
                "one the spots are: no scale factor is used.",
                "Say it in obs['library_id'].",
            ),
        )
    return everything, ()


def _refuse_several(
    grouping: Grouping,
    placed: npt.NDArray[np.bool_],
    xy: FloatArray,
    array: np.ndarray | None,
    single: bool,
    path: Path,
) -> None:
    """Raise CohortError if a grouping names several captures, by its name or because their spots overlap.

    `placed` is the mask of the rows in `xy` and `array`; `single` tells whether all spots form one lattice.
    """
    if len(grouping.names) < 2:
        return
    labels = grouping.labels[placed]
    collide = (
        _collide(xy, array, labels)
        if grouping.named
        else not single and _lattices_interleave([xy[labels == name] for name in grouping.names])
    )
    if grouping.certain or collide:
        raise CohortError(
            f"{grouping.where} names several captures ({_shown(grouping.names)}), and each has a picture of "
            "its own",
            path=path,
            remedy="Choose one: library: NAME in a YAML manifest, a section each.",
        )


def _rows_of_capture(
    found: Sequence[Grouping],
    wanted: str,
    libraries: Sequence[str],
    everything: npt.NDArray[np.bool_],
    path: Path,
) -> tuple[npt.NDArray[np.bool_], tuple[Finding, ...]]:
    for grouping in found:
        kept = grouping.labels == wanted
        if kept.any():
            others = int((~kept).sum())
            note = Finding("ok", f"{others:,} of {len(kept):,} spots are of other captures than {wanted}.")
            return kept, (note,) if others else ()
    if list(libraries) == [wanted]:
        return everything, ()
    known = [name for grouping in found if grouping.named for name in grouping.names]
    nothing = "Nothing in obs names captures: name them in obs['library_id'], or leave library out."
    has = f"It has {_shown(known)}." if len(known) > 1 else nothing
    raise CohortError(f"there are no spots of a capture {wanted!r} in this file", path=path, remedy=has)


def _collide(xy: FloatArray, array: np.ndarray | None, labels: npt.NDArray[np.str_]) -> bool:
    """Return whether spots of different groups overlap, which is impossible on one array."""
    if _share_positions(xy, array):
        return True
    groups = [xy[labels == name] for name in np.unique(labels)]
    groups = [group for group in groups if len(group) >= 3]
    for i, one in enumerate(groups):
        tree = _tree(one)
        near = tree.query(one, k=2)[0][:, 1]
        if np.percentile(near, 5) < 0.6 * np.median(near):  # irregular, like cells: compare bounding boxes
            if any(_boxes_overlap(one, other) for other in groups[i + 1 :]):
                return True
            continue
        for other in groups[i + 1 :]:
            distance = tree.query(other)[0]
            if (distance < _TOO_NEAR * np.median(near)).mean() > _OVERLAP:
                return True
    return False


def _single_lattice(xy: FloatArray) -> bool:
    """Return whether all spots form one lattice: most have three or more equally near neighbours."""
    if len(xy) < _FEWEST_SPOTS:
        return True
    tree = _tree(xy)
    pitch = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    return bool(np.median(tree.query_ball_point(xy, 1.25 * pitch, return_length=True)) >= 4)


def _lattices_interleave(groups: Sequence[FloatArray]) -> bool:
    """Return whether two groups of spots are lattices that interleave."""
    groups = [group for group in groups if len(group) >= _FEWEST_PER_GROUP]
    for i, one in enumerate(groups):
        if (least := _least_distance(one)) is None:
            continue
        tree = _tree(one)
        for other in groups[i + 1 :]:
            if _least_distance(other) is not None:
                near = tree.query(other)[0] < _TOO_NEAR * least
                if near.mean() > _INTERLEAVED:
                    return True
    return False


def _least_distance(xy: FloatArray) -> float | None:
    """Return the distance between neighbours of a lattice; None if the spots do not form a lattice."""
    near = _tree(xy).query(xy, k=2)[0][:, 1]
    least = float(np.percentile(near, 5))
    return least if least > 0.75 * float(np.median(near)) else None


def _blocks_interleave(xy: FloatArray) -> bool:
    """Return whether the rows are two interleaving lattices, one after the other (concatenated tables)."""
    if len(xy) < 2 * _FEWEST_PER_GROUP:
        return False
    # A new table begins where a spot is nearer to an earlier row than any two spots before it.
    distance, row = _tree(xy).query(xy, k=min(9, len(xy)))
    earlier = np.where(row < np.arange(len(xy))[:, None], distance, np.inf).min(axis=1)
    before = np.minimum.accumulate(earlier)
    begins = np.flatnonzero(earlier[1:] < _TOO_NEAR * before[:-1]) + 1
    begins = begins[begins >= _FEWEST_PER_GROUP]
    return any(_lattices_interleave([xy[:start], xy[start:]]) for start in begins[:3].tolist())


def _boxes_overlap(one: FloatArray, other: FloatArray) -> bool:
    low = np.maximum(one.min(axis=0), other.min(axis=0))
    shared = np.prod(np.clip(np.minimum(one.max(axis=0), other.max(axis=0)) - low, 0, None))
    return bool(shared > 0.5 * min(np.prod(np.ptp(group, axis=0)) for group in (one, other)))


def _share_positions(xy: FloatArray, array: np.ndarray | None) -> bool:
    """Return whether many spots have exactly the same position as another."""
    for places in (xy, array):
        if places is not None and len(places) >= _FEWEST_SPOTS:
            _, counts = np.unique(places, axis=0, return_counts=True)
            if counts[counts > 1].sum() > _SHARED * len(places):
                return True
    return False


def under_tissue(values: Any, path: Path) -> tuple[npt.NDArray[np.bool_] | None, tuple[Finding, ...]]:
    """Return which rows are under tissue by ``obs["in_tissue"]``, and the findings; None if all rows are.

    Raises
    ------
    CohortError
        No row is under tissue.
    """
    words = {"1": True, "true": True, "1.0": True, "yes": True}
    words |= {"0": False, "false": False, "0.0": False, "no": False}
    read = [words.get(text.strip().lower()) for text in texts(values)]
    if any(word is None for word in read):
        return None, (
            Finding(
                "warning",
                "obs['in_tissue'] is not 0 or 1 for every spot: it is not used.",
                "Correct it, or leave the spots off tissue out of the file.",
            ),
        )
    kept = np.array(read, bool)
    off = int((~kept).sum())
    if off == len(kept):
        raise CohortError(
            "obs['in_tissue'] is 0 for every spot", path=path, remedy="Correct or remove that column."
        )
    if not off:
        return None, ()
    return kept, (Finding("ok", f"{off:,} of {len(kept):,} spots have in_tissue 0 and are left out."),)


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name or "without a name" for name in names[:8]) + (
        f", ... ({len(names)} in all)" if len(names) > 8 else ""
    )


def _tree(xy: FloatArray) -> Any:
    from scipy.spatial import KDTree  # the process that probes files needs none, and starts in half the time

    return KDTree(xy)
