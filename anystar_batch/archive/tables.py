"""The table inside the image, as ngio and Fractal read it: `tables/NAME`, type `feature_table`.

::

    image.ome.zarr/tables/            attribute `tables`: names
    image.ome.zarr/tables/NAME/       attributes; `table.csv` or `table.parquet`

The format is that of Fractal's table specification, version 1, with ngio's backends `csv` and
`parquet`: https://biovisioncenter.github.io/ngio (2026-11-23).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from anystar_batch.address import is_remote
from anystar_batch.archive import label_list, nodes
from anystar_batch.archive.storage import atomic_write, files, remote
from anystar_batch.archive.storage.lock import hold_list

TABLES = "tables"
"""Group of the tables in an image."""


def has_table(image: str, name: str) -> bool:
    """Return whether an image has a table of this name."""
    return name in _listed(image) and nodes.read_node(f"{image}/{TABLES}/{name}") is not None


def write_table(image: str, name: str, file: str | Path, label: str) -> None:
    """Put a table into an image, whole or not at all; an older one of the name is replaced.

    Parameters
    ----------
    image : str
        Path or address of the image, as `address.normal` writes it.
    name : str
        Of the table.
    file : path
        CSV or Parquet, with a column `label`; a path or address; it is copied.
    label : str
        Name of the label image whose objects are the rows.

    Raises
    ------
    OutputError
        If the place cannot be written.
    """
    above = nodes.read_node(image)
    zarr_format = 3 if above is None else above.zarr_format
    parent = f"{image}/{TABLES}"
    kind = str(file).rpartition(".")[2].lower()
    attributes = _attributes(label, kind)
    try:
        files.make_folder(parent)
        with hold_list(parent):
            if is_remote(parent):
                _put(f"{parent}/{name}", file, zarr_format, attributes)
            else:
                label_list.sweep_lists(parent)
                _exchange(Path(parent), name, file, zarr_format, attributes)
            names = list(dict.fromkeys([*_listed(image), name]))
            node = nodes.read_node(parent)
            group_attributes = {} if node is None else node.attributes
            nodes.write_attributes(parent, zarr_format, {**group_attributes, "tables": names})
            if above is not None and above.was_consolidated:
                label_list.consolidate(image, zarr_format)
    except OSError as error:
        raise files.output_error(f"{parent}/{name}", error) from error


def _exchange(
    parent: Path,
    name: str,
    file: str | Path,
    zarr_format: Literal[2, 3],
    attributes: dict[str, object],
) -> None:
    """Make the table under a hidden name, then rename it."""
    final, made, old = (parent / n for n in (name, f".{name}.made", f".{name}.old"))
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)
    nodes.write_attributes(str(made), zarr_format, attributes)
    files.copy(file, made / f"table.{attributes['backend']}")
    atomic_write.replace_directory(made, final, old)
    shutil.rmtree(old, ignore_errors=True)


def _put(
    final: str, file: str | Path, zarr_format: Literal[2, 3], attributes: dict[str, object]
) -> None:
    """Write the table's objects; nothing reads as a table until its metadata are there."""
    remote.remove_tree(final)
    files.copy(file, f"{final}/table.{attributes['backend']}")
    nodes.write_attributes(final, zarr_format, attributes)


def _attributes(label: str, kind: str) -> dict[str, object]:
    return {
        "type": "feature_table",
        "table_version": "1",
        "region": {"path": f"../labels/{label}"},
        "backend": kind,
        "index_key": "label",
        "index_type": "int",
        "instance_key": "label",
    }


def _listed(image: str) -> list[str]:
    """Return the names in the list of tables of an image."""
    node = nodes.read_node(f"{image}/{TABLES}")
    listed = None if node is None else node.attributes.get("tables")
    return list(map(str, listed)) if isinstance(listed, list) else []
