"""Choose which parts of the model are trained, and with which settings.

A hint beside each field says what is expected, and turns red for an invalid value.
"""

from __future__ import annotations

from typing import Any

from psygnal import Signal
from pydantic import ValidationError
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QLineEdit, QRadioButton, QVBoxLayout, QWidget

from chrep_model.bundle import Bundle
from chrep_model.evaluation.model_comparison import FOLDS
from napari_chrep.retrain.request import EPOCHS, Preset, RetrainRequest
from napari_chrep.ui.parts import note

#: Title and description of each preset.
PRESETS: dict[Preset, tuple[str, str]] = {
    "calibrate": (
        "Calibrate",
        "Encoder and heads stay; gallery, correction and how they are combined are learned from these "
        "sections. For slides of another site or scanner.",
    ),
    "train": (
        "Train heads",
        "All but the encoder is learned from these sections, in a fixed number of epochs: to stop by the "
        "sections held out would flatter the comparison.",
    ),
    "finetune": (
        "Fine-tune",
        "The encoder learns too. Takes a GPU, or hours; it stops early by itself when the section held out "
        "gets no better.",
    ),
}
_EXPECTED = {
    "genes": "a number above 0, or: same",
    "seed": "a whole number from 0",
    "epochs": "a number above 0",
    "folds": "a number from 0",
}
_TITLES = {"encoder": "Encoder", "genes": "Genes", "epochs": "Epochs", "folds": "Held out", "seed": "Seed"}
#: Presets that use a field; fields that are not listed are used by all presets.
_USED_BY: dict[str, set[Preset]] = {
    "encoder": {"train"},
    "genes": {"train", "finetune"},
    "epochs": {"finetune"},
    "seed": {"train", "finetune"},
}
_HINTS = {"genes": "or: same", "seed": "", "epochs": "at most", "folds": "in turn, to compare; 0 for none"}
_RED = "color: #e0503c;"


class RetrainForm(QWidget):
    """Form with the preset and the settings of a retraining.

    Attributes
    ----------
    changed : Signal()
        Emitted when the preset or a setting changes.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        self.presets: dict[Preset, QRadioButton] = {}
        for preset, (title, about) in PRESETS.items():
            button = self.presets[preset] = QRadioButton(title)
            button.setToolTip(about)
            button.toggled.connect(self._on_change)
            column.addWidget(button)
        self.about = note()
        column.addWidget(self.about)
        self.fields = {
            "genes": _field("same", "How many genes to choose on these sections, or: same"),
            "epochs": _field(str(EPOCHS), "Of the encoder, at most"),
            "seed": _field("0", "The same seed gives the same model"),
            "folds": _field(
                str(FOLDS), "Patients or sections that are held out in turn for the comparison, at most"
            ),
        }
        self.encoder = QComboBox()
        self.encoder.addItem("of the model in use", "same")
        self.encoder.addItem("built-in (stainbank)", "stainbank")
        self.encoder.currentIndexChanged.connect(self._on_change)
        self.faults = {name: QLabel(hint) for name, hint in _HINTS.items()}
        column.addLayout(self._grid())
        self.presets["calibrate"].setChecked(True)

    def _grid(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(2, 1)
        self._titles: dict[str, QLabel] = {}
        for row, (name, title) in enumerate(_TITLES.items()):
            self._titles[name] = QLabel(title)
            grid.addWidget(self._titles[name], row, 0)
            if name == "encoder":
                grid.addWidget(self.encoder, row, 1, 1, 2)
                continue
            self.fields[name].textChanged.connect(self._on_change)
            grid.addWidget(self.fields[name], row, 1)
            grid.addWidget(self.faults[name], row, 2)
        return grid

    @property
    def preset(self) -> Preset:
        """Name of the chosen preset."""
        return next((preset for preset, button in self.presets.items() if button.isChecked()), "calibrate")

    def job(self, **others: Any) -> RetrainRequest | None:
        """Return the job with the form's settings; None if one of them is invalid.

        `others` are the fields of `RetrainRequest` that the form does not set, such as `in_use` and `out`.
        """
        shown = [name for name in self.fields if not self.fields[name].isHidden()]
        values = {name: self.fields[name].text().strip() for name in shown}
        values |= {"encoder": self.encoder.currentData()} if self.preset == "train" else {}
        bad: set[Any] = set()
        try:
            return RetrainRequest(preset=self.preset, **_numbers(values), **others)
        except ValidationError as error:
            bad = {fault["loc"][0] for fault in error.errors()}
            return None
        finally:
            for name, label in self.faults.items():
                label.setText(_EXPECTED[name] if name in bad else _HINTS[name])
                label.setStyleSheet(_RED if name in bad else "")

    def show_model(self, bundle: Bundle | None) -> None:
        """Enable the presets that the model in use supports."""
        is_chrep = bundle is not None and bundle.card.method == "chrep"
        has_weights = bundle is not None and bundle.card.encoder != "stainbank"
        self.presets["calibrate"].setEnabled(is_chrep or bundle is None)
        self.presets["finetune"].setEnabled(has_weights)
        self.presets["finetune"].setToolTip(
            PRESETS["finetune"][1] if has_weights else "The built-in encoder has no weights to fine-tune"
        )
        if not self.presets[self.preset].isEnabled():
            self.presets["train"].setChecked(True)
        genes = "" if bundle is None else f" (the {len(bundle.genes):,} of the model in use)"
        self.fields["genes"].setToolTip(f"How many genes to choose on these sections, or: same{genes}")

    def _on_change(self, *_: Any) -> None:
        preset = self.preset
        self.about.setText(PRESETS[preset][1])
        for name, where in _USED_BY.items():
            for widget in (self._titles[name], self.fields.get(name, self.encoder)):
                widget.setVisible(preset in where)
            if name in self.faults:
                self.faults[name].setVisible(preset in where)
        self.changed.emit()


def _field(text: str, tip: str) -> QLineEdit:
    field = QLineEdit(text)
    field.setToolTip(tip)
    field.setFixedWidth(72)
    return field


def _numbers(values: dict[str, str]) -> dict[str, Any]:
    """Convert whole numbers; other texts are kept, and `RetrainRequest` rejects them if invalid."""
    return {name: int(text) if text.isdecimal() else text for name, text in values.items()}
