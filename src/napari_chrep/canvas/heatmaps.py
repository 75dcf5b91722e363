"""Show the maps of a prediction as napari image layers, one layer per kind of map.

When the user chooses another gene, the same layers get new values and names, so that the user's settings
(opacity, colormap, place in the list of layers) are kept.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image
from psygnal import Signal
from qtpy.QtCore import QTimer
from superqt.utils import QSignalThrottler

from chrep_model.geometry import overlay_transform
from napari_chrep.canvas.maps import (
    CLOSE,
    KINDS,
    MAIN_KINDS,
    FloatMap,
    Limits,
    MapMaker,
    MapSubject,
    close,
    limits_of_maps,
    main_kinds,
    why_unavailable,
)
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

#: Key in a heatmap layer's ``metadata`` that holds its kind of map.
VARIANT_KEY = "chrep_variant"

#: Minimum time between two refreshes, in milliseconds; with shorter intervals panning stutters.
REFRESH_MS = 200

#: Delay in milliseconds between drawing new values and new limits, so that no frame has to draw both.
LIMITS_DELAY_MS = 70


@dataclass
class HeatmapLayer:
    """A heatmap layer with the values, title and limits last written to it.

    Attributes
    ----------
    layer : napari Image layer
        The layer itself.
    about : str or None
        Gene or signature whose values the layer holds; None if they belong to an earlier prediction.
    title : str
        Name that the plugin gave the layer. If the layer has another name, the user chose it.
    limits : (float, float)
        Contrast limits that the plugin set. If the layer has other limits, the user chose them.
    """

    layer: Image
    about: str | None
    title: str
    limits: Limits


class Heatmaps:
    """Heatmap layers of one viewer, updated whenever its session changes.

    The layers for raw and calibrated are added with the first predicted batch, the others when they are first
    shown.

    Parameters
    ----------
    viewer : napari.Viewer
        The maps show the prediction, gene and signature of its session. Only a weak reference is kept.

    Attributes
    ----------
    changed : Signal
        Emitted when layers are added, removed, written, shown or hidden.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self._viewer = weakref.ref(viewer)
        self._shown: dict[str, HeatmapLayer] = {}
        self._requested: set[str] = set()
        self._writing = self._growing = False
        self._maker = MapMaker()
        self._refresh_timer = QTimer()  # continues a long computation after the window was redrawn
        self._refresh_timer.setSingleShot(True)
        self._refresh_timer.timeout.connect(self._refresh)
        self._untitled: list[Image] = []  # layers without a title so far
        self._title_timer = QTimer()
        self._title_timer.setSingleShot(True)
        self._title_timer.timeout.connect(self._on_title_timer)
        self._pending_limits: dict[str, Limits] = {}  # limits that wait to be set
        self._limits_timer = QTimer()
        self._limits_timer.setSingleShot(True)
        self._limits_timer.timeout.connect(self._on_limits_timer)
        self._throttle = QSignalThrottler()
        self._throttle.setTimeout(REFRESH_MS)
        # A timer delays the refresh: if a worker's signal changed the layers directly, Qt might draw two
        # frames in a row before it handles any other event.
        self._throttle.triggered.connect(partial(self._refresh_timer.start, 0))
        session.prediction_changed.connect(self._on_prediction)
        session.prediction_grew.connect(self._on_grown)
        session.preview_changed.connect(self._on_grown)
        session.run_ended.connect(self._on_run_ended)
        session.gene_changed.connect(self._refresh)
        session.second_gene_changed.connect(self._on_choice)
        session.signature_changed.connect(self._on_choice)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def variants(self) -> tuple[str, ...]:
        """Kinds of map that have a layer, in the order in which the layers were added."""
        return tuple(self._shown)

    @property
    def visible(self) -> tuple[str, ...]:
        """Kinds of map whose layers are visible."""
        return tuple(kind for kind, shown in self._shown.items() if shown.layer.visible)

    def layer(self, variant: str) -> Image | None:
        """Return the layer of a kind of map, or None if it has no layer."""
        shown = self._shown.get(variant)
        return None if shown is None else shown.layer

    def values(self, kind: str) -> FloatMap | None:
        """Return the current map of a kind, (rows, cols); None if it is not computed yet.

        Values are NaN outside the predicted tiles.
        """
        shown, subject = self._shown.get(kind), self._subject()
        if shown is None or subject is None or shown.about != subject.of(kind):
            return None
        values: FloatMap = shown.layer.data
        return values

    def show(self, kind: str, visible: bool = True) -> None:
        """Show or hide one kind of map; the others do not change.

        Computing a new map of many tiles takes several turns of the event loop; its layer appears afterwards.
        """
        self._requested.discard(kind)
        layer = self.layer(kind)
        if layer is not None:
            layer.visible = visible
        elif visible:
            self._requested.add(kind)
            self._refresh()

    def show_only(self, *kinds: str) -> None:
        """Show these kinds of map and hide the others."""
        for kind in kinds:
            self.show(kind)
        for kind in self.variants:
            if kind not in kinds:
                self.show(kind, visible=False)

    @property
    def can_show(self) -> bool:
        """Whether a gene is chosen and there are predicted tiles or a preview to show."""
        return self._subject() is not None

    def _subject(self) -> MapSubject | None:
        """Return what the maps show now; None if there is nothing to show."""
        session = self.session
        if session.prediction is None or session.gene is None:
            return None
        if not len(session.prediction) and session.preview is None:
            return None
        return MapSubject(
            session.prediction, session.gene, session.second_gene, session.signature, session.preview
        )

    def _on_grown(self) -> None:
        self._growing = True
        self._throttle.throttle()

    def _on_run_ended(self) -> None:
        """Refresh once more, which sets the final contrast limits."""
        self._growing = False
        self._throttle.throttle()

    def _on_prediction(self) -> None:
        # The slide or bundle changed: the existing maps would lie over the wrong tissue.
        gone = self.session.prediction is None
        self._requested.clear()
        self._remove([kind for kind in self._shown if gone or self._why_not(kind)])
        for shown in self._shown.values():
            shown.about = None
        self.changed.emit()
        self._refresh()

    def _on_choice(self) -> None:
        """Update the layers after the signature or the second gene was chosen or cleared."""
        self._remove([kind for kind in self._shown if self._why_not(kind)])
        self.changed.emit()
        self._refresh()

    def _remove(self, kinds: list[str]) -> None:
        """Remove the layers of these kinds of map."""
        viewer = self._viewer()
        for kind in kinds:
            shown = self._shown.pop(kind, None)
            if shown is not None and viewer is not None and shown.layer in viewer.layers:
                viewer.layers.remove(shown.layer)

    def _why_not(self, kind: str) -> str:
        """Return why a kind of map is unavailable now; empty if it is available."""
        session = self.session
        return why_unavailable(kind, session.bundle, session.signature, session.second_gene)

    def _refresh(self) -> None:
        """Compute the maps and write them into the layers, after each batch and each choice of a gene.

        The values of many tiles are computed in several turns of the event loop and written in the last one.
        """
        subject, viewer = self._subject(), self._viewer()
        if subject is None:
            self._clear()
        if viewer is None or subject is None:
            return
        wanted = dict.fromkeys((*main_kinds(self.session.bundle), *self._shown, *sorted(self._requested)))
        kinds = [kind for kind in wanted if not self._why_not(kind)]
        if not self._maker.advance(kinds, subject):
            self._refresh_timer.start(0)
            return
        maps = self._maker.maps(kinds, subject)
        limits = limits_of_maps(maps)
        new = [kind for kind in maps if kind not in self._shown]
        for kind in maps.keys() - new:
            self._write(kind, maps[kind], limits[kind], subject)
        if new:
            self._add(viewer, new[0], maps[new[0]], limits[new[0]], subject)
        if new[1:]:
            self._refresh_timer.start(0)  # adding a layer is slow: add one per turn of the event loop
        self.changed.emit()

    def _clear(self) -> None:
        """Clear the maps, such as those of a preview, when there is nothing left to show."""
        for shown in self._shown.values():
            shown.layer.data[...] = np.nan
            shown.layer.refresh(highlight=False, extent=False)

    def _write(self, kind: str, values: FloatMap, limits: Limits, subject: MapSubject) -> None:
        """Write new values, title and limits into the layer of a kind of map."""
        shown = self._shown[kind]
        layer = shown.layer
        other = shown.about != subject.of(kind)
        if other:
            if layer.name == shown.title:
                layer.name = subject.title(kind)
                shown.title = layer.name
            shown.about = subject.of(kind)
        placement = self._placement()
        if layer.data.shape == values.shape and tuple(layer.scale) == placement["scale"]:
            layer.data[...] = values
            layer.refresh(thumbnail=not self._growing, highlight=False, extent=False)
        else:
            layer.data = values
            layer.scale, layer.translate = placement["scale"], placement["translate"]
        if other or not self._growing:
            self._pending_limits.pop(kind, None)
            self._set_limits(shown, limits, other)
        else:
            self._pending_limits[kind] = limits
            self._limits_timer.start(LIMITS_DELAY_MS)

    def _on_limits_timer(self) -> None:
        pending, self._pending_limits = self._pending_limits, {}
        for kind in pending.keys() & self._shown.keys():
            self._set_limits(self._shown[kind], pending[kind])

    def _set_limits(self, shown: HeatmapLayer, limits: Limits, other: bool = False) -> None:
        """Set a layer's contrast limits, unless the user has changed them.

        If the layer shows the values of another gene (`other`), the user's limits are replaced as well.
        """
        layer = shown.layer
        if not other and tuple(layer.contrast_limits) != shown.limits:
            return
        if not other and close(limits, shown.limits, CLOSE if self._growing else 0.0):
            return
        self._writing = True
        low, high = layer.contrast_limits_range
        if other or limits[0] < low or limits[1] > high:
            layer.contrast_limits_range = _slider_range(limits)
        layer.contrast_limits = limits
        shown.limits = limits
        self._writing = False

    def _add(self, viewer: Any, kind: str, values: FloatMap, limits: Limits, subject: MapSubject) -> None:
        """Add a layer for a kind of map, and keep the selected layer selected."""
        layer = Image(
            values.copy(),
            name=subject.title(kind),
            colormap=KINDS[kind].colormap,
            contrast_limits=limits,
            opacity=KINDS[kind].opacity,
            blending=KINDS[kind].blending,
            interpolation2d="nearest",
            units=("um", "um"),
            visible=kind in self._requested
            or (kind == main_kinds(self.session.bundle)[-1] and not self.visible),
            metadata={VARIANT_KEY: kind},
            **self._placement(),
        )
        layer.contrast_limits_range = _slider_range(limits)
        layer.events.visible.connect(self._on_visible)
        layer.events.contrast_limits.connect(self._on_limits)
        selected = viewer.layers.selection.active
        viewer.layers.insert(self._insert_index(viewer), layer)
        self._requested.discard(kind)
        self._shown[kind] = HeatmapLayer(layer, subject.of(kind), layer.name, limits)
        self._untitled.append(layer)
        self._title_timer.start(0)
        if selected is not None:
            viewer.layers.selection.active = selected

    def _insert_index(self, viewer: Any) -> int:
        """Return the index for a new map: above the slide and the other maps, below the user's drawings."""
        below = [self.session.slide_layer, *(shown.layer for shown in self._shown.values())]
        places = [viewer.layers.index(layer) for layer in below if layer in viewer.layers]
        return max(places, default=len(viewer.layers) - 1) + 1

    def _placement(self) -> dict[str, tuple[float, float]]:
        """Return scale and translation that put the tile grid onto the slide."""
        context = self.session.context
        if context is None:
            raise RuntimeError("a prediction without its prepared slide")
        grid = context.grid
        scale, translate = overlay_transform(grid.step_px, grid.tile_px, context.slide.require_mpp())
        return {"scale": scale, "translate": translate}

    def _on_title_timer(self) -> None:
        """Add a title to one visible layer per turn of the event loop, because drawing text is slow."""
        viewer = self._viewer()
        self._untitled = [layer for layer in self._untitled if viewer is not None and layer in viewer.layers]
        for layer in self._untitled:
            if layer.visible:
                layer.name_overlay.box = True  # white text on bare glass is illegible
                layer.name_overlay.visible = True
                self._untitled.remove(layer)
                self._title_timer.start(0)
                return

    def _on_limits(self, event: Any) -> None:
        """Copy the user's contrast limits between raw and calibrated, so that their colours compare."""
        pair_ = [shown.layer for kind, shown in self._shown.items() if kind in MAIN_KINDS]
        if self._writing or event.source not in pair_:
            return
        limits = tuple(event.source.contrast_limits)
        for layer in pair_:
            if tuple(layer.contrast_limits) != limits:
                layer.contrast_limits = limits

    def _on_visible(self, _event: Any = None) -> None:
        self._title_timer.start(0)
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        for kind, shown in list(self._shown.items()):
            if shown.layer is event.value:  # deleted by the user; the next gene restores raw and calibrated
                del self._shown[kind]
                self.changed.emit()


def _slider_range(limits: Limits) -> Limits:
    """Return the range of the contrast slider: the limits with a margin on both sides."""
    margin = limits[1] - limits[0]
    return limits[0] - margin, limits[1] + margin
