"""What one viewer is looking at: slide, bundle, prediction, genes. No widgets, no layers of its own."""

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
    """What one viewer is looking at.

    Setters fire their event only for a real change. A prediction is kept for every pair of slide and bundle
    that was looked at, so going back to a slide shows its maps again without the model.

    Parameters
    ----------
    viewer : napari.Viewer
        No reference is kept.

    Attributes
    ----------
    slide, slide_layer : Slide, napari Image layer, or None
        The slide and the layer that shows it.
    bundle : Bundle or None
        The trained model that was picked.
    predictor : Predictor or None
        The bundle with its networks loaded; made in a worker, None until then.
    context : SlideContext or None
        The slide prepared for the bundle (grid, tissue, stain); made in a worker, None until then.
    prediction : Prediction or None
        Everything predicted so far on this slide with this bundle.
    preview : Preview or None
        A rough map of what is being predicted; gone once that is over.
    gene : str or None
        The gene on show.
    second : str or None
        A gene that is blended with the one on show.
    signature : Signature or None
        A list of genes that is shown as one map.
    names : GeneNames or None
        What the genes of the bundle are called besides.
    """

    slide_changed = Signal()
    bundle_changed = Signal()
    prediction_changed = Signal()  # another prediction, or none
    prediction_grew = Signal()  # a batch was added to the prediction
    run_ended = Signal()  # nothing more comes for now
    preview_changed = Signal()  # there is another rough map, or none any more
    gene_changed = Signal()
    second_changed = Signal()
    signature_changed = Signal()
    names_changed = Signal()  # of the same genes

    def __init__(self, viewer: Any) -> None:
        self.slide: Slide | None = None
        self.slide_layer: Image | None = None
        self.bundle: Bundle | None = None
        self.predictor: Predictor | None = None
        self.context: SlideContext | None = None
        self.prediction: Prediction | None = None
        self.preview: Preview | None = None
        self.gene: str | None = None
        self.second: str | None = None
        self.signature: Signature | None = None
        self.names: GeneNames | None = None
        # Keyed by the identity of the slide, which the context keeps alive, and the hash of the bundle.
        self._kept: dict[tuple[int, str], tuple[SlideContext, Prediction]] = {}
        # Heeded here, not in a widget: a slide must not outlive its layer because no widget is open.
        viewer.layers.events.removed.connect(self._on_layer_removed)

    def look_at(self, layer: Image | None) -> None:
        """Make this layer's slide the current one; None when there is no slide any more."""
        slide = slide_of(layer)
        if layer is self.slide_layer and slide is self.slide:
            return
        self.slide, self.slide_layer = slide, layer if slide is not None else None
        self._recall()
        self.slide_changed.emit()

    def _on_layer_removed(self, event: Any) -> None:
        """Drop what was predicted on a slide whose layer is gone."""
        slide = slide_of(event.value)
        if slide is None:
            return
        self._drop_predictions_on(slide)
        if event.value is self.slide_layer:
            self.look_at(None)

    def set_mpp(self, value: float, source: str = "user") -> None:
        """Give the current slide its scale; former predictions on it no longer hold and are dropped.

        Parameters
        ----------
        value : float
            µm per level-0 pixel.
        source : str
            Who says so, see `Mpp`.

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
        self.look_at(layer)

    def use(self, bundle: Bundle) -> None:
        """Make this bundle the current one; genes and signature stay when the bundle knows them."""
        if self.bundle is not None and self.bundle.hash == bundle.hash:
            return
        self.bundle = bundle
        self.names = bundle.panel.names
        self.predictor = None
        former_gene = self.gene
        if self.gene not in bundle.genes:
            self.gene = bundle.genes[0]
        former_second, former_signature = self.second, self.signature
        if self.second not in bundle.genes:
            self.second = None
        if former_signature is not None:
            self.signature = _matched_again(former_signature, bundle)
        self._recall()
        self.bundle_changed.emit()
        if self.gene != former_gene:
            self.gene_changed.emit()
        if self.second != former_second:
            self.second_changed.emit()
        if self.signature != former_signature:
            self.signature_changed.emit()

    def know(self, names: GeneNames) -> None:
        """Take more names of the genes of the current bundle."""
        self.names = names
        self.names_changed.emit()

    def loaded(self, bundle: Bundle, predictor: Predictor) -> None:
        """Take over the networks of a bundle, if it is still the current one."""
        if self.bundle is not None and self.bundle.hash == bundle.hash:
            self.predictor = predictor

    def prepared(self, predictor: Predictor, context: SlideContext) -> None:
        """Take over what a worker prepared for the current slide and bundle.

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
        """Show a prediction that was read from a file, on the layer of its slide if that is there."""
        self.look_at(layer)
        self.use(prediction.bundle)
        self.context, self.prediction = context, prediction
        self._kept[id(self.slide), prediction.bundle.hash] = (context, prediction)
        self.prediction_changed.emit()

    def add(self, part: PredictionPart) -> None:
        """Add one batch to the current prediction."""
        if self.prediction is None:
            return
        self.prediction.add(part)
        self.prediction_grew.emit()

    def foresee(self, preview: Preview | None) -> None:
        """Show a rough map where nothing is predicted yet; None takes it away."""
        if preview is not self.preview:
            self.preview = preview
            self.preview_changed.emit()

    def end_run(self) -> None:
        """Take away the rough map, and tell that a run has ended, complete or not."""
        self.foresee(None)
        self.run_ended.emit()

    def show_gene(self, name: str) -> None:
        """Show another gene. No model runs.

        Raises
        ------
        GeneError
            If the bundle does not know the gene; the message names the nearest ones.
        """
        if self.bundle is None:
            return
        self.bundle.panel.index(name)
        if name != self.gene:
            self.gene = name
            self.gene_changed.emit()

    def blend_with(self, name: str) -> None:
        """Take a second gene to be blended with the one on show. No model runs.

        Raises
        ------
        GeneError
            If the bundle does not know the gene.
        """
        if self.bundle is None:
            return
        self.bundle.panel.index(name)
        if name != self.second:
            self.second = name
            self.second_changed.emit()

    def show_signature(self, name: str, genes: Sequence[str]) -> None:
        """Take a list of genes as the signature in use. No model runs.

        Raises
        ------
        GeneError
            If the bundle knows none of them; the former signature stays.
        """
        if self.bundle is None:
            return
        self.signature = Signature.match(name, genes, self.bundle.panel, self.names)
        self.signature_changed.emit()

    def _drop_predictions_on(self, slide: Slide) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if key[0] != id(slide)}

    def _recall(self) -> None:
        """Bring back the prediction of the current slide and bundle, if there is one."""
        before = self.prediction
        self.preview = None  # of another slide or bundle
        key = (id(self.slide), self.bundle.hash if self.bundle is not None else "")
        self.context, self.prediction = self._kept.get(key, (None, None))
        if self.prediction is not before:
            self.prediction_changed.emit()


def slide_of(layer: Any) -> Slide | None:
    """Return the slide behind a layer, or None for a layer that our reader did not make."""
    return None if layer is None else layer.metadata.get(SLIDE_KEY)


def _matched_again(signature: Signature, bundle: Bundle) -> Signature | None:
    """Look the names of a signature up in another bundle; None when it knows none of them."""
    try:
        return Signature.match(signature.name, signature.genes + signature.unknown, bundle.panel)
    except GeneError:
        return None
