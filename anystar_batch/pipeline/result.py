"""A published result, found by its image: label, table, run record, whatever is beside them.

The label's own attributes say how it was made; the run record, if it is still there, where the
table was put.
"""

from __future__ import annotations

from dataclasses import dataclass

from anystar_batch.address import absolute, absolute_place, parent
from anystar_batch.archive.discovery import find_images, plate_fields
from anystar_batch.archive.images import read_image
from anystar_batch.archive.label_lookup import chosen_labels, labels_of
from anystar_batch.archive.label_place import KEY, label_place, standalone
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.nodes import read_node, read_object
from anystar_batch.archive.storage.files import exists
from anystar_batch.errors import ImageError
from anystar_batch.geometry import ZYXFloat
from anystar_batch.pipeline.inputs import name_images
from anystar_batch.pipeline.outputs import Outputs


@dataclass(frozen=True, slots=True)
class Result:
    """A published result.

    Parameters
    ----------
    source : ImageSource
        The image.
    outputs : Outputs
        Its label and files.
    channel : int
        Channel that was segmented.
    scale_um : (z, y, x)
        Micrometres per voxel of level 0, as the run took it.
    fingerprint : str
        Digest of all that decided it.
    instances : int
        As the label says.
    """

    source: ImageSource
    outputs: Outputs
    channel: int
    scale_um: ZYXFloat
    fingerprint: str
    instances: int


def find_result(image: str, label: str, output: str | None) -> Result:
    """Return the result of an image.

    Parameters
    ----------
    image : str
        Path or address of one image; of a container one series, of a plate one field.
    label : str
        Name of the label.
    output : str or None
        Directory or address to which `segment --output` wrote it.

    Raises
    ------
    ImageError
        If it is not one image, or the label was not made by `segment`, or its table is missing.
    ConfigError
        If there is no such label.
    """
    path = _one_image(image)
    label_path = chosen_labels(labels_of(path, output), [label], path, output)[label]
    node = read_node(label_path)
    ours = {} if node is None else node.attributes.get(KEY)
    decided = ours.get("decided") if isinstance(ours, dict) else None
    if not isinstance(ours, dict) or not isinstance(decided, dict):
        message = (
            f"{label_path}: the label was not made by anystar-batch segment, whose table says "
            "where instances are and how good; expected one that was; segment the image first"
        )
        raise ImageError(message)
    (one,) = name_images([image], with_output=output is not None)
    folder, stem = one.home, one.stem
    place = label_place(path, label, home=folder, stem=stem, output=None)
    if output is not None:
        folder, _, name = label_path.rpartition("/")
        stem = name.removesuffix(f".{label}.ome.zarr")
        place = standalone(folder, stem, label, path)
    base = f"{stem}.{label}"
    fingerprint = str(ours.get("fingerprint"))
    stats = _table(f"{folder}/{base}", fingerprint, label_path)
    z, y, x = decided["voxel_size_um"]
    return Result(
        source=read_image(path),
        outputs=Outputs(place, folder, base, stats, f"{folder}/{base}.work"),
        channel=int(decided["channel"]),
        scale_um=(z, y, x),
        fingerprint=fingerprint,
        instances=int(ours.get("instances", -1)),
    )


def _one_image(path: str) -> str:
    fields = plate_fields(absolute(path))
    images = find_images(path) if fields is None else [field.path for field in fields]
    if fields is None and len(images) == 1:
        return absolute_place(images[0])
    what = "container of" if fields is None else "plate or a well of"
    example = f", e.g. {images[0]}" if images else ""
    message = (
        f"{path}: a {what} {len(images)} images; expected one, whose label the answers are about: "
        f"give one{example}"
    )
    raise ImageError(message)


def _table(base: str, fingerprint: str, label: str) -> str:
    """Path of the label's table."""
    record = read_object(f"{base}.run.json") or {}
    summary = record.get("summary") or {}
    if summary.get("fingerprint") == fingerprint:
        # Beside its record first: a folder that was copied still names the original's files.
        named = str(summary.get("stats"))
        candidates = [f"{parent(base)}/{named.rpartition('/')[2]}", named]
    else:
        candidates = [f"{base}{suffix}" for suffix in (".csv", ".parquet", ".pq")]
    for path in candidates:
        if exists(path):
            return path
    message = (
        f"{label}: its table is not there ({candidates[0]}), which says where instances are; put "
        "it back, or segment again with --overwrite"
    )
    raise ImageError(message)
