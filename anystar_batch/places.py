"""Where a run reads and writes: names of label, table, record, picture, lock and work directory.

Without `--output` everything lies in and beside the image; with it, in that directory::

    embryo.ome.zarr/labels/anystar                OUT/embryo.anystar.ome.zarr
    embryo.anystar.csv                            OUT/embryo.anystar.csv
    embryo.anystar.run.json                       OUT/embryo.anystar.run.json
    embryo.anystar.probe.svg                      OUT/embryo.anystar.probe.svg
    embryo.anystar.work/, embryo.anystar.lock     OUT/embryo.anystar.work/, embryo.anystar.lock

An image inside another Zarr hierarchy (a series of a container, a field of a plate) is named by its
path from the outermost one, and its files lie beside that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.archive.labels import LabelPlace, in_image, standalone
from anystar_batch.archive.store import find_images, local_path, output_error
from anystar_batch.config import SegmentConfig, image_stem
from anystar_batch.errors import ConfigError, ImageError


@dataclass(frozen=True, slots=True)
class NamedImage:
    """One image of a command line.

    Parameters
    ----------
    path : str
        The image: a series, not its container.
    home : str
        Directory beside which results lie: the parent of what the user named.
    stem : str
        Name for files.
    """

    path: str
    home: str
    stem: str


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
    def record(self) -> str:
        """The run record: a JSON file beside the table."""
        return f"{self.folder}/{self.base}.run.json"

    @property
    def probe(self) -> str:
        """The picture of the probe, where the run had to choose the scale."""
        return f"{self.folder}/{self.base}.probe.svg"

    @property
    def locks(self) -> tuple[str, ...]:
        """The lock files: of the results, and of a work directory that lies elsewhere."""
        results, work = f"{self.folder}/{self.base}.lock", f"{Path(self.work).with_suffix('')}.lock"
        return (results,) if results == work else (results, work)

    @property
    def folders(self) -> tuple[str, ...]:
        """Directories in which the run writes."""
        return (self.label.parent, self.folder, self.work, str(Path(self.stats).parent))


def run_places(config: SegmentConfig) -> Places:
    """Return the paths of a run.

    Parameters
    ----------
    config : SegmentConfig
        With `home` and `stem` as `name_images` gives them.
    """
    folder = local_path(config.output) if config.output is not None else config.home
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
        work=local_path(config.run.work_dir) + f"/{base}.work"
        if config.run.work_dir is not None
        else f"{folder}/{base}.work",
    )


def move_atomic(source: Path, target: Path) -> None:
    """Move a file, also to another file system; the target is whole or as it was.

    Raises
    ------
    OutputError
        If the target cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copyfile(source, partial)
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise output_error(target, error) from error
    source.unlink()


def name_images(
    paths: Sequence[str], *, with_output: bool, root: str | None = None
) -> list[NamedImage]:
    """Find the images a command names, and name their results apart.

    Parameters
    ----------
    paths : sequence of str
        Images, or bioformats2raw containers of several series.
    with_output : bool
        Whether all results go into one directory; stems then begin below `root`.
    root : str, optional
        A directory that holds all the images and is no Zarr; None is what they have in common.

    Returns
    -------
    list of NamedImage
        A path without an image is among them as it is: whoever opens it says what is wrong, and the
        other images are segmented all the same.

    Raises
    ------
    ConfigError
        If two images would write files of the same name.
    ImageError
        If a path is the address of a remote store.
    """
    absolute = [os.path.abspath(local_path(p)) for p in paths]  # noqa: PTH100  (keeps links)
    outermost = [_outermost(p, root) for p in absolute]
    if root is None:
        root = os.path.commonpath([str(Path(p).parent) for p in outermost])
    named: list[NamedImage] = []
    for path, top in zip(absolute, outermost, strict=True):
        home = str(Path(top).parent)
        stem = image_stem(os.path.relpath(top, root if with_output else home).replace("/", "."))
        for image in _images(path):
            below = os.path.relpath(image, top)
            name = stem if below == "." else f"{stem}.{below.replace('/', '.')}"
            named.append(NamedImage(image, home, name))
    taken: dict[tuple[str, str], str] = {}
    for one in named:
        key = ("" if with_output else one.home, one.stem)
        if key in taken:
            message = (
                f"{taken[key]} and {one.path} would both write files named {one.stem}.*; "
                "segment them in two runs with different --output"
                if taken[key] != one.path
                else f"{one.path} is named twice; name every image once"
            )
            raise ConfigError(message)
        taken[key] = one.path
    return named


def _outermost(path: str, root: str | None) -> str:
    """The outermost Zarr group that holds a path; the path itself without one.

    Below a root, the rows of a plate need not be groups, as the specification demands.
    """
    found = path
    for above in Path(path).parents:
        if str(above) == root:
            break
        if any((above / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
            found = str(above)
        elif root is None:
            break
    return found


def _images(path: str) -> list[str]:
    try:
        return find_images(path)
    except ImageError:
        return [path]
