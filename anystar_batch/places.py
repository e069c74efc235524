"""Where a run reads and writes: names of label, table, page, record, picture, lock, work directory.

Without `--output` everything lies in and beside the image; with it, in that directory::

    embryo.ome.zarr/labels/anystar                OUT/embryo.anystar.ome.zarr
    embryo.anystar.csv                            OUT/embryo.anystar.csv
    embryo.anystar.html                           OUT/embryo.anystar.html
    embryo.anystar.run.json                       OUT/embryo.anystar.run.json
    embryo.anystar.toml                           OUT/embryo.anystar.toml
    embryo.anystar.probe.svg                      OUT/embryo.anystar.probe.svg
    embryo.anystar.work/, embryo.anystar.lock     OUT/embryo.anystar.work/, embryo.anystar.lock

Where the results go to an object store, the work directory lies on a file system all the same: the
current directory, unless `--work-dir` says otherwise. Files are mapped, appended to and locked
there, which no object store can do; what waits for the label to be published waits in the store.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.address import is_read_only, is_remote, normal, parent
from anystar_batch.archive.label_place import LabelPlace, in_image, standalone
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ConfigError, OutputError


@dataclass(frozen=True, slots=True)
class Places:
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


def run_places(config: SegmentConfig) -> Places:
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
    folder = normal(config.output) if config.output is not None else config.home
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
    return Places(
        label=label,
        folder=folder,
        base=base,
        stats=config.stats if config.stats is not None else f"{folder}/{base}.csv",
        work=_work_folder(config.run.work_dir, folder, base),
    )


def _work_folder(wanted: str | None, folder: str, base: str) -> str:
    """Return the work directory of a run whose results go to a folder."""
    if wanted is not None and is_remote(wanted):
        message = (
            f"--work-dir: {wanted}: expected a directory of a file system that all workers see; "
            "candidates are mapped from there, and notes appended, which object stores cannot do"
        )
        raise ConfigError(message)
    if wanted is not None:
        return f"{normal(wanted)}/{base}.work"
    if not is_remote(folder):
        return f"{folder}/{base}.work"
    # Images of one name in two buckets must not meet each other's work.
    place = hashlib.sha256(folder.encode()).hexdigest()[:8]
    return f"{Path.cwd()}/{base}.{place}.work"


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
