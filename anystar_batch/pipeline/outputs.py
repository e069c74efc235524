"""Output paths of a run: check them before work, lock them while it runs.

Without `--output` everything lies in and beside the image; with it, in that directory::

    embryo.ome.zarr/labels/anystar                OUT/embryo.anystar.ome.zarr
    embryo.anystar.csv                            OUT/embryo.anystar.csv
    embryo.anystar.html                           OUT/embryo.anystar.html
    embryo.anystar.run.json                       OUT/embryo.anystar.run.json
    embryo.anystar.toml                           OUT/embryo.anystar.toml
    embryo.anystar.probe.svg                      OUT/embryo.anystar.probe.svg
    embryo.anystar.review.json                    OUT/embryo.anystar.review.json
    embryo.anystar.work/, embryo.anystar.lock     OUT/embryo.anystar.work/, embryo.anystar.lock

Where the results go to an object store, the work directory lies on a file system all the same: the
current directory, unless `--work-dir` says otherwise. Files are mapped, appended to and locked
there, which no object store can do; what waits for the label to be published waits in the store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.address import is_read_only, is_remote, parent
from anystar_batch.archive.label_place import LabelPlace, in_image, standalone
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import (
    PARTIAL,
    check_store,
    check_writable,
    make_folder,
    names,
    nearest,
    output_error,
    remove,
)
from anystar_batch.archive.storage.lock import hold
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    LedgerMismatchError,
    LostLockError,
    OutputError,
)
from anystar_batch.measure.table_files import check_kind, courses_path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Paths of one run.

    Parameters
    ----------
    label : LabelPlace
        The label.
    folder : str
        Directory of the other files.
    base : str
        `<stem>.<label>`: how their names begin.
    stats : str
        The CSV file.
    work : str
        Work directory.
    """

    label: LabelPlace
    folder: str
    base: str
    stats: str
    work: str

    @property
    def report(self) -> str:
        """The page that shows the result, beside the table and named like it."""
        stem = self.stats
        for suffix in (".csv", ".parquet", ".pq"):
            stem = stem.removesuffix(suffix)
        return f"{stem}.html"

    @property
    def review(self) -> str:
        """What a person said of the label's instances: a JSON file beside the run record."""
        return f"{self.folder}/{self.base}.review.json"

    @property
    def pending(self) -> str:
        """Where table and record wait until the label is published: whoever sees it finds them."""
        return f"{self.folder}/.{self.base}.pending" if is_remote(self.folder) else self.work

    @property
    def record(self) -> str:
        """The run record: a JSON file beside the table."""
        return f"{self.folder}/{self.base}.run.json"

    @property
    def config(self) -> str:
        """The options of the run, as `--config` takes them."""
        return f"{self.folder}/{self.base}.toml"

    @property
    def probe(self) -> str:
        """The picture of the probe, where the run had to choose the scale."""
        return f"{self.folder}/{self.base}.probe.svg"

    @property
    def locks(self) -> tuple[str, ...]:
        """The lock files: of the results, and of a work directory that lies elsewhere."""
        results, work = f"{self.folder}/{self.base}.lock", f"{self.work.removesuffix('.work')}.lock"
        return (results,) if results == work else (results, work)

    @property
    def folders(self) -> tuple[str, ...]:
        """Directories in which the run writes."""
        return (self.label.parent, self.folder, self.work, parent(self.stats))


def output_paths(config: SegmentConfig) -> Outputs:
    """Return the paths of a run.

    Parameters
    ----------
    config : SegmentConfig
        With `home` and `stem` as `name_images` gives them.

    Raises
    ------
    OutputError
        If nothing can ever be written there: it is a web server.
    ConfigError
        If the work directory is an address.
    """
    folder = config.home if config.output is None else config.output
    if is_read_only(folder):
        message = (
            f"{folder}: a web server takes no results; give --output DIR, a directory or an s3:// "
            "address, to keep them elsewhere"
        )
        raise OutputError(message)
    base = f"{config.stem}.{config.label}"
    label = (
        in_image(config.image, config.label)
        if config.output is None
        else standalone(folder, config.stem, config.label, config.image)
    )
    return Outputs(
        label=label,
        folder=folder,
        base=base,
        stats=config.stats if config.stats is not None else f"{folder}/{base}.csv",
        work=_work_folder(config.run.work_dir, folder, base),
    )


def _work_folder(work_dir: str | None, folder: str, base: str) -> str:
    """Return the work directory of a run whose results go to a folder."""
    if work_dir is not None and is_remote(work_dir):
        message = (
            f"--work-dir: {work_dir}: expected a directory of a file system that all workers see; "
            "candidates are mapped from there, and notes appended, which object stores cannot do"
        )
        raise ConfigError(message)
    if work_dir is not None:
        return f"{work_dir}/{base}.work"
    if not is_remote(folder):
        return f"{folder}/{base}.work"
    # Images of one name in two buckets must not meet each other's work.
    digest = hashlib.sha256(folder.encode()).hexdigest()[:8]
    return f"{Path.cwd()}/{base}.{digest}.work"


@contextlib.contextmanager
def named_errors(outputs: Outputs) -> Iterator[None]:
    """Turn what the system says of files of the run into an error that names the cure.

    Raises
    ------
    LedgerMismatchError
        If a file of the work directory is missing.
    OutputError
        If a file cannot be written.
    """
    try:
        yield
    except AnyStarBatchError:
        raise
    except OSError as error:
        if error.errno == errno.ENOENT:
            message = (
                f"{error.filename} is missing: the work directory {outputs.work} is damaged; give "
                "--restart"
            )
            raise LedgerMismatchError(message) from error
        raise output_error(error.filename or outputs.work, error) from error


def check_outputs(outputs: Outputs) -> None:
    """Check before work that everything can be written, by writing.

    Raises
    ------
    OutputError
        If something cannot.
    ConfigError
        If the table would take the place of a directory, or what writes it is not installed.
    """
    _check_table(outputs)
    for folder in outputs.folders:
        check_writable(folder)


def check_permissions(outputs: Outputs) -> None:
    """Check the same as `check_outputs`, without writing: for a dry run.

    Raises
    ------
    OutputError
        If something cannot be written.
    ConfigError
        If the table would take the place of a directory, or what writes it is not installed.
    """
    _check_table(outputs)
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


def _check_table(outputs: Outputs) -> None:
    if not is_remote(outputs.stats) and Path(outputs.stats).is_dir():
        message = f"--stats: {outputs.stats} is a directory; expected the name of a file"
        raise ConfigError(message)
    check_kind(outputs.stats)


@contextlib.contextmanager
def lock_outputs(outputs: Outputs) -> Iterator[Fence]:
    """Hold the run's locks: of its results, and of its work directory where that lies elsewhere.

    Yields
    ------
    Fence
        To be asked before writing.

    Raises
    ------
    LockedError
        If another run holds one of them.
    LostLockError
        Instead of any other error, if one was lost meanwhile: what fails then fails for that.
    """
    with contextlib.ExitStack() as stack:
        fences = []
        for lock in outputs.locks:
            make_folder(parent(lock))
            fences.append(stack.enter_context(hold(lock)))
        _remove_torn(outputs)
        fence = Fence(tuple(mark for one in fences for mark in one.marks))
        try:
            yield fence
        except LostLockError:
            raise
        except Exception as error:
            try:
                fence.check()
            except LostLockError as lost:
                raise lost from error
            raise


def _remove_torn(outputs: Outputs) -> None:
    """Delete what a killed run was writing beside the results: who holds the lock writes alone."""
    targets = [outputs.stats, courses_path(outputs.stats), outputs.report]
    targets += [outputs.record, outputs.config, outputs.probe]
    for folder in {parent(target) for target in targets if not is_remote(target)}:
        heads = tuple(f".{target.rpartition('/')[2]}." for target in targets)
        for name in names(folder):
            if name.startswith(heads) and name.endswith(PARTIAL):
                remove(f"{folder}/{name}")


def check_table_output(config: SegmentConfig) -> None:
    """Check that there is an image that may hold the table.

    Raises
    ------
    ConfigError
        If results do not go into the image.
    """
    if config.run.table and config.output is not None:
        message = "--table puts the table into the image, --output leaves the image alone; drop one"
        raise ConfigError(message)
