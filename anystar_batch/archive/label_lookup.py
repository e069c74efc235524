"""Find the labels of an image: in it, beside it if it is zipped, or where `--output` put them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from anystar_batch.address import absolute, absolute_place, image_stem, parent
from anystar_batch.archive import metadata
from anystar_batch.archive.label_list import existing_labels
from anystar_batch.archive.labels import image_of
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import Node, read_node
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.zip_index import split
from anystar_batch.errors import ConfigError, did_you_mean

END = ".ome.zarr"
"""End of the name of a label that lies apart from its image."""


def image_labels(image: str) -> dict[str, tuple[str, JSON]]:
    """Return the labels of an image: those in it and, of one in a zip file, those beside that.

    Parameters
    ----------
    image : str
        Path or address of the image, as `address.normal` writes it.

    Returns
    -------
    dict
        Name to path and attributes, which are empty where a label is listed but missing. Those
        that lie beside come last; one of their name in the zip file is called `labels/NAME`.
    """
    labels = {
        name: (f"{image}/labels/{name}", attributes)
        for name, attributes in existing_labels(image).items()
    }
    for name, label in _beside(image).items():
        if name in labels:
            labels[f"labels/{name}"] = labels.pop(name)
        labels[name] = label
    return labels


def labels_of(image: str, output: str | None) -> dict[str, str]:
    """Return the paths of the labels of an image by name, of the topmost last.

    Parameters
    ----------
    image : str
        Path or address of the image.
    output : str or None
        Directory or address to which `segment --output` wrote labels; None is the image itself or,
        where that is in a zip file, beside it.

    Raises
    ------
    ConfigError
        If the directory cannot be listed, or holds no label of the image.
    """
    if output is None:
        return {name: path for name, (path, _) in image_labels(image).items()}
    folder = absolute(output)
    try:
        names = [name for name in files.names(folder) if not name.startswith(".")]
    except OSError as error:
        message = f"--output: {folder} cannot be listed ({error.strerror or error})"
        raise ConfigError(message) from error
    labels: dict[str, str] = {}
    for file, node in _labels_of(image, folder, names):
        path = f"{folder}/{file}"
        name = label_name(path, node.attributes, node.zarr_format)
        labels[file if name in labels else name] = path
    if not labels:
        message = f"--output: {folder} holds no label of {image}; expected NAME.LABEL.ome.zarr"
        raise ConfigError(message)
    return labels


def chosen_labels(
    labels: dict[str, str], names: Sequence[str], image: str, output: str | None
) -> dict[str, str]:
    """Return the labels that are wanted, all without a wish.

    Parameters
    ----------
    labels : dict
        Of `labels_of`.
    names : sequence of str
        What is wanted.
    image : str
    output : str or None
        As above.

    Raises
    ------
    ConfigError
        If there is no label of a name.
    """
    for name in names:
        if name not in labels:
            where = image if output is None else f"{output} (of {image})"
            existing = f"; there are {', '.join(labels)}" if labels else "; there is none"
            message = f"--label: {where} has no label {name}{existing}{did_you_mean(name, labels)}"
            raise ConfigError(message)
    return {name: labels[name] for name in names} if names else labels


def label_warnings(path: str) -> list[str]:
    """Return what is said of a label that is segmented as if it were an image; nothing of others.

    Parameters
    ----------
    path : str
        Of the image.
    """
    node = read_node(path)
    if node is None or not metadata.is_label(node.attributes, node.zarr_format):
        return []
    source = image_of(path, node.attributes)
    cure = "" if source is None else f"; its image is {source}"
    return [
        f"{path} is a label image, whose values are numbers of objects and no intensities{cure}"
    ]


def label_name(path: str, attributes: JSON, zarr_format: int) -> str:
    """Return the name that a label has among those of its image.

    Parameters
    ----------
    path : str
        Of the label.
    attributes : dict
        Its own.
    zarr_format : int
        2 or 3.
    """
    if parent(path).rpartition("/")[2] == "labels":
        return path.rpartition("/")[2]
    listed = metadata.all_attributes(attributes, zarr_format).get("multiscales")
    first = listed[0] if isinstance(listed, list) and listed else {}
    name = first.get("name") if isinstance(first, dict) else None
    return name if isinstance(name, str) and name else path.rpartition("/")[2]


def _beside(image: str) -> dict[str, tuple[str, JSON]]:
    """The labels of an image in a zip file that lie beside that; none where nobody can list."""
    zipped = split(image)
    if zipped is None:
        return {}
    file, member = zipped
    folder = parent(file)
    start = ".".join((image_stem(file), *filter(None, member.split("/")), ""))
    try:
        names = files.names(folder)
    except OSError:
        return {}
    return {
        name[len(start) :].removesuffix(END): (f"{folder}/{name}", node.attributes)
        for name, node in _labels_of(image, folder, names, start)
    }


def _labels_of(
    image: str, folder: str, names: Sequence[str], start: str = ""
) -> Iterator[tuple[str, Node]]:
    """Yield those names in a folder that are labels of an image, and what they say."""
    wanted = absolute_place(image)
    for name in names:
        if not (name.startswith(start) and name.endswith(END)):
            continue
        path = f"{folder}/{name}"
        node = read_node(path)
        made_of = None if node is None else image_of(path, node.attributes)
        if node is not None and made_of is not None and absolute_place(made_of) == wanted:
            yield name, node
