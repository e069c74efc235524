"""Tables as files: CSV with fixed bytes, or Parquet; batch by batch, whole or absent."""

from __future__ import annotations

import csv
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np

from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.measure.table import Batch

PARQUET = (".parquet", ".pq")
"""Suffixes of files that are written as Parquet; others are CSV."""


class TableFile(Protocol):
    """A table that is being written."""

    def write(self, batch: Batch) -> None:
        """Append rows. The first batch tells the columns, with or without rows."""

    def append(self, piece: Path) -> None:
        """Append the rows of another table file of the same kind and columns.

        The first of several pieces begins a table, the others go on with it (`open_table`).
        """


def is_parquet(path: str | Path) -> bool:
    """Return whether a table of this name is written as Parquet."""
    return Path(path).suffix.lower() in PARQUET


def check_kind(path: str | Path) -> None:
    """Check that what writes such a table is installed.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not is_parquet(path):
        return
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415
    except ImportError as error:
        message = (
            f"--stats: {path} needs pyarrow, which is not installed; "
            "pip install 'anystar-batch[parquet]', or name a .csv file"
        )
        raise ConfigError(message) from error


@contextmanager
def open_table(path: str | Path, *, goes_on: bool = False) -> Iterator[TableFile]:
    """Open a table for writing; it gets its name when the `with` block ends well.

    Integers are exact. In CSV, measurements have nine significant digits (a nanometre in a metre),
    scores seven; flags are 0 or 1. Parquet keeps the columns' own types.

    Parameters
    ----------
    path : path
        Its directory exists. An older file is replaced. The suffix tells the kind, see `PARQUET`.
    goes_on : bool
        Whether it is a piece that others come before: CSV has no header then.

    Raises
    ------
    OutputError
        If the place cannot be written or is full; an older file is untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as stream:
            with _Parquet(stream) if is_parquet(path) else _Csv(stream, goes_on) as table:
                yield table
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        reason = error.strerror or error
        message = f"{path}: the table cannot be written ({reason}); name another --stats"
        raise OutputError(error.errno, message) from error
    finally:
        partial.unlink(missing_ok=True)


class _Csv:
    """Lines of numbers."""

    def __init__(self, stream: IO[bytes], goes_on: bool) -> None:
        self._stream = stream
        self._begun = goes_on

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def write(self, batch: Batch) -> None:
        """Append lines."""
        lines = []
        if not self._begun:
            self._begun = True
            lines.append(_header(list(batch)))
        # One call a line: a call a number took most of the time of the whole table.
        form = ",".join(_format(column.dtype) for column in batch.values()) + "\n"
        rows = zip(*(column.tolist() for column in batch.values()), strict=True)
        lines.extend(form % row for row in rows)
        self._stream.write("".join(lines).encode())

    def append(self, piece: Path) -> None:
        """Append lines of another file as they are."""
        with piece.open("rb") as lines:
            shutil.copyfileobj(lines, self._stream, 1 << 20)


def _header(names: list[str]) -> str:
    """Return the first line; a name may hold commas and quotes."""
    from io import StringIO  # noqa: PLC0415

    line = StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue()


def _format(dtype: np.dtype[Any]) -> str:
    """Return how a column's numbers are written."""
    if dtype.kind in "biu":
        return "%d"
    return "%.7g" if dtype == np.float32 else "%.9g"


class _Parquet:
    """Row groups, one a batch."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: Batch) -> None:
        """Append a row group."""
        import pyarrow  # noqa: PLC0415

        self._add(pyarrow.table(batch))

    def append(self, piece: Path) -> None:
        """Append the row groups of another file."""
        import pyarrow.parquet  # noqa: PLC0415

        with pyarrow.parquet.ParquetFile(piece) as file:
            for group in range(file.num_row_groups):
                self._add(file.read_row_group(group))
            if file.num_row_groups == 0:
                self._add(file.read())

    def _add(self, table: Any) -> None:  # noqa: ANN401  (untyped neighbour)
        import pyarrow.parquet  # noqa: PLC0415

        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(
                self._stream, table.schema, compression="zstd"
            )
        self._writer.write_table(table)


def courses_path(table: str) -> str:
    """Return the file of intensities over time that belongs to a table.

    Examples
    --------
    >>> courses_path("a/embryo.anystar.csv")
    'a/embryo.anystar.courses.csv'
    """
    folder, _, name = table.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    name = f"{stem}.courses.{suffix}" if dot and stem else f"{name}.courses"
    return f"{folder}/{name}" if folder else name
