"""The card of a bundle: a description of the model, for people and programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from chrep_model.errors import BundleError

if TYPE_CHECKING:
    from chrep_model.cohorts.section import Section

FORMAT = 2
"""Version of the format; format 1 had no intervals, and its CHRep had other parts."""

HEADS = "heads_trained_on"
"""Key in the settings of a calibrated bundle, see `Card.of_heads`."""

REMEDY = "Get the whole folder again, or train it again."


class Card(BaseModel):
    """Description of a bundle: method, encoder, tiles, training data, settings and hashes.

    Lengths are in µm; `mpp` and `px` are those of a tile. `files` holds the SHA-256 of every other file, and
    `seal` that of all other fields of the card.
    """

    model_config = ConfigDict(extra="forbid")

    format: int = FORMAT
    name: str
    method: str
    variants: list[str]
    encoder: str
    encoder_id: str
    mpp: float
    px: int
    context_um: list[float]
    genes: int
    units: str = "log10-spot: log10(1 + 1e4 * count / counts of the spot over these genes)"
    cohort: str
    sections: list[dict[str, str | float | int]]
    seed: int
    created: str
    chrep_version: str
    note: str = ""
    settings: dict[str, Any]
    files: dict[str, str]
    seal: str = ""

    @property
    def of_heads(self) -> list[dict[str, str | float | int]]:
        """Sections on which the heads were trained; `sections` are those of the gallery."""
        return list(self.settings.get(HEADS, self.sections))

    def sealed(self) -> Card:
        """Return a copy with `seal` computed from the other fields."""
        facts = json.loads(self.model_dump_json(exclude={"seal"}))
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return self.model_copy(update={"seal": hashlib.sha256(text.encode()).hexdigest()})


def provenance(sections: Iterable[Section]) -> list[dict[str, str | float | int]]:
    """Return descriptions of sections for a card; of their slides' paths only the file name."""
    return [
        {
            "name": s.name, "patient": s.patient, "slide": s.slide_path.name, "mpp": s.mpp, "spots": len(s),
            **({"scene": s.scene} if s.scene else {}),
        }
        for s in sections
    ]  # fmt: skip


def read_card(path: Path) -> Card:
    """Read a card and check its seal.

    Raises
    ------
    BundleError
        The card cannot be parsed, is of another format, or was edited.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        # Checked before the fields, as another format has other fields and should be named in the error.
        if (found := facts["format"]) != FORMAT:
            raise BundleError(
                f"the bundle has format {found}; this version reads {FORMAT}",
                path=path.parent,
                remedy="Use the version that wrote it, or train it again.",
            )
        card = Card.model_validate(facts)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise BundleError("the bundle's card.json cannot be understood", path=path, remedy=REMEDY) from error
    if card.seal != card.sealed().seal:
        raise BundleError(
            "the card is not the one that this bundle was made with (it was edited)",
            path=path,
            remedy=REMEDY,
        )
    return card


def describe(card: Card) -> list[str]:
    """Return the card as a few lines of text, of which the note may be several."""
    facts = json.loads(card.model_dump_json())
    where = ", ".join(f"{s['name']} ({s['patient']})" for s in facts["sections"])
    context = ", ".join(f"{r:g}" for r in card.context_um) or "none"
    lines = [
        f"{card.name}: {card.method} on {card.encoder}, {card.genes} genes",
        f"tiles of {card.mpp * card.px:.0f} µm ({card.px} px at {card.mpp:.3f} µm/px), context {context} µm",
        f"trained on {card.cohort}: {where}; seed {card.seed}, {card.created}",
    ]
    return lines + card.note.splitlines()
