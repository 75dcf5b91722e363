"""Safe reading of untrusted tables, JSON and compressed text, with limits on their size."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chrep_model.errors import CohortError

if TYPE_CHECKING:
    import pandas as pd

# Tables compress to about a tenth; a file that expands more than this is meant to fill the memory.
MAX_EXPANSION = 60
ALWAYS_ALLOWED_BYTES = 1 << 28
MAX_JSON_BYTES = 1 << 24
_PIECE = 1 << 22
_COPY_AGAIN = "Copy or download the file again."


def read_bytes(path: Path) -> bytes:
    """Read a file, and decompress it if its name ends in ``.gz``.

    Raises
    ------
    CohortError
        The file is missing, not a regular file, truncated, or expands to more than a table can.
    """
    if not path.is_file():
        raise CohortError("there is no such file", path=path, remedy="Check the folder.")
    try:
        if path.suffix.lower() != ".gz":
            return path.read_bytes()
        most = max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * path.stat().st_size)
        pieces, size = [], 0
        with gzip.open(path, "rb") as stream:
            while piece := stream.read(_PIECE):
                size += len(piece)
                if size > most:
                    raise CohortError(
                        f"it decompresses to more than {most / 1e9:.1f} GB, which no table of this size does",
                        path=path,
                        remedy=_COPY_AGAIN,
                    )
                pieces.append(piece)
        return b"".join(pieces)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = "truncated" if isinstance(error, EOFError) else "damaged"
        raise CohortError(f"this file is {reason} ({error})", path=path, remedy=_COPY_AGAIN) from error
    except OSError as error:
        raise CohortError(
            f"this file cannot be read ({error.strerror or error})", path=path, remedy=_COPY_AGAIN
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; CohortError if the file holds none."""
    if path.is_file() and path.stat().st_size > MAX_JSON_BYTES:
        raise CohortError("this file is too large for what it should say", path=path, remedy=_COPY_AGAIN)
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise CohortError(f"this is no valid JSON ({error})", path=path, remedy=_COPY_AGAIN) from error
    if not isinstance(content, dict):
        raise CohortError("this JSON holds no names with values", path=path, remedy=_COPY_AGAIN)
    return content


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV, TSV (also gzipped) or Parquet table; CohortError if the file holds none.

    Parameters
    ----------
    path : Path
    **options
        Options for ``pandas.read_csv``; only `usecols` is also used for Parquet.
    """
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        return _read_parquet(path, options.get("usecols"))
    try:
        return pd.read_csv(io.BytesIO(read_bytes(path)), **options)
    except (ValueError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CohortError(f"this table cannot be read ({reason})", path=path, remedy=_COPY_AGAIN) from error


def _read_parquet(path: Path, columns: Any) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise CohortError("there is no such file", path=path, remedy="Check the folder.")
    try:
        file = pq.ParquetFile(path)
        wanted = None if columns is None else [c for c in file.schema_arrow.names if columns(c)]
        declared = sum(file.metadata.row_group(g).total_byte_size for g in range(file.num_row_groups))
        most = max(ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * path.stat().st_size)
        if max(declared, file.metadata.num_rows) > most:
            size = path.stat().st_size / 1e6
            raise CohortError(
                f"it declares {file.metadata.num_rows:,} rows in a file of {size:.1f} MB",
                path=path,
                remedy=_COPY_AGAIN,
            )
        return file.read(columns=wanted).to_pandas()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CohortError(
            f"this Parquet table is truncated or damaged ({reason})", path=path, remedy=_COPY_AGAIN
        ) from error


def only_one(files: list[Path], what: str, folder: Path) -> Path | None:
    """Return the only file of a list; None if it is empty, CohortError if it has several files."""
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise CohortError(
            f"there are several {what} here ({names})",
            path=folder,
            remedy="Keep the files of one section in a folder.",
        )
    return files[0] if files else None


def inside(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder whose names match a pattern, sorted by name, without hidden ones."""
    found = {file for pattern in patterns for file in folder.glob(pattern)}
    return sorted(file for file in found if file.is_file() and not file.name.startswith("."))
