"""Where a run reads and writes: names of label, table, record, lock and work directory.

Without `--output` everything lies in and beside the image; with it, in that directory::

    embryo.ome.zarr/labels/anystar                OUT/embryo.anystar.ome.zarr
    embryo.anystar.csv                            OUT/embryo.anystar.csv
    embryo.anystar.run.json                       OUT/embryo.anystar.run.json
    embryo.anystar.work/, .work.lock              OUT/embryo.anystar.work/, .work.lock
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
from anystar_batch.errors import ConfigError


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
    def lock(self) -> str:
        """The lock file, beside the work directory."""
        return f"{self.work}.lock"


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


def name_images(paths: Sequence[str], *, with_output: bool) -> list[NamedImage]:
    """Find the images a command names, and name their results apart.

    Parameters
    ----------
    paths : sequence of str
        Images, or bioformats2raw containers of several series.
    with_output : bool
        Whether all results go into one directory; stems then begin below the inputs' common root.

    Returns
    -------
    list of NamedImage

    Raises
    ------
    ConfigError
        If two images would write files of the same name.
    ImageError
        If a path holds no image.
    """
    absolute = [os.path.abspath(local_path(p)) for p in paths]  # noqa: PTH100  (keeps links)
    parents = [str(Path(p).parent) for p in absolute]
    root = os.path.commonpath(parents) if with_output else None
    named: list[NamedImage] = []
    for path, parent in zip(absolute, parents, strict=True):
        below = os.path.relpath(path, root) if root is not None else Path(path).name
        stem = image_stem(below.replace("/", "."))
        for image in find_images(path):
            series = os.path.relpath(image, path)
            name = stem if series == "." else f"{stem}.{series.replace('/', '.')}"
            named.append(NamedImage(image, parent, name))
    taken: dict[tuple[str, str], str] = {}
    for image in named:
        key = ("" if with_output else image.home, image.stem)
        if key in taken:
            message = (
                f"{taken[key]} and {image.path} would both write files named {image.stem}.*; "
                "segment them in two runs with different --output"
            )
            raise ConfigError(message)
        taken[key] = image.path
    return named
