"""Show one pair of a cohort: its spots drawn on the slide, and the findings of its check."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from napari.utils.colormaps import ensure_colormap
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from chrep_model.cohorts.pair_check import THUMBNAIL_PX, Overlay
from napari_chrep.neighbours.tile_panel import pixmap
from napari_chrep.retrain.pair_table import PairRow
from napari_chrep.ui.parts import note

_SIGNS = {"ok": "·", "warning": "▲", "error": "✗"}
_MIN_RADIUS = 1.5
#: From this number on only every n-th spot is drawn: drawing takes time, and they would overlap.
_MAX_SPOTS = 6000
_LEGEND = "Dots: spots on tissue, yellow where they have many counts. Crosses: spots beside it."


class PairView(QWidget):
    """Panel with the picture, the facts and the findings of one pair."""

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self._shown: Overlay | None = None
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.legend, self.facts, self.findings = note(_LEGEND), note(), note()
        for part in (self.facts, self.findings, self.picture, self.legend):
            column.addWidget(part)
        self.show_row(None)

    def show_row(self, row: PairRow | None) -> None:
        """Show the pair of a row of the table; hide the panel if `row` is None or not checked yet."""
        check = None if row is None else row.check
        self.setVisible(check is not None)
        if row is None or check is None:
            return
        overlay, section = check.overlay, check.section
        for part in (self.picture, self.legend):
            part.setVisible(overlay is not None)
        facts = []
        if overlay is not None:
            if overlay is not self._shown:
                self.picture.setPixmap(draw_spots(overlay))
                self._shown = overlay
            facts.append(f"{len(overlay.xy):,} spots, median {np.median(overlay.totals):,.0f} counts.")
        if section is not None:
            facts.append(f"{len(section.genes):,} genes. {section.mpp:.3g} µm/px ({check.mpp_source}).")
        self.facts.setText(" ".join(facts))
        self.facts.setVisible(bool(facts))
        lines = [f"{_SIGNS[f.level]} {f.text} {f.remedy}".rstrip() for f in row.findings]
        self.findings.setText("\n".join(lines))
        self.findings.setVisible(bool(lines))


def draw_spots(overlay: Overlay) -> QPixmap:
    """Return the picture of a slide with its spots, `THUMBNAIL_PX` pixels on its longer side."""
    base = pixmap(overlay.picture, THUMBNAIL_PX)
    scale = base.width() / overlay.picture.shape[1]
    radius = max(overlay.diameter * scale / 2, _MIN_RADIUS)
    painter = QPainter(base)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    some = slice(None, None, 1 + len(overlay.xy) // _MAX_SPOTS)
    for (x, y), colour, on_tissue in zip(
        overlay.xy[some] * scale, _colours(overlay.totals[some]), overlay.on_tissue[some], strict=True
    ):
        if on_tissue:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor.fromRgbF(*colour))
            painter.drawEllipse(QPointF(x, y), radius, radius)
        else:
            painter.setPen(QPen(QColor("black"), 1.0))
            box = QRectF(x - radius, y - radius, 2 * radius, 2 * radius)
            painter.drawLine(box.topLeft(), box.bottomRight())
            painter.drawLine(box.topRight(), box.bottomLeft())
    painter.end()
    return base


def _colours(totals: npt.NDArray[np.float32]) -> list[tuple[float, float, float, float]]:
    """Return colours by rank of the counts, so that a few very high counts do not darken the others."""
    order = np.argsort(np.argsort(totals, kind="stable"), kind="stable")
    rgba = ensure_colormap("viridis").map(order / max(len(order) - 1, 1))
    return [(float(r), float(g), float(b), 0.85) for r, g, b, _ in rgba]
