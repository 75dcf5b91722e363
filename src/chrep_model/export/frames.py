"""Export of tables with one row per tile: CSV for spreadsheets and R, parquet for pandas and R's arrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chrep_model.errors import PredictionError
from chrep_model.prediction.prediction import Prediction
from chrep_model.prediction.table import INTERVAL_LAYER

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

CSV_START = "x_px,y_px,x_um,y_um,row,col,gallery_distance"
PARQUET_KEY = b"chrep"
"""Key in the metadata of a parquet file for the values' provenance, as JSON."""

# Number of values written at once; a cancelled export stops after them.
_VALUES_AT_ONCE = 2_000_000


def to_frame(prediction: Prediction, genes: tuple[str, ...]) -> pd.DataFrame:
    """Return a table with one row per tile, in the order of the grid.

    Columns: ``x_px, y_px`` (tile centre in level-0 px), ``x_um, y_um`` (the same in µm), ``row, col`` (of the
    tile grid), ``gallery_distance``; then one named like each gene, with the last variant (``calibrated`` if
    the model has it); then, with more than one variant, ``raw:GENE``. Log10-spot units. If the model has
    intervals, ``unlike_training`` follows ``gallery_distance``, and the last columns are the half widths
    ``interval_90:GENE``.
    """
    import pandas as pd

    table = prediction.to_layers(genes)
    xy = np.asarray(table.obsm["spatial"])
    mpp = prediction.slide.require_mpp()
    frame = table.obs.copy()
    for place, (name, values) in enumerate(
        [("x_px", xy[:, 0]), ("y_px", xy[:, 1]), ("x_um", xy[:, 0] * mpp), ("y_um", xy[:, 1] * mpp)]
    ):
        frame.insert(place, name, np.round(values, 3))
    blocks = [frame, _block(table, prediction.variants[-1], "")]
    if len(prediction.variants) > 1:
        blocks.append(_block(table, "raw", "raw:"))
    if INTERVAL_LAYER in table.layers:
        blocks.append(_block(table, INTERVAL_LAYER, f"{INTERVAL_LAYER}:"))
    return _without_twins(pd.concat(blocks, axis=1))


def to_csv(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write `to_frame` as CSV; names that a spreadsheet would read as a formula get an apostrophe."""
    frame = to_frame(prediction, genes)
    frame.columns = frame.columns.map(harmless)
    _without_twins(frame)
    with path.open("w", encoding="utf-8", newline="") as stream:
        for number, rows in enumerate(_in_turn(prediction, frame)):
            rows.to_csv(stream, index=False, header=number == 0, float_format="%.7g", lineterminator="\n")


def to_parquet(prediction: Prediction, path: Path, genes: tuple[str, ...]) -> None:
    """Write `to_frame` as parquet, with the values' provenance as JSON in the metadata ``chrep``."""
    from pyarrow import Schema, Table
    from pyarrow.parquet import ParquetWriter

    frame = to_frame(prediction, genes)
    facts = json.dumps(prediction.facts(), allow_nan=False).encode()
    schema = Schema.from_pandas(frame, preserve_index=False)
    schema = schema.with_metadata({**(schema.metadata or {}), PARQUET_KEY: facts})
    with ParquetWriter(path, schema) as writer:
        for rows in _in_turn(prediction, frame):
            writer.write_table(Table.from_pandas(rows, schema, preserve_index=False))


def harmless(name: str) -> str:
    """Return a name with an apostrophe if a spreadsheet would read it as a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name


def _without_twins(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame; PredictionError if a gene has the name of another column."""
    twins = frame.columns[frame.columns.duplicated()]
    if len(twins):
        raise PredictionError(
            f"two columns of the table would be called {twins[0]}",
            remedy="Leave the gene of this name out with --genes, or write h5ad.",
        )
    return frame


def _in_turn(prediction: Prediction, frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows in blocks; Cancelled if the user asks to stop."""
    step = max(1, _VALUES_AT_ONCE // frame.shape[1])
    for first in range(0, len(frame), step):
        prediction.progress.raise_if_cancelled()
        yield frame.iloc[first : first + step]


def _block(table: AnnData, variant: str, prefix: str) -> pd.DataFrame:
    import pandas as pd

    names = [f"{prefix}{gene}" for gene in table.var_names]
    return pd.DataFrame(np.asarray(table.layers[variant]), index=table.obs_names, columns=names)
