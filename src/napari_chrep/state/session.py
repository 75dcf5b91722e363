"""The session of one viewer: current slide, bundle, prediction and genes, shared by all its widgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from psygnal import Signal

from chrep_model.analysis.signature import Signature
from chrep_model.errors import ChrepError, GeneError, ScaleError
from chrep_model.prediction.prediction import Prediction

if TYPE_CHECKING:
    from napari.layers import Image

    from chrep_model.bundle import Bundle
    from chrep_model.cohorts.aliases import GeneNames
    from chrep_model.prediction.parts import PredictionPart
    from chrep_model.prediction.prediction import Preview
    from chrep_model.prediction.predictor import Predictor, SlideContext
    from chrep_model.slides.slide import Slide

#: Key of a slide layer's ``metadata``: its `Slide`.
SLIDE_KEY = "chrep_slide"


class Session:
    """Current slide, bundle, prediction and genes of one viewer.

    Setters emit their event only if the value changes. The prediction of every pair of slide and bundle that
    was current is kept, so that the maps of an earlier slide are shown again without the model.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer; no reference to it is kept.

    Attributes
    ----------
    slide, slide_layer : Slide, napari Image layer, or None
        The slide and the layer that shows it.
    bundle : Bundle or None
        The trained model that was chosen.
    predictor : Predictor or None
        The bundle with its networks loaded; made in the background, None until then.
    context : SlideContext or None
        The slide prepared for the bundle (grid, tissue, stain); made in the background, None until then.
    prediction : Prediction or None
        The tiles predicted so far on this slide with this bundle.
    preview : Preview or None
        Rough map of the tiles that are being predicted; None after the run.
    gene : str or None
        The gene whose maps are shown.
    second_gene : str or None
        The gene that is blended with the first.
    signature : Signature or None
        The list of genes that is shown as one map.
    names : GeneNames or None
        Other names of the bundle's genes.
    """

    slide_changed = Signal()
    bundle_changed = Signal()
    prediction_changed = Signal()  # another one is current, or none
    prediction_grew = Signal()  # a batch was added to the prediction
    run_ended = Signal()  # emitted whether it was complete or not
    preview_changed = Signal()  # another one is shown, or none
    gene_changed = Signal()
    second_gene_changed = Signal()
    signature_changed = Signal()
    names_changed = Signal()  # other names for the same genes

    def __init__(self, viewer: Any) -> None:
        self.slide: Slide | None = None
        self.slide_layer: Image | None = None
        self.bundle: Bundle | None = None
        self.predictor: Predictor | None = None
        self.context: SlideContext | None = None
        self.prediction: Prediction | None = None
        self.preview: Preview | None = None
        self.gene: str | None = None
        self.second_gene: str | None = None
        self.signature: Signature | None = None
        self.names: GeneNames | None = None
        # Keyed by the identity of the slide, which the context keeps alive, and the hash of the bundle.
        self._kept: dict[tuple[int, str], tuple[SlideContext, Prediction]] = {}
        # Connected here, so that a slide is dropped with its layer even if no widget is open.
        viewer.layers.events.removed.connect(self._on_layer_removed)

    def set_slide_layer(self, layer: Image | None) -> None:
        """Make a layer and its slide the current ones; None for no slide."""
        slide = slide_of(layer)
        if layer is self.slide_layer and slide is self.slide:
            return
        self.slide, self.slide_layer = slide, layer if slide is not None else None
        self._restore_prediction()
        self.slide_changed.emit()

    def _on_layer_removed(self, event: Any) -> None:
        """Drop the predictions on a slide whose layer was removed."""
        slide = slide_of(event.value)
        if slide is None:
            return
        self._drop_predictions_on(slide)
        if event.value is self.slide_layer:
            self.set_slide_layer(None)

    def set_mpp(self, value: float, source: str = "user") -> None:
        """Set the scale of the current slide, and drop its predictions, which were made for another scale.

        Parameters
        ----------
        value : float
            µm per level-0 pixel.
        source : str
            Origin of the value, see `Mpp`.

        Raises
        ------
        ScaleError
            If there is no slide, or the value is implausible.
        """
        if self.slide is None or self.slide_layer is None:
            raise ScaleError("There is no slide to give a scale to", remedy="Open a slide first.")
        if self.slide.mpp is not None and self.slide.mpp.value == value:
            return
        layer = self.slide_layer
        slide = self.slide.with_mpp(value, source)
        self._drop_predictions_on(self.slide)
        layer.metadata[SLIDE_KEY] = slide
        layer.scale = (value, value)
        layer.units = ("um", "um")
        self.set_slide_layer(layer)

    def set_bundle(self, bundle: Bundle) -> None:
        """Make a bundle the current one; genes and signature stay if the bundle contains them."""
        if self.bundle is not None and self.bundle.hash == bundle.hash:
            return
        self.bundle = bundle
        self.names = bundle.panel.names
        self.predictor = None
        former_gene = self.gene
        if self.gene not in bundle.genes:
            self.gene = bundle.genes[0]
        former_second, former_signature = self.second_gene, self.signature
        if self.second_gene not in bundle.genes:
            self.second_gene = None
        if former_signature is not None:
            self.signature = _matched_again(former_signature, bundle)
        self._restore_prediction()
        self.bundle_changed.emit()
        if self.gene != former_gene:
            self.gene_changed.emit()
        if self.second_gene != former_second:
            self.second_gene_changed.emit()
        if self.signature != former_signature:
            self.signature_changed.emit()

    def set_names(self, names: GeneNames) -> None:
        """Set other names of the current bundle's genes."""
        self.names = names
        self.names_changed.emit()

    def set_predictor(self, bundle: Bundle, predictor: Predictor) -> None:
        """Set the loaded networks of a bundle, if it is still the current one."""
        if self.bundle is not None and self.bundle.hash == bundle.hash:
            self.predictor = predictor

    def set_slide_context(self, predictor: Predictor, context: SlideContext) -> None:
        """Set the networks and the prepared slide, for the current slide and bundle.

        The prediction starts empty, unless only the predictor had to be loaded again.
        """
        if self.bundle is None or self.slide is None:
            raise ChrepError("A slide was prepared that nobody looks at", remedy="Predict again.")
        self.predictor = predictor
        if context is self.context:
            return
        self.context = context
        self.prediction = Prediction(self.bundle, context.grid, context.slide)
        self._kept[id(self.slide), self.bundle.hash] = (context, self.prediction)
        self.prediction_changed.emit()

    def reopen(self, layer: Image | None, context: SlideContext, prediction: Prediction) -> None:
        """Show a prediction that was read from a file, on the layer of its slide if there is one."""
        self.set_slide_layer(layer)
        self.set_bundle(prediction.bundle)
        self.context, self.prediction = context, prediction
        self._kept[id(self.slide), prediction.bundle.hash] = (context, prediction)
        self.prediction_changed.emit()

    def add_part(self, part: PredictionPart) -> None:
        """Add one batch to the current prediction."""
        if self.prediction is None:
            return
        self.prediction.add(part)
        self.prediction_grew.emit()

    def set_preview(self, preview: Preview | None) -> None:
        """Set the rough map that is shown where nothing is predicted yet; None for none."""
        if preview is not self.preview:
            self.preview = preview
            self.preview_changed.emit()

    def end_run(self) -> None:
        """Remove the rough map, and emit `run_ended`."""
        self.set_preview(None)
        self.run_ended.emit()

    def show_gene(self, name: str) -> None:
        """Set the gene that is shown; no model runs.

        Raises
        ------
        GeneError
            If the bundle does not contain the gene; the message names similar ones.
        """
        if self.bundle is None:
            return
        self.bundle.panel.index(name)
        if name != self.gene:
            self.gene = name
            self.gene_changed.emit()

    def set_second_gene(self, name: str) -> None:
        """Set the second gene, which is blended with the first; no model runs.

        Raises
        ------
        GeneError
            If the bundle does not contain the gene.
        """
        if self.bundle is None:
            return
        self.bundle.panel.index(name)
        if name != self.second_gene:
            self.second_gene = name
            self.second_gene_changed.emit()

    def show_signature(self, name: str, genes: Sequence[str]) -> None:
        """Set the list of genes that is shown as one map; no model runs.

        Raises
        ------
        GeneError
            If the bundle contains none of them; the former signature stays.
        """
        if self.bundle is None:
            return
        self.signature = Signature.match(name, genes, self.bundle.panel, self.names)
        self.signature_changed.emit()

    def _drop_predictions_on(self, slide: Slide) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != id(slide)}

    def _restore_prediction(self) -> None:
        """Show the kept prediction of the current slide and bundle again, if there is one."""
        before = self.prediction
        self.preview = None  # belongs to another slide or bundle
        key = (id(self.slide), self.bundle.hash if self.bundle is not None else "")
        self.context, self.prediction = self._kept.get(key, (None, None))
        if self.prediction is not before:
            self.prediction_changed.emit()


def slide_of(layer: Any) -> Slide | None:
    """Return the slide that a layer shows; None for layers of other plugins."""
    return None if layer is None else layer.metadata.get(SLIDE_KEY)


def _matched_again(signature: Signature, bundle: Bundle) -> Signature | None:
    """Return a signature matched with another bundle; None if the bundle contains none of its genes."""
    try:
        return Signature.match(signature.name, signature.genes + signature.unknown, bundle.panel)
    except GeneError:
        return None
