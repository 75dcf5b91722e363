"""Controls with which the user tries other numbers of neighbours and other temperatures."""

from __future__ import annotations

from qtpy.QtCore import Signal  # type: ignore[attr-defined]  # qtpy renames Qt's own
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget

from chrep_model.analysis.explanation import AdjustableSettings


class NeighbourSettings(QWidget):
    """Spin boxes for k and temperature, with a button that resets them to the model's values.

    Attributes
    ----------
    changed : Signal
        Emitted when the user changes or resets k or temperature.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._fitted: AdjustableSettings | None = None
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(6)
        self.k = QSpinBox()
        self.k.setToolTip("How many of the most similar training spots count")
        self.temperature = QDoubleSpinBox()
        self.temperature.setDecimals(3)
        self.temperature.setRange(0.001, 10.0)
        self.temperature.setSingleStep(0.01)
        self.temperature.setToolTip(
            "Temperature: small, and only the most similar count; large, and all count alike"
        )
        self.reset = QPushButton("Reset")
        self.reset.setToolTip("Back to the k and temperature of the model")
        for label, box in (("k", self.k), ("Temp.", self.temperature)):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(self._on_changed)
            row.addWidget(QLabel(label))
            row.addWidget(box, 1)
        row.addWidget(self.reset)
        self.reset.clicked.connect(self._on_reset)
        self.set_model(None)

    @property
    def values(self) -> tuple[int | None, float | None]:
        """The k and temperature that the user set; (None, None) for the model's own or without a model."""
        if self._fitted is None or not self.reset.isEnabled():
            return None, None
        return self.k.value(), self.temperature.value()

    def set_model(self, fitted: AdjustableSettings | None) -> None:
        """Set the model's own k and temperature; hide the controls if it has none."""
        if fitted is not None and fitted == self._fitted:
            return  # the same model: keep what the user set
        self._fitted = fitted
        self.setVisible(fitted is not None)
        self._show_fitted()

    def _show_fitted(self) -> None:
        if self._fitted is None:
            return
        for box in (self.k, self.temperature):
            box.blockSignals(True)
        self.k.setRange(1, self._fitted.most)
        self.k.setValue(self._fitted.k)
        self.temperature.setValue(self._fitted.temperature)
        for box in (self.k, self.temperature):
            box.blockSignals(False)
        self.reset.setEnabled(False)

    def _on_changed(self, _value: float) -> None:
        fitted = self._fitted
        if fitted is not None:
            same = self.k.value() == fitted.k and abs(self.temperature.value() - fitted.temperature) < 5e-4
            self.reset.setEnabled(not same)
            self.changed.emit()

    def _on_reset(self) -> None:
        self._show_fitted()
        self.changed.emit()
