"""What an image, a container or a plate is, and where its labels come from: `anystar-batch info`.

The label says by what it was made, and never when (equal results are equal bytes); the run record
beside the image says when, if it is still there. Both may be anybody's files: what is not as a run
writes it is left out.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anystar_batch.address import normal
from anystar_batch.archive.discovery import Field, find_images, plate_fields
from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.label_lookup import image_labels
from anystar_batch.archive.label_place import KEY
from anystar_batch.archive.labels import multiscale_of
from anystar_batch.archive.names import numbered
from anystar_batch.archive.ngff import JSON, ImageSource, metadata_fingerprint
from anystar_batch.archive.nodes import read_node, read_object
from anystar_batch.errors import DataError, ImageError, ModelError, UnsuitedError
from anystar_batch.network.model import bundled_models, load_model
from anystar_batch.network.scale import size_text
from anystar_batch.pipeline.candidate_sets import described, described_text
from anystar_batch.pipeline.inputs import NamedImage, name_images
from anystar_batch.stages.levels import Verdict, check_levels
from anystar_batch.stages.plan import ALGORITHM, fingerprint

REASONS = {"error": "error", "unsuited": "not for this tool"}
"""Why an image is not described, by key, in words."""


def describe(path: str) -> tuple[str | None, Iterator[dict[str, Any]]]:
    """Return what a path is, and what each image of it is as plain JSON values.

    Parameters
    ----------
    path : str
        An image, a container of series, or a plate or a well of one.

    Returns
    -------
    plate : str or None
        What a plate or a well is, in one line; None of anything else.
    images : iterator of dict
        Of a field of a plate with `plate`, `well` and `field` besides. Of several, one that cannot
        be read has `path` and `error` instead of the rest, one that is not for this tool `path` and
        `unsuited`: a plate of thousands has more to say.

    Raises
    ------
    ImageError
        If there is no Zarr at the path, or what it lists lies elsewhere; while the images are asked
        for, if the only one cannot be read.
    """
    path = normal(path)
    fields = plate_fields(path)
    if fields is None:
        return None, _images(path)
    return _plate_text(path, fields), _fields(path, fields)


def _images(path: str) -> Iterator[dict[str, Any]]:
    images = find_images(path)
    if len(images) == 1:
        (one,) = name_images([path], with_output=False)
        yield _describe(read_image(images[0]), one.home, one.stem)
        return
    for one in name_images([path], with_output=False):
        yield _told(one)


def _told(one: NamedImage, *, with_voxels: bool = True) -> dict[str, Any]:
    """One of several images, or what speaks against it."""
    try:
        source = read_image(one.path)
        return _describe(source, one.home, one.stem, with_voxels=with_voxels)
    except UnsuitedError as error:
        return {"path": one.path, "unsuited": str(error)}
    except ImageError as error:
        return {"path": one.path, "error": str(error)}


def _fields(path: str, fields: Sequence[Field]) -> Iterator[dict[str, Any]]:
    named = name_images([path], with_output=False) if fields else ()
    for field, one in zip(fields, named, strict=True):
        where = {"plate": path, "well": field.well, "field": field.name}
        yield {**where, **_told(one, with_voxels=False)}


def _plate_text(path: str, fields: Sequence[Field]) -> str:
    wells = len({field.well for field in fields})
    images = f"{len(fields)} field" + ("" if len(fields) == 1 else "s")
    if fields and all(field.path == f"{path}/{field.name}" for field in fields):
        return f"{path}: well {fields[0].well} of a plate (HCS), {images}"
    return f"{path}: a plate (HCS), {wells} well{'' if wells == 1 else 's'}, {images}"


def field_text(document: dict[str, Any]) -> str:
    """Return what a field of a plate is, in one line."""
    name = f"{document['well']}/{document['field']}".rstrip("/")
    if not document.keys().isdisjoint(REASONS):
        return f"  {name}: {_reason(document)}"
    level = document["levels"][0]
    size = " x ".join(f"{v:.4g}" for v in level["voxel_um"])
    labels = ", ".join(_count(Origin(**label)) for label in document["labels"])
    return (
        f"  {name}: {tuple(level['shape'])} voxels of {size} um, axes {document['axes']}, "
        f"{document['dtype']}; {labels or 'no labels'}"
    )


def _reason(document: dict[str, Any]) -> str:
    """Why an image is not described."""
    return next(f"{said}: {document[key]}" for key, said in REASONS.items() if key in document)


def _count(label: Origin) -> str:
    """A label of a field and how many instances it has, if that is known."""
    if label.instances is None:
        return f"label {label.name}"
    old = " (not current)" if label.is_current is False else ""
    return f"label {label.name}, {label.instances} instances{old}"


def describe_text(document: dict[str, Any]) -> str:
    """Return the description as lines for a person."""
    if not document.keys().isdisjoint(REASONS):
        return f"{document['path']}\n  {_reason(document)}"
    axes = ", ".join(f"{a['name']} ({a['unit'] or a['type']})" for a in document["axes_described"])
    lines = [
        f"{document['path']}",
        f"  OME-NGFF {document['version']}, axes {document['axes']}, {document['dtype']}, "
        f"unit {document['unit']}",
        f"  axes {axes}",
        f"  channels {', '.join(f'{i} ({n})' for i, n in enumerate(document['channels']))}; "
        f"{document['times']} time(s)",
    ]
    if document["other_multiscales"]:
        others = numbered([document["multiscale"], *document["other_multiscales"]], but=0)
        lines.append(
            f"  multiscale 0 ({document['multiscale']}), the first; further ones, for "
            f"--multiscale: {others}"
        )
    for level in document["levels"]:
        size = " x ".join(f"{v:.4g}" for v in level["voxel_um"])
        shards = f", shards {tuple(level['shards'])}" if level["shards"] else ""
        lines.append(
            f"  level {level['path']}: {tuple(level['shape'])} voxels of {size} um, "
            f"chunks {tuple(level['chunks'])}{shards}, {level['bytes'] / 1e9:.3g} GB"
        )
        if level is not document["levels"][0]:
            said = "agrees with level 0" if level["agrees"] else f"NOT used: {level['why']}"
            lines.append(f"    {said}; checked {level['check']}")
    lines += [
        f"  level {one['path']}: left out: {one['why']}" for one in document["levels_left_out"]
    ]
    if document["made"] is not None:
        lines.append(f"  itself a {Origin(**document['made'])}")
    elif not document["labels"]:
        lines.append("  labels: none")
    lines += [f"  {Origin(**label)}" for label in document["labels"]]
    lines += [f"  {described_text(one)}" for one in document["candidates"]]
    return "\n".join(lines)


def _unit(source: ImageSource) -> str:
    """In which unit the image's metadata give lengths, or what is made of them."""
    if source.unknown_units:
        said = ", ".join(sorted(set(source.unknown_units.values())))
        return f"{said!r}, no length that is known: give --voxel-size"
    return "none (micrometres assumed)" if source.unit_assumed else "micrometre"


def _verdicts(source: ImageSource, *, with_voxels: bool) -> list[Verdict]:
    """Whether each level agrees with level 0, by its metadata or by voxels of the first channel."""
    try:
        if with_voxels:
            return list(check_levels(ImageReader(source), 0))
        why = "by its metadata alone"
    except (DataError, ImageError) as error:
        why = f"by its metadata alone: {error}"
    return [
        Verdict(k, agrees=not level.fault, how=why, why=level.fault)
        for k, level in enumerate(source.levels)
    ]


def _describe(
    source: ImageSource, home: str, stem: str, *, with_voxels: bool = True
) -> dict[str, Any]:
    labels = [
        label_origin(name, attributes, source, f"{home}/{stem}.{name}.run.json")
        for name, (_, attributes) in image_labels(source.path).items()
    ]
    node = read_node(source.path)
    own = {} if node is None else node.attributes
    voxel = source.dtype.itemsize
    verdicts = _verdicts(source, with_voxels=with_voxels)
    return {
        "path": source.path,
        "version": source.version,
        "axes": "".join(a.name if len(a.name) == 1 else f"({a.name})" for a in source.axes),
        "axes_described": [{"name": a.name, "type": a.type, "unit": a.unit} for a in source.axes],
        "dtype": str(source.dtype),
        "unit": _unit(source),
        "channels": list(source.channels),
        "multiscale": source.multiscale_names[source.multiscale],
        "other_multiscales": list(source.others),
        "times": source.num_times,
        "levels": [
            {
                "path": level.path,
                "shape": list(source.shape_zyx(k)),
                "voxel_um": list(source.scale_um(k)),
                "chunks": list(source.chunks_zyx(k)),
                "shards": None if (shards := source.shards_zyx(k)) is None else list(shards),
                "bytes": math.prod(level.shape) * voxel,
                "agrees": verdicts[k].agrees,
                "check": verdicts[k].how,
                "why": verdicts[k].why,
            }
            for k, level in enumerate(source.levels)
        ],
        "levels_left_out": [{"path": path, "why": why} for path, why in source.left_out],
        "labels": [label.to_json() for label in labels],
        "made": label_origin(stem, own).to_json() if KEY in own else None,
        "candidates": described(home, stem),
    }


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a label's making; None where it is not.

    Parameters
    ----------
    name : str
    is_ours : bool
        Whether this program made it.
    instances : int or None
        Number of labels.
    model, model_version : str or None
    diameter_um : float or None
        Diameter of the objects, given or probed, micrometres.
    elongation : float
        Their length along z over that across.
    channel : int or None
        Channel that was segmented.
    fingerprint : str or None
        Digest of all that decided it.
    finished : str or None
        When, as the run record says: ISO 8601.
    program : str or None
        Version of this program, as the run record says.
    is_current : bool or None
        Whether image metadata, method and model are still those that made it; None where nothing
        can be compared. Voxels are not compared.
    why : str
        Why it is not current, in words.
    """

    name: str
    is_ours: bool = False
    instances: int | None = None
    model: str | None = None
    model_version: str | None = None
    diameter_um: float | None = None
    channel: int | None = None
    fingerprint: str | None = None
    finished: str | None = None
    program: str | None = None
    is_current: bool | None = None
    why: str = ""
    elongation: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return all of it in a line."""
        if not self.is_ours:
            return f"label {self.name}, not made by anystar-batch"
        parts = [f"label {self.name}"]
        parts += [f"{self.instances} instances"] if self.instances is not None else []
        if self.model is not None:
            parts.append(f"{self.model} {self.model_version or ''}".strip())
        if self.diameter_um is not None:
            parts.append(f"objects of {size_text(self.diameter_um, self.elongation)}")
        parts += [f"channel {self.channel}"] if self.channel is not None else []
        if self.finished is not None:
            parts.append(f"made {self.finished} by version {self.program or 'unknown'}")
        if self.is_current is not None:
            parts.append("current" if self.is_current else f"not current: {self.why}")
        parts += [f"fingerprint {self.fingerprint[:12]}"] if self.fingerprint else []
        return ", ".join(parts)


def label_origin(
    name: str, attributes: JSON, source: ImageSource | None = None, record: str | None = None
) -> Origin:
    """Read where a label comes from.

    Parameters
    ----------
    name : str
        Of the label.
    attributes : dict
        Of its group.
    source : ImageSource, optional
        The image as it is now; without it nobody can say whether the label is current.
    record : str, optional
        Path or address where the run record would lie.
    """
    ours = attributes.get(KEY)
    if not isinstance(ours, dict):
        return Origin(name)
    model, decided, digest = (
        _object(ours, "model"),
        _object(ours, "decided"),
        ours.get("fingerprint"),
    )
    run = {} if record is None else _record(record, digest)
    why = None
    if source is not None:
        with contextlib.suppress(ImageError):  # the multiscale is gone: nobody can tell
            index = multiscale_of(attributes)
            is_same = index == source.multiscale
            why = _why_not_current(ours, source if is_same else read_image(source.path, index))
    return Origin(
        name=name,
        is_ours=True,
        instances=_of(int, ours.get("instances")),
        model=_of(str, model.get("name")),
        model_version=_of(str, model.get("version")),
        diameter_um=_of(float, decided.get("diameter_um")),
        elongation=_of(float, decided.get("elongation")) or 1.0,
        channel=_of(int, decided.get("channel")),
        fingerprint=_of(str, digest),
        finished=_of(str, run.get("finished")),
        program=_of(str, run.get("anystar_batch")),
        is_current=None if why is None else not why,
        why=why or "",
    )


def _why_not_current(ours: JSON, source: ImageSource) -> str | None:
    """Why it would be made otherwise today; empty if it would not, None if nobody can tell."""
    options = _object(ours, "options")
    if not options:
        return None
    if options.get("algorithm") != ALGORITHM:
        return f"made by method {options.get('algorithm')}, now {ALGORITHM}"
    if fingerprint({**options, "image": metadata_fingerprint(source)}) != ours.get("fingerprint"):
        return "the image's metadata has changed since"
    name = str(_object(ours, "model").get("name"))
    if name in bundled_models():
        try:
            installed = load_model(name)
        except ModelError:
            return None
        if installed.sha256 != options.get("model"):
            return f"another {name} is installed: version {installed.version or 'unknown'}"
    return ""


def _record(path: str, digest: object) -> JSON:
    """The run record that belongs to a label; empty if there is none, or it is another one's."""
    try:
        record = read_object(path) or {}
    except ImageError:
        return {}
    return record if _object(record, "summary").get("fingerprint") == digest else {}


def _object(document: JSON, key: str) -> JSON:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _of(kind: type, value: Any) -> Any:  # noqa: ANN401  (the kind is what is returned)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
