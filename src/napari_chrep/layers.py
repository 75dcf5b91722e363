"""The heatmaps: image layers on the tile grid, one per variant, written in place.

Choosing another gene gives the same layers new values and names, so that what the user set on them (opacity,
colormap, place in the list) stays.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image
from psygnal import Signal
from superqt.utils import QSignalThrottler

from chrep_model.geometry import overlay_transform
from napari_chrep.session import PerViewer, Session, sessions

if TYPE_CHECKING:
    from chrep_model.inference.prediction import Prediction

#: The variants that have a heatmap, bottom to top; those that a method does not have are left out.
SHOWN = ("raw", "calibrated")

#: Key of a heatmap's ``metadata`` under which its variant lies.
VARIANT_KEY = "chrep_variant"

#: Percentiles of the values in view of the whole prediction that the colours span.
CONTRAST_PERCENTILES = (1.0, 99.0)

#: Least time between two refreshes, in milliseconds: more often, and panning stutters.
REFRESH_MS = 120

FloatMap = npt.NDArray[np.float32]


def shared_limits(maps: list[FloatMap]) -> tuple[float, float]:
    """Return contrast limits for several maps of one gene together, so that their colours compare.

    Parameters
    ----------
    maps : list of float32 array
        NaN where nothing was predicted.

    Returns
    -------
    (float, float)
        `CONTRAST_PERCENTILES` of all finite values; (0, 1) without any; never of zero width.
    """
    values = np.concatenate([m[np.isfinite(m)] for m in maps]) if maps else np.empty(0, np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, CONTRAST_PERCENTILES))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


class Heatmaps:
    """Keeps the heatmap layers of one viewer in step with its session.

    Parameters
    ----------
    viewer : napari.Viewer
        Only a weak reference is kept.
    session : Session
        Whose prediction and gene are shown.

    Attributes
    ----------
    changed : Signal
        Layers came, went, were written, or were shown or hidden.
    """

    changed = Signal()

    def __init__(self, viewer: Any, session: Session) -> None:
        self.session = session
        self._viewer = weakref.ref(viewer)
        self._layers: dict[str, Image] = {}
        self._limits: tuple[float, float] | None = None
        self._throttle = QSignalThrottler()
        self._throttle.setTimeout(REFRESH_MS)
        self._throttle.triggered.connect(self._refresh)
        session.prediction_changed.connect(self._on_prediction)
        session.prediction_grew.connect(self._throttle.throttle)
        session.gene_changed.connect(self._refresh)
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def variants(self) -> tuple[str, ...]:
        """The variants on show, in the order of the prediction."""
        return tuple(self._layers)

    def layer(self, variant: str) -> Image | None:
        """Return the layer of a variant, if there is one."""
        return self._layers.get(variant)

    def show_only(self, variant: str | None) -> None:
        """Show one variant and hide the others; None hides all."""
        for name, layer in self._layers.items():
            layer.visible = name == variant

    @property
    def limits(self) -> tuple[float, float] | None:
        """The contrast limits that the variants share now; None without a map."""
        return self._limits if self._layers else None

    def _on_prediction(self) -> None:
        # Another slide or bundle. Former maps would lie over the wrong tissue.
        prediction = self.session.prediction
        stale = [v for v in self._layers if v not in shown_variants(prediction)]
        viewer = self._viewer()
        for variant in stale:
            layer = self._layers.pop(variant)
            if viewer is not None and layer in viewer.layers:
                viewer.layers.remove(layer)
        self._limits = None
        self.changed.emit()
        self._refresh()

    def _refresh(self) -> None:
        """Write the current gene into the layers; once per batch and once per choice of a gene."""
        session, viewer = self.session, self._viewer()
        if viewer is None or session.prediction is None or session.gene is None:
            return
        prediction = session.prediction
        if prediction.indices.size == 0:
            return
        maps = {variant: prediction.map(session.gene, variant) for variant in shown_variants(prediction)}
        limits = shared_limits(list(maps.values()))
        for variant, values in maps.items():
            layer = self._layers.get(variant)
            if layer is None:
                self._add(viewer, variant, values, limits)
            else:
                self._write(layer, variant, values, limits)
        self._limits = limits
        self.changed.emit()

    def _write(self, layer: Image, variant: str, values: FloatMap, limits: tuple[float, float]) -> None:
        name = layer_name(self.session.gene, variant)
        if layer.name != name:
            layer.name = name
            kept = False
        else:
            kept = tuple(layer.contrast_limits) != self._limits  # the user moved them: leave them be
        placement = self._placement()
        if layer.data.shape == values.shape and tuple(layer.scale) == placement["scale"]:
            layer.data[...] = values
            layer.refresh(thumbnail=True, extent=False)
        else:
            layer.data = values
            layer.scale, layer.translate = placement["scale"], placement["translate"]
        if not kept:
            layer.contrast_limits_range = _range(limits)
            layer.contrast_limits = limits

    def _add(self, viewer: Any, variant: str, values: FloatMap, limits: tuple[float, float]) -> None:
        layer = Image(
            values.copy(),
            name=layer_name(self.session.gene, variant),
            colormap="viridis",
            contrast_limits=limits,
            opacity=0.6,
            blending="translucent",
            interpolation2d="nearest",
            units=("um", "um"),
            visible=variant == shown_variants(self.session.prediction)[-1],
            metadata={VARIANT_KEY: variant},
            **self._placement(),
        )
        layer.contrast_limits_range = _range(limits)
        layer.colorbar.visible = True
        layer.events.visible.connect(self._on_visible)
        self._layers[variant] = layer
        selected = viewer.layers.selection.active
        viewer.layers.append(layer)
        if selected is not None:
            viewer.layers.selection.active = selected

    def _placement(self) -> dict[str, tuple[float, float]]:
        context = self.session.context
        if context is None:
            raise RuntimeError("a prediction without its prepared slide")
        grid = context.grid
        scale, translate = overlay_transform(grid.step_px, grid.tile_px, context.slide.require_mpp())
        return {"scale": scale, "translate": translate}

    def _on_visible(self, _event: Any = None) -> None:
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        for variant, layer in list(self._layers.items()):
            if layer is event.value:  # deleted by the user: it comes back with the next batch or gene
                del self._layers[variant]
                self.changed.emit()


def shown_variants(prediction: Prediction | None) -> tuple[str, ...]:
    """Return those of a prediction's variants that have a heatmap, bottom to top."""
    return () if prediction is None else tuple(v for v in SHOWN if v in prediction.variants)


def layer_name(gene: str | None, variant: str) -> str:
    """Return the name of a heatmap layer, such as ``ERBB2 calibrated``."""
    return f"{gene} {variant}"


def _range(limits: tuple[float, float]) -> tuple[float, float]:
    """Give the contrast slider room on both sides."""
    margin = limits[1] - limits[0]
    return limits[0] - margin, limits[1] + margin


#: The heatmaps of each viewer: ``heatmaps.of(viewer)``.
heatmaps: PerViewer[Heatmaps] = PerViewer(lambda viewer: Heatmaps(viewer, sessions.of(viewer)))
