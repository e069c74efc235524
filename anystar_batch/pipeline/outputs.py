"""Output paths of a run, and their locks while it runs.

Without `--output` everything lies in and beside the image; with it, in that directory::

    embryo.ome.zarr/labels/anystar                OUT/embryo.anystar.ome.zarr
    embryo.ome.zarr/labels/.anystar.lock
    embryo.anystar.csv                            OUT/embryo.anystar.csv
    embryo.anystar.html                           OUT/embryo.anystar.html
    embryo.anystar.run.json                       OUT/embryo.anystar.run.json
    embryo.anystar.toml                           OUT/embryo.anystar.toml
    embryo.anystar.probe.svg                      OUT/embryo.anystar.probe.svg
    embryo.anystar.review.json                    OUT/embryo.anystar.review.json
    embryo.candidates/                            OUT/embryo.candidates/
    embryo.anystar.work/, embryo.anystar.lock     OUT/embryo.anystar.work/, embryo.anystar.lock

An image in a zip file (`embryo.ozx`) takes no label: it lies beside it, as with `--output`.

Where the results go to an object store, the work directory lies on a file system all the same: the
current directory, unless `--work-dir` says otherwise. Files are mapped, appended to and locked
there, which no object store can do; what waits for the label to be published waits in the store,
and so does what the parts of a run have done (`part_exchange`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.address import absolute_place, is_read_only, is_remote, parent
from anystar_batch.archive.label_place import LabelPlace, label_place
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import (
    PARTIAL,
    emptied,
    make_folder,
    names,
    output_error,
    remove,
)
from anystar_batch.archive.storage.lock import hold
from anystar_batch.archive.storage.names import (
    check_length,
    check_text,
)
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    LedgerMismatchError,
    LostLockError,
    OutputError,
)
from anystar_batch.events import Listener, Note, ignore
from anystar_batch.measure.table_files import courses_path

TRIES = 20
"""How often a directory is made for a lock that others remove."""


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
    def candidates(self) -> str:
        """Where raw candidates are kept: of the image, for all of its labels."""
        return f"{self.folder}/{self.base.removesuffix(f'.{self.label.label_name}')}.candidates"

    @property
    def pending(self) -> str:
        """Where table and record wait until the label is published: whoever sees it finds them."""
        return f"{self.folder}/.{self.base}.pending" if is_remote(self.folder) else self.work

    @property
    def parts(self) -> str:
        """Where parts of the run meet: the work directory, or beside results in an object store."""
        return (
            f"{self.folder}/.{self.base}.parts" if is_remote(self.folder) else f"{self.work}/parts"
        )

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
        """The lock files: of table and record, of the label, of a work directory elsewhere."""
        results, work = f"{self.folder}/{self.base}.lock", f"{self.work.removesuffix('.work')}.lock"
        # One file under two names, by a link, would be locked by ourselves.
        apart: dict[str, str] = {}
        for lock in (results, self.label.lock, work):
            apart.setdefault(absolute_place(lock), lock)
        return tuple(apart.values())

    @property
    def files(self) -> tuple[str, ...]:
        """Files beside the label that the run may make, whole or not at all."""
        table = (self.stats, courses_path(self.stats), self.report)
        return (*table, self.record, self.config, self.probe)

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
        If nothing can ever be written there: it is a web server, or a name is no text or too long.
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
    label = label_place(
        config.image, config.label, home=config.home, stem=config.stem, output=config.output
    )
    outputs = Outputs(
        label=label,
        folder=folder,
        base=base,
        stats=config.stats if config.stats is not None else f"{folder}/{base}.csv",
        work=_work_folder(config.run.work_dir, folder, base),
    )
    for path in (config.image, label.path, outputs.stats, outputs.work):
        check_text(path)
    for path in (*outputs.files, *outputs.locks, outputs.work, label.path, outputs.candidates):
        check_length(path)
    return outputs


def _work_folder(work_dir: str | None, folder: str, base: str) -> str:
    """Return the work directory of a run whose results go to a folder."""
    if work_dir is not None and is_remote(work_dir):
        message = (
            f"--work-dir: {work_dir}: expected a directory of a file system that all workers see; "
            "candidates are mapped from there, and notes appended, which object stores cannot do "
            "(parts of a run whose results go to an object store meet there without this option)"
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


@contextlib.contextmanager
def lock_outputs(outputs: Outputs, on_event: Listener = ignore) -> Iterator[Fence]:
    """Hold the run's locks: of its results, its label, and a work directory that lies elsewhere.

    Parameters
    ----------
    outputs : Outputs
    on_event : callable, optional
        Told of a dead run whose locks are taken over.

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
        if not is_remote(outputs.label.parent):
            stack.enter_context(emptied(outputs.label.parent))
        dead: list[str] = []
        fences = [_hold_in_folder(stack, lock, dead.append) for lock in outputs.locks]
        for who in sorted(set(dead)):
            on_event(taken_over(who))
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


def taken_over(who: str) -> Note:
    """Return what is said of a dead holder, e.g. `process 7 on host since ...`."""
    return Note(f"the lock of {who} is taken over: that run is gone")


def _hold_in_folder(stack: contextlib.ExitStack, lock: str, tell: Callable[[str], None]) -> Fence:
    """Hold a lock in a directory that is made if need be, and that others may remove, if empty."""
    for _ in range(TRIES):
        make_folder(parent(lock))
        try:
            return stack.enter_context(hold(lock, tell=tell))
        except OutputError as error:
            if error.errno != errno.ENOENT:
                raise
    return stack.enter_context(hold(lock, tell=tell))


def _remove_torn(outputs: Outputs) -> None:
    """Delete what a killed run was writing beside the results: who holds the lock writes alone."""
    targets = [target for target in outputs.files if not is_remote(target)]
    for folder in {parent(target) for target in targets}:
        heads = tuple(f".{target.rpartition('/')[2]}." for target in targets)
        for name in names(folder):
            if name.startswith(heads) and name.endswith(PARTIAL):
                remove(f"{folder}/{name}")
