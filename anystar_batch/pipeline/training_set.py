"""What a review knows of an image, written as a label that the trainer learns from.

Only the storage units in which something is known are written: a hundred instances of a volume of
any size are a hundred small boxes.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from anystar_batch.archive.label_image import LabelSpec, LabelWriter, label_spec
from anystar_batch.archive.label_place import KEY, LabelPlace
from anystar_batch.archive.labels import (
    create_label,
    discard,
    publish,
    published_attributes,
    recover,
)
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.errors import OutputExistsError
from anystar_batch.geometry import Box, ZYXFloat, as_zyx, grid_box, grid_range, grid_shape
from anystar_batch.measure.partial_truth import BACKGROUND, Judged, partial_truth
from anystar_batch.measure.review import Answer
from anystar_batch.pipeline.result import Result

MARGIN = 0.25
"""How far beside an instance background is taken as seen, over its longest extent."""

LEAST = 2
"""Instances of one time that the trainer needs."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A label to learn from.

    Parameters
    ----------
    path : str
    instances : int
        Right ones.
    times : tuple of int
        Time points with enough of them.
    command : str or None
        That learns from it; None where no time has enough.
    """

    path: str
    instances: int
    times: tuple[int, ...]
    command: str | None


def write_training_set(
    of: Result,
    rows: Sequence[Mapping[str, float]],
    answers: Mapping[int, Answer],
    fence: Fence,
) -> TrainingSet | None:
    """Write what is known as `<stem>.<label>.reviewed`; an older one is replaced.

    Parameters
    ----------
    of : Result
        The label that was reviewed.
    rows : sequence of dict
        Columns of the reviewed instances' rows of the table.
    answers : dict
        By label.
    fence : Fence
        Asked before the label gets its name.

    Returns
    -------
    TrainingSet or None
        None if nothing was right.

    Raises
    ------
    OutputExistsError
        If something else has the name.
    OutputError
        If the place cannot be written.
    DataError
        If the label cannot be read.
    """
    label = of.outputs.label
    times = [int(r["t"]) for r in rows if _kind(answers, r) == "right"]
    if not times:
        return None
    name = f"{label.label_name}-reviewed"
    # Without the suffix of an image: `segment *.ome.zarr` is not to take it for one.
    file = f"{of.outputs.base}.reviewed"
    place = LabelPlace(of.outputs.folder, file, name, label.image, is_standalone=True)
    recover(place, fence.check)
    there = published_attributes(place)
    if there is not None and "reviewed" not in _ours(there):
        message = f"{place.path} exists already and is no training set of a review; move it away"
        raise OutputExistsError(message)
    said = sorted((one.label, str(one.kind), one.missed) for one in answers.values())
    digest = hashlib.sha256(repr((of.fingerprint, said)).encode()).hexdigest()
    spec = _finest(label_spec(of.source))
    discard(place, digest)
    hidden = create_label(place, spec, digest)
    _write(of, rows, answers, LabelWriter(hidden, spec))
    provenance = {
        "reviewed": {"label": label.label_name, "fingerprint": of.fingerprint},
        "background": BACKGROUND,
    }
    publish(place, spec, digest, provenance, fence.check)
    enough = tuple(t for t in sorted(set(times)) if times.count(t) >= LEAST)
    words = ["python", "-m", "trainer", "finetune", "--pair", label.image, place.path]
    words += ["--channel", str(of.channel)] if of.source.num_channels > 1 else []
    words += ["--time", *map(str, enough)] if of.source.num_times > 1 else []
    command = f"{shlex.join(words)} -o models/mine" if enough else None
    return TrainingSet(place.path, len(times), enough, command)


def _write(
    of: Result,
    rows: Sequence[Mapping[str, float]],
    answers: Mapping[int, Answer],
    writer: LabelWriter,
) -> None:
    """Write every unit in which something is known."""
    reader = LabelWriter(of.outputs.label.path, label_spec(of.source))
    shape, unit = writer.spec.shape_zyx(0), writer.spec.write_unit_zyx(0)
    counts = grid_shape(shape, unit)
    units: dict[tuple[int, tuple[int, int, int]], list[Judged]] = {}
    for row in rows:
        one = _judged(row, answers[int(row["label"])], of.scale_um, shape)
        for index in grid_range(one.around, unit, counts):
            units.setdefault((int(row["t"]), index), []).append(one)
    for (t, index), judged in sorted(units.items(), key=lambda item: item[0]):
        box = grid_box(index, unit, shape)
        known = partial_truth(reader.read_box(0, t, box), box, judged)
        writer.write_box(0, t, box, known)


def _judged(
    row: Mapping[str, float], answer: Answer, scale_um: ZYXFloat, shape: tuple[int, int, int]
) -> Judged:
    low = as_zyx(int(row[f"bbox_{a}_min"]) for a in "zyx")
    high = as_zyx(int(row[f"bbox_{a}_max"]) for a in "zyx")
    extent = max((b - a) * s for a, b, s in zip(low, high, scale_um, strict=True))
    margin = as_zyx(math.ceil(MARGIN * extent / s) for s in scale_um)
    around = Box(low, high).grow(margin).intersect(Box.of_shape(shape))
    return Judged(answer.label, around, answer.kind == "right", not answer.missed)


def _kind(answers: Mapping[int, Answer], row: Mapping[str, float]) -> str | None:
    return answers[int(row["label"])].kind


def _ours(attributes: Mapping[str, object]) -> Mapping[str, object]:
    provenance = attributes.get(KEY)
    return provenance if isinstance(provenance, dict) else {}


def _finest(spec: LabelSpec) -> LabelSpec:
    """The same with level 0 alone: a label of its own need not mirror the image's pyramid."""
    multiscales = {**spec.multiscales, "datasets": spec.multiscales["datasets"][:1]}
    return replace(spec, paths=spec.paths[:1], arrays=spec.arrays[:1], multiscales=multiscales)
