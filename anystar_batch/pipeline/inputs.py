"""Inputs: which images a command names, each once, and how the files of their results are called.

An image inside another Zarr hierarchy (a series of a container, a field of a plate) is named by its
path from the outermost one, and its files lie beside that. A link to an image, or to what holds it,
names what it leads to: one image has one label, one table and one lock.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anystar_batch.address import absolute, absolute_place, image_stem, is_remote, parent
from anystar_batch.archive.discovery import Field, find_images, plate_fields, rows
from anystar_batch.archive.nodes import read_node
from anystar_batch.archive.storage.zip_index import split
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.measure.table_files import check_kind, is_parquet
from anystar_batch.options import segment_config
from anystar_batch.pipeline.outputs import output_paths


@dataclass(frozen=True, slots=True)
class PlateField:
    """Where in a plate an image lies.

    Parameters
    ----------
    plate : str
        The plate, or the well alone, that the user named.
    stem : str
        Name for its files.
    image, well, field : str
        Paths of the image, of the well in the plate, and of the image in the well.
    """

    plate: str
    stem: str
    image: str
    well: str
    field: str


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
    of : PlateField or None
        Where in a plate it lies, if a plate or a well was named.
    """

    path: str
    home: str
    stem: str
    of: PlateField | None = None


def name_images(
    paths: Sequence[str], *, with_output: bool, root: str | None = None
) -> list[NamedImage]:
    """Find the images a command names, and name their results apart.

    Parameters
    ----------
    paths : sequence of str
        Images, bioformats2raw containers of several series, plates (HCS) or wells of them.
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
        If two images would write files of the same name, or a path is an address that cannot be
        used.
    """
    absolute_paths = [absolute(p) for p in paths]
    if not with_output:  # else image and results have nothing to do with each other
        absolute_paths = [_place(p, root) for p in absolute_paths]
    outermost = [_outermost(p, root) for p in absolute_paths]
    if root is None:
        root = os.path.commonpath([str(Path(_rooted(p)).parent) for p in outermost])
    named: list[NamedImage] = []
    for path, top in zip(absolute_paths, outermost, strict=True):
        home = parent(top)
        above = root if with_output else str(Path(_rooted(top)).parent)
        stem = image_stem(os.path.relpath(_rooted(top), above).replace("/", "."))

        def name_of(inner: str, stem: str = stem, top: str = top) -> str:
            below = os.path.relpath(_rooted(inner), _rooted(top))
            return stem if below == "." else f"{stem}.{below.replace('/', '.')}"

        for image in _images(path):
            of = (
                PlateField(path, name_of(path), image.path, image.well, image.name)
                if isinstance(image, Field)
                else None
            )
            inner = image.path if isinstance(image, Field) else image
            named.append(NamedImage(inner, home, name_of(inner), of))
    _check_apart(named, with_output=with_output)
    return named


def _check_apart(named: Sequence[NamedImage], *, with_output: bool) -> None:
    """Check that no two images, nor an image and a plate, write files of the same name."""
    taken: dict[tuple[str, str], str] = {}
    held = [(one.of, one.home) for one in named if one.of is not None]
    plates = {of.plate: NamedImage(of.plate, home, of.stem) for of, home in held}
    for one in [*named, *plates.values()]:
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


def _place(path: str, root: str | None) -> str:
    """The path itself; where a link to its outermost Zarr group names it, what that leads to.

    Links above are kept, and so are those within: the results lie in one place either way.
    """
    top = _outermost(path, root)
    real = absolute_place(top)
    if real == top:
        return path
    real_root = None if root is None else absolute_place(root)
    is_below = real_root is not None and real.startswith(f"{real_root.rstrip('/')}/")
    if _outermost(real, real_root if is_below else None) == real and real == (
        f"{absolute_place(parent(top)).rstrip('/')}/{top.rpartition('/')[2]}"
    ):
        return path
    return f"{real}{path.removeprefix(top)}"


def _outermost(path: str, root: str | None) -> str:
    """The outermost Zarr group, or zip file, that holds a path; the path itself without one.

    The rows of a plate need not be groups, as the specification demands; below a root nothing need.
    """
    outermost = inner = path
    while (above := parent(inner)) not in {inner, root}:
        if _is_group(above):
            outermost = above
        elif root is None and not _is_row(above):
            break
        inner = above
    zipped = split(path)
    return outermost if zipped is None else min(outermost, zipped[0], key=len)


def _is_group(path: str) -> bool:
    """Whether there is a Zarr group; at an address that says nothing, no."""
    if not is_remote(path):
        names = ("zarr.json", ".zgroup", ".zattrs")
        return any(os.path.isfile(f"{path}/{name}") for name in names)  # noqa: PTH113  (no access: no)
    try:
        return read_node(path) is not None
    except ImageError:
        return False


def _is_row(path: str) -> bool:
    """Whether the group above is a plate that has wells in this row."""
    plate, row = parent(path), path.rpartition("/")[2]
    try:
        node = read_node(plate)
        return node is not None and row in rows(node)
    except ImageError:
        return False


def _rooted(path: str) -> str:
    """A path as one of a single tree in which addresses lie beside local paths."""
    return f"/{path.replace('://', '/', 1)}" if is_remote(path) else path


def _images(path: str) -> Sequence[str | Field]:
    try:
        return plate_fields(path) or find_images(path)
    except ImageError:
        return [path]


@dataclass(frozen=True, slots=True)
class Plate:
    """A plate (HCS), or a well of one, and where the tables of its fields are.

    Parameters
    ----------
    path : str
        What the user named.
    stats : str
        The plate's own table; its suffix and the fields' tell the same kind.
    fields : tuple of (PlateField, str)
        Each field with its table.
    """

    path: str
    stats: str
    fields: tuple[tuple[PlateField, str], ...]

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the fields."""
        return tuple(field.image for field, _ in self.fields)


def plates_of(
    named: Sequence[NamedImage], configs: Sequence[SegmentConfig], stats: str | None = None
) -> tuple[list[SegmentConfig], list[Plate]]:
    """Put the fields of each plate together, in the order of its metadata.

    Parameters
    ----------
    named : sequence of NamedImage
    configs : sequence of SegmentConfig
        What is wanted of each.
    stats : str, optional
        Table of the only plate; None names each after its plate.

    Returns
    -------
    configs : list of SegmentConfig
        The same; where the plate's table is Parquet, those of its fields are too.
    plates : list of Plate
        None without plates.
    """
    own_configs: list[SegmentConfig] = []
    plates: dict[str, tuple[str, list[tuple[PlateField, str]]]] = {}
    for one, config in zip(named, configs, strict=True):
        if one.of is None:
            own_configs.append(config)
            continue
        outputs = output_paths(config)
        table = stats or f"{outputs.folder}/{one.of.stem}.{config.label}.csv"
        own = outputs.stats
        if is_parquet(table):
            own = f"{own.removesuffix('.csv')}{Path(table).suffix}"
        own_configs.append(replace(config, stats=own) if is_parquet(table) else config)
        plates.setdefault(one.of.plate, (table, []))[1].append((one.of, own))
    return own_configs, [Plate(path, table, tuple(held)) for path, (table, held) in plates.items()]


def _name(field: PlateField) -> str:
    return f"{field.well}/{field.field}".rstrip("/")


def image_configs(
    options: Mapping[str, object], images: list[str]
) -> tuple[list[SegmentConfig], list[Plate]]:
    """Return what is asked of every image; of a container one item a series, of a plate a field.

    Parameters
    ----------
    options : mapping
        Of `options.SEGMENT` by name, as typed.
    images : list of str
        Paths.

    Returns
    -------
    configs : list of SegmentConfig
    plates : list of Plate
        Whose tables are to be put together afterwards.

    Raises
    ------
    ConfigError
        If an option has a value that cannot be used, or two images would write the same files.
    """
    shared = segment_config(options, images[0])
    table = shared.stats
    named = name_images(images, with_output=shared.output is not None)
    is_plate = len(images) == 1 and named[0].of is not None
    if table is not None and len(named) > 1 and not is_plate:
        message = f"--stats names one table, but there are {len(named)} images; leave it out"
        raise ConfigError(message)
    if table is not None:
        check_kind(table)
    configs = [
        replace(
            shared,
            image=one.path,
            home=one.home,
            stem=one.stem,
            stats=None if is_plate else table,
        )
        for one in named
    ]
    return plates_of(named, configs, table)
