"""One table of a plate: the rows of its fields, with their well and field before them."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anystar_batch.address import is_remote, parent
from anystar_batch.archive.storage.atomic_write import move_atomic
from anystar_batch.archive.storage.files import copy, exists, make_folder
from anystar_batch.errors import OutputError, OutputExistsError
from anystar_batch.measure.table_files import is_parquet
from anystar_batch.pipeline.inputs import Plate, PlateField, _name

OWN = ("well", "field")
"""Columns of a plate's table before those of its fields."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What became of a plate's table.

    Parameters
    ----------
    plate, stats : str
        The plate and its table.
    fields, rows : int
        How many the table holds.
    missing : tuple of str
        Fields, as `well/field`, that have no table: they failed, or were not reached.
    """

    plate: str
    stats: str
    fields: int
    rows: int
    missing: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "missing": list(self.missing)
        }


def check_table(plate: Plate, *, overwrite: bool) -> None:
    """Check that the place of a plate's table is free, or holds such a table.

    Raises
    ------
    OutputExistsError
        If it holds something else that may not be overwritten.
    """
    if overwrite or not exists(plate.stats):
        return
    with _local(plate.stats) as path:
        try:
            columns = _columns(path)
        except (OSError, ValueError):
            columns = []
    if tuple(columns[: len(OWN)]) != OWN:
        message = (
            f"{plate.stats} exists already and is no table of a plate; move it away, or give "
            "--overwrite to replace it"
        )
        raise OutputExistsError(message)


def gather(plate: Plate) -> Gathered:
    """Write the table of a plate from those of its fields.

    Parameters
    ----------
    plate : Plate
        Fields without a table are left out, and named.

    Returns
    -------
    Gathered

    Raises
    ------
    OutputError
        If the table cannot be written or a field's not be read; an older one is untouched then.
    """
    present = [(field, table) for field, table in plate.fields if exists(table)]
    lost = tuple(_name(f) for f, table in plate.fields if (f, table) not in present)
    if not present:
        return Gathered(plate.path, plate.stats, 0, 0, lost)
    write = _gather_parquet if is_parquet(plate.stats) else _gather_csv
    try:
        with tempfile.TemporaryDirectory(prefix="anystar-batch-") as folder:
            made = Path(folder, "plate").with_suffix(Path(plate.stats).suffix)
            rows = write(present, made)
            make_folder(parent(plate.stats))
            move_atomic(made, plate.stats)
    except OutputError:
        raise
    except (OSError, ValueError) as error:
        message = f"{plate.stats}: the table of the plate cannot be made: {error}"
        raise OutputError(getattr(error, "errno", None), message) from error
    return Gathered(plate.path, plate.stats, len(present), rows, lost)


@contextmanager
def _local(path: str) -> Iterator[str]:
    """A table as a file of this machine, fetched if it lies elsewhere."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="anystar-batch-") as folder:
        fetched = str(Path(folder, "table").with_suffix(Path(path).suffix))
        copy(path, fetched)
        yield fetched


def _columns(path: str) -> list[str]:
    """The names of a table's columns, in order."""
    if is_parquet(path):
        import pyarrow.parquet  # noqa: PLC0415

        return list(pyarrow.parquet.read_schema(path).names)
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream), [])


def _gather_csv(present: Iterable[tuple[PlateField, str]], target: Path) -> int:
    """Write the rows of all fields as lines; what a field has no column for stays empty."""
    present = list(present)
    names: dict[str, None] = {}
    for _, table in present:
        with _local(table) as path:
            names |= dict.fromkeys(_columns(path))
    rows = 0
    with target.open("w", encoding="utf-8", newline="") as out:
        out.write(_line([*OWN, *names]) + "\n")
        for field, table in present:
            own = _line([field.well, field.field])
            with _local(table) as path, Path(path).open(encoding="utf-8", newline="") as stream:
                held = next(csv.reader(stream), [])
                order = None if held == list(names) else [_index(held, name) for name in names]
                for line in stream:
                    out.write(f"{own},{line if order is None else _ordered(line, order)}")
                    rows += 1
    return rows


def _line(names: list[str]) -> str:
    """One line of CSV, without its end."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def _index(names: list[str], name: str) -> int | None:
    return names.index(name) if name in names else None


def _ordered(line: str, order: list[int | None]) -> str:
    """The numbers of a line in another order."""
    numbers = line.rstrip("\n").split(",")
    return ",".join("" if k is None else numbers[k] for k in order) + "\n"


def _gather_parquet(present: Iterable[tuple[PlateField, str]], target: Path) -> int:
    """Write the rows of all fields, batch by batch; what a field has no column for is null."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    present = list(present)
    schemas = []
    for _, table in present:
        with _local(table) as path:
            schemas.append(parquet.read_schema(path))
    held = pa.unify_schemas(schemas, promote_options="permissive")
    schema = pa.schema([*((name, pa.string()) for name in OWN), *held])
    rows = 0
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for field, table in present:
            with _local(table) as path, parquet.ParquetFile(path) as stream:
                for batch in stream.iter_batches():
                    count = batch.num_rows
                    columns = [pa.repeat(own, count) for own in (field.well, field.field)]
                    for one in held:
                        has = one.name in batch.schema.names
                        columns.append(
                            batch.column(one.name).cast(one.type)
                            if has
                            else pa.nulls(count, one.type)
                        )
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    rows += count
    return rows
