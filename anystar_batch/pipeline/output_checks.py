"""Checks before work that everything a run makes can be written, and replaces nothing of others."""

from __future__ import annotations

import os

from anystar_batch.address import is_remote, parent
from anystar_batch.archive.label_list import consolidated_above
from anystar_batch.archive.storage.files import (
    check_store,
    check_writable,
    is_zipped,
    nearest,
)
from anystar_batch.archive.storage.names import check_name, check_replaceable
from anystar_batch.archive.tables import TABLES
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ConfigError, OutputError
from anystar_batch.measure.table_files import check_kind
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.stages.workdir import FOLDERS


def check_outputs(outputs: Outputs) -> None:
    """Check before work that everything can be written, by writing.

    Raises
    ------
    OutputError
        If something cannot.
    ConfigError
        If a file would take the place of a directory, or what writes the table is not installed.
    """
    _check_files(outputs)
    for folder in outputs.folders:
        check_writable(parent(folder) if folder == outputs.work else folder)
    for path in (*outputs.files, outputs.work):
        check_name(path)


def check_left(outputs: Outputs, digest: str, *, overwrite: bool, table: bool) -> None:
    """Check before work what can be looked at under the lock only: what earlier runs have left.

    Parameters
    ----------
    outputs : Outputs
        Whose locks are held.
    digest : str
        Fingerprint of the run, whose unfinished label may be there.
    overwrite : bool
        Whether a published label may be replaced.
    table : bool
        Whether the table goes into the image, too.

    Raises
    ------
    OutputError
        If something belongs to others who keep it from us, or a name cannot be given.
    """
    label = outputs.label
    check_name(label.path)
    for folder in (*([f"{label.image}/{TABLES}"] if table else []), *consolidated_above(label)):
        check_writable(folder)
    left = [outputs.work, *(f"{outputs.work}/{name}" for name in FOLDERS)]
    left += [label.hidden_path(digest), *outputs.files, *([label.path] if overwrite else [])]
    for path in left:
        check_replaceable(path)


def check_permissions(outputs: Outputs) -> None:
    """Check the same as `check_outputs`, without writing: for a dry run.

    Raises
    ------
    OutputError
        If something cannot be written.
    ConfigError
        If a file would take the place of a directory, or what writes the table is not installed.
    """
    _check_files(outputs)
    for folder in outputs.folders:
        if is_remote(folder):
            check_store(folder)
            continue
        existing = nearest(folder)
        if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
            message = (
                f"{folder}: cannot be written (no permission, or {existing} is no directory); give "
                "--output DIR to keep results elsewhere"
            )
            raise OutputError(message)


def _check_files(outputs: Outputs) -> None:
    for path in outputs.files:
        if not is_remote(path) and os.path.isdir(path):  # noqa: PTH112  (no access: no)
            what = "--stats: " if path == outputs.stats else ""
            message = f"{what}{path} is a directory; expected the name of a file"
            raise ConfigError(message)
    check_kind(outputs.stats)


def check_table_output(config: SegmentConfig) -> None:
    """Check that there is an image that may hold the table.

    Raises
    ------
    ConfigError
        If results do not go into the image.
    """
    if config.run.table and (config.output is not None or is_zipped(config.image)):
        why = "a zip file takes none" if config.output is None else "--output leaves it alone"
        message = f"--table puts the table into the image, and {why}; drop --table"
        raise ConfigError(message)
