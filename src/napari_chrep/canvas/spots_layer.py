"""Show the spots measured on the current slide as a layer, and compare them with the maps.

The spots come from the h5ad of the same name beside the slide, or from one that the user opens, and are
read in the background. Their layer uses the colours and limits of the best map (calibrated if the model has
it, else raw), so that the colours of a spot and of the tile below it compare.
"""

from __future__ import annotations

import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Points
from napari.utils.colormaps import ensure_colormap
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_chrep.background.runner import TaskRunner, in_words, show
from napari_chrep.canvas.heatmaps import Heatmaps
from napari_chrep.canvas.maps import KINDS, Limits, main_kinds, shared_limits
from napari_chrep.canvas.measured_spots import (
    AT_REST_KEY,
    SECTION_KEY,
    MeasuredSpots,
    agreement,
    read_measured_spots,
    spots_layer_data,
)
from napari_chrep.state.session import Session
from napari_chrep.state.viewers import kept_for

if TYPE_CHECKING:
    from chrep_model.cohorts.section import Section
    from chrep_model.slides.slide import Slide


class SpotsLayer:
    """Layer with the measured spots of one viewer, updated whenever its session changes.

    Parameters
    ----------
    viewer : napari.Viewer
        The spots have the colours of its heatmaps, and are compared with them. Only a weak reference is kept.

    Attributes
    ----------
    measured : MeasuredSpots or None
        Spots of the current slide.
    trouble : str
        Why a file of spots could not be used; empty if there was no file or no error.
    agreement : str
        How well the maps of the current gene agree with the spots, in words; empty without maps or spots.
    changed : Signal
        Emitted when one of these changes, or the layer is shown or hidden.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self.session = session = kept_for(viewer, Session)
        self.maps = maps = kept_for(viewer, Heatmaps)
        self.measured: MeasuredSpots | None = None
        self.trouble = self.agreement = ""
        self._tasks = TaskRunner()
        self._viewer = weakref.ref(viewer)
        self._layer: Points | None = None
        self._is_own = False  # whether it was created here; a sample's layer is kept when the slide changes
        self._title = ""  # name that the plugin gave the layer
        self._painted: tuple[str, Limits, str] | None = None
        self._opened_counts: dict[Path, Path] = {}  # the h5ad that the user opened for each slide
        self._followed: Any = None  # layer of the map whose colours the spots have
        self._update_timer = QTimer()  # a change of gene emits several events: paint once
        self._update_timer.setSingleShot(True)
        self._update_timer.timeout.connect(self._update)
        session.slide_changed.connect(self._on_slide)
        session.bundle_changed.connect(self._read)
        session.gene_changed.connect(self._update_soon)
        session.prediction_changed.connect(self._update_soon)
        maps.changed.connect(self._on_maps)
        viewer.layers.events.inserted.connect(self._on_inserted)
        viewer.layers.events.removed.connect(self._on_removed)
        self._on_slide()

    @property
    def busy(self) -> bool:
        """Whether a file of spots is being read."""
        return self._tasks.busy

    @property
    def layer(self) -> Points | None:
        """The spots' layer; None before it is first shown."""
        return self._layer

    @property
    def visible(self) -> bool:
        """Whether the spots are shown."""
        return self._layer is not None and bool(self._layer.visible)

    def show(self, visible: bool = True) -> None:
        """Show or hide the spots."""
        viewer, slide_layer = self._viewer(), self.session.slide_layer
        if self._layer is None:
            if not visible or self.measured is None or viewer is None or slide_layer is None:
                return
            selected = viewer.layers.selection.active
            scale, units = tuple(slide_layer.scale[-2:]), tuple(slide_layer.units[-2:])
            data, kwargs, _ = spots_layer_data(self.measured.section, scale, units)
            layer = Points(data, **kwargs)
            self._set_layer(layer, own=True)
            viewer.layers.append(layer)
            if selected is not None:
                viewer.layers.selection.active = selected
            self._update()
        else:
            self._layer.visible = visible

    def open(self, counts: Path) -> None:
        """Use the spots of this h5ad for the current slide; an error is shown as a notification."""
        if self.session.slide is not None:
            self._opened_counts[self.session.slide.path] = counts
            self._drop()
            self._read(tell=True)

    def _on_slide(self) -> None:
        slide, former = self.session.slide, self.measured
        if slide is None or former is None or former.section.slide_path != slide.path:
            self._drop()
            self._read()
        elif self._layer is not None and self.session.slide_layer is not None:  # the slide's scale changed
            self._layer.scale = tuple(self.session.slide_layer.scale[-2:])
            self._layer.units = tuple(self.session.slide_layer.units[-2:])

    def _drop(self) -> None:
        """Discard the spots, and remove their layer unless it belongs to a sample."""
        self.measured, self.trouble, self.agreement = None, "", ""
        self._tasks.drop()
        viewer, layer, own = self._viewer(), self._layer, self._is_own
        self._set_layer(None)
        if own and viewer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)
        self.changed.emit()

    def _read(self, *, tell: bool = False) -> None:
        """Read the spots in the background, unless already read, and match them to the model's genes."""
        slide, bundle, viewer = self.session.slide, self.session.bundle, self._viewer()
        if slide is None or viewer is None:
            return
        section = None if self.measured is None else self.measured.section
        if section is None and slide.path not in self._opened_counts:
            section = self._adopt(viewer, slide)
        counts = self._opened_counts.get(slide.path)
        panel, bundle_hash = (None, "") if bundle is None else (bundle.panel, bundle.hash)
        self._tasks.run(
            lambda _task: read_measured_spots(slide, counts, section, panel, bundle_hash),
            on_result=self._on_read,
            on_error=partial(self._on_error, tell),
            on_end=self.changed.emit,
        )
        self.changed.emit()

    def _adopt(self, viewer: Any, slide: Slide) -> Section | None:
        """Use an existing layer with this slide's spots, such as a sample's; return their section."""
        for layer in viewer.layers:
            section = layer.metadata.get(SECTION_KEY)
            if section is not None and section.slide_path == slide.path:
                self._set_layer(layer)
                self.measured = MeasuredSpots(section)
                return self.measured.section
        return None

    def _on_read(self, result: MeasuredSpots | None) -> None:
        if result is None:
            return
        first = self.measured is None or self.measured.expression is None
        self.measured, self.trouble, self._painted = result, result.trouble, None
        if first and result.expression is not None and self._layer is not None and not self._is_own:
            self._layer.visible = False  # its outlines become filled discs, which would hide the maps
        self._give_scale(result.section.mpp)
        self._update_soon()

    def _on_error(self, tell: bool, error: Exception) -> None:
        self.trouble = in_words(error)
        if tell:
            show(error)
        self._update_soon()

    def _give_scale(self, mpp: float) -> None:
        """Set the slide's scale to the spots' scale, if the slide file has none."""
        slide, viewer = self.session.slide, self._viewer()
        if slide is not None and slide.mpp is None and viewer is not None:
            self.session.set_mpp(mpp, "cohort")
            viewer.reset_view()  # the slide's size in world units has just changed

    def _on_inserted(self, event: Any) -> None:
        slide, section = self.session.slide, event.value.metadata.get(SECTION_KEY)
        here = slide is not None and section is not None and section.slide_path == slide.path
        if here and self._layer is None:
            self.measured = None
            self._read()

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._set_layer(None)
            self.changed.emit()

    def _set_layer(self, layer: Points | None, *, own: bool = False) -> None:
        """Use a layer for the spots, or none, and listen to its visibility."""
        if self._layer is not None:
            self._layer.events.visible.disconnect(self._update)
        self._layer, self._is_own, self._painted = layer, own, None
        if layer is not None:
            self._title = layer.name
            layer.name_overlay.box = True  # white text on bare glass is illegible
            layer.name_overlay.visible = True  # as for the maps
            layer.events.visible.connect(self._update)

    def _on_maps(self) -> None:
        """Listen to changes of contrast limits and colormap in the best map's layer."""
        bundle = self.session.bundle
        trusted = self.maps.layer(main_kinds(bundle)[-1]) if main_kinds(bundle) else None
        if trusted is not self._followed:
            for layer, connect in ((self._followed, False), (trusted, True)):
                for events in () if layer is None else (layer.events.contrast_limits, layer.events.colormap):
                    (events.connect if connect else events.disconnect)(self._update_soon)
            self._followed = trusted
        self._update_soon()

    def _update_soon(self, _event: Any = None) -> None:
        self._update_timer.start(0)

    def _update(self, _event: Any = None) -> None:
        """Colour the spots by the current gene, and compare them with the gene's maps."""
        session, measured = self.session, self.measured
        self.agreement = ""
        if measured is not None:
            if self._layer is not None:
                self._paint(self._layer, measured)
            if session.prediction is not None and session.gene is not None:
                self.agreement = agreement(measured, session.prediction, session.gene, self.maps.values)
        self.changed.emit()

    def _paint(self, layer: Points, measured: MeasuredSpots) -> None:
        """Colour the spots by their values for the current gene, or reset their colours if they have none."""
        values = measured.of(self.session.gene, self.session.bundle)
        title, at_rest = layer.metadata.get(AT_REST_KEY, (f"{measured.section.name} spots", "transparent"))
        if values is not None:
            title = f"{self.session.gene} measured [{KINDS['calibrated'].unit}]"
        elif measured.lacks(self.session.gene):
            title = f"{self.session.gene} was not measured"
        if layer.name == self._title:  # otherwise the user renamed it
            layer.name = title
            self._title = layer.name
            layer.name_overlay.box = True  # white text on bare glass is illegible
            layer.name_overlay.visible = True  # as for the maps
        limits, colormap = self._colours(values)
        key = (title, limits, colormap.name)
        if not layer.visible or key == self._painted:
            return
        self._painted = key
        low, high = limits
        shares = None if values is None else np.clip((values - low) / (high - low), 0, 1)
        layer.face_color = at_rest if shares is None else colormap.map(shares)

    def _colours(self, values: npt.NDArray[np.float32] | None) -> tuple[Limits, Any]:
        """Return limits and colormap of the best map, or defaults if there is no map."""
        if self._followed is not None:
            low, high = self._followed.contrast_limits
            return (float(low), float(high)), self._followed.colormap
        return shared_limits([] if values is None else [values]), ensure_colormap(
            KINDS["calibrated"].colormap
        )
