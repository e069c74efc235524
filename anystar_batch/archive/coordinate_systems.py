"""Coordinate systems of OME-NGFF 0.6 (RFC-5) and of SpatialData, as the axes and transforms of 0.5.

In 0.6 the axes belong to named coordinate systems. Every level is placed in one of them, the
intrinsic one; further transforms lead from there to others (a stage, an atlas). Voxel sizes and
positions are those of the intrinsic system; the others do not change what is found, and labels
carry them along.

References
----------
OME-NGFF RFC-5, coordinate systems and transformations: ngff.openmicroscopy.org/rfc/5.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from anystar_batch.errors import ImageError, UnsuitedError, shorten

JSON = dict[str, Any]

PLAIN = ("scale", "translation", "identity")
"""Transforms that keep the axes."""

RAW = "rfc5"
"""Key of what `to_plain` was given in what it returns."""


def to_plain(path: str, entry: JSON) -> JSON:
    """Return an entry of `multiscales` of 0.6 as 0.5 has it, with the original under `RAW`.

    Parameters
    ----------
    path : str
        Where the image lies; for messages.
    entry : dict
        Of 0.6.

    Returns
    -------
    dict
        With `axes` and, for every dataset, a list of scales, translations and identities.

    Raises
    ------
    ImageError
        If there are no usable coordinate systems.
    UnsuitedError
        If a level is placed by anything but scales, translations, identities, and sequences of
        them.
    """
    systems = entry.get("coordinateSystems")
    usable = isinstance(systems, list) and all(
        isinstance(s, dict) and isinstance(s.get("axes"), list) for s in systems
    )
    if not (usable and systems):
        message = (
            f"{path}: OME-NGFF 0.6 without usable `coordinateSystems`; expected a list of objects "
            "with a name and axes"
        )
        raise ImageError(message)
    datasets = entry.get("datasets")
    listed = [d for d in datasets if isinstance(d, dict)] if isinstance(datasets, list) else []
    outputs = {name_of(t.get("output")) for d in listed for t in _transforms(d)}
    intrinsic = next((s for s in systems if s.get("name") in outputs), systems[-1])
    plain = {k: v for k, v in entry.items() if not k.startswith("coordinate")}
    plain["axes"] = copy.deepcopy(intrinsic["axes"])
    plain["datasets"] = [
        {**d, "coordinateTransformations": _placed(path, d, intrinsic.get("name"))} for d in listed
    ]
    plain[RAW] = copy.deepcopy(entry)
    return plain


def _placed(path: str, dataset: JSON, intrinsic: object) -> list[JSON]:
    """The transforms of a dataset to the intrinsic system, without sequences around them."""
    transforms = _transforms(dataset)
    # Without outputs they are a chain, as in 0.5: all of them count.
    ours = [t for t in transforms if name_of(t.get("output")) == intrinsic]
    return flat(path, f"dataset {shorten(repr(dataset.get('path')))}", ours[:1] or transforms)


def flat(path: str, where: str, transforms: Sequence[JSON]) -> list[JSON]:
    """Return transforms one after the other, those of sequences in their place.

    Raises
    ------
    UnsuitedError
        If one turns, shears or bends the image.
    """
    found: list[JSON] = []
    for one in transforms:
        kind = one.get("type")
        if kind == "sequence":
            inner = one.get("transformations")
            listed = [t for t in inner if isinstance(t, dict)] if isinstance(inner, list) else []
            found += flat(path, where, listed)
        elif kind in PLAIN:
            found.append({k: v for k, v in one.items() if k in ("type", kind, "path")})
        else:
            message = (
                f"{path}: {where} is placed by a transform of type {shorten(repr(kind))}; expected "
                "scale, translation, identity, or a sequence of these: objects are measured along "
                "the image's axes; resample the image along its own axes first"
            )
            raise UnsuitedError(message)
    return found


def spatialdata_plain(entry: JSON) -> JSON:
    """Return an entry that SpatialData has written as 0.5 has it.

    Its transforms lead to named systems of the whole object: a single plain one is kept, others
    (registrations) are left out. `unit` as a unit states none.
    """
    plain = copy.deepcopy(entry)
    for axis in plain.get("axes") or []:
        if isinstance(axis, dict) and axis.get("unit") == "unit":
            del axis["unit"]
    outer = _transforms(plain)
    plain.pop("coordinateTransformations", None)
    if len(outer) == 1:
        try:
            kept = flat("", "", outer)
        except UnsuitedError:
            return plain
        if kept:
            plain["coordinateTransformations"] = kept
    return plain


def label_entry(entry: JSON, raw: JSON, keep: Sequence[int]) -> JSON:
    """Return a label's entry as 0.6 has it, in its image's coordinate systems.

    Parameters
    ----------
    entry : dict
        The label's, as 0.5 has it: axes, datasets with a scale and perhaps a translation.
    raw : dict
        The image's, of 0.6.
    keep : sequence of int
        Which of the image's axes the label has.

    Returns
    -------
    dict
    """
    count = len(raw["coordinateSystems"][-1]["axes"])
    originals = {str(d.get("path")).strip("/"): d for d in raw["datasets"]}
    datasets = []
    for dataset in entry["datasets"]:
        (first, *_) = _transforms(originals[dataset["path"]])
        inner = dataset["coordinateTransformations"]
        whole = inner[0] if len(inner) == 1 else {"type": "sequence", "transformations": inner}
        last = raw["coordinateSystems"][-1].get("name")  # the intrinsic one, where none is named
        ends = {"input": {"path": dataset["path"]}, "output": {"name": last}}
        ends |= {k: copy.deepcopy(first[k]) for k in ("input", "output", "name") if k in first}
        datasets.append({"path": dataset["path"], "coordinateTransformations": [{**ends, **whole}]})
    further = [_cut(t, keep, count) for t in _transforms(raw)]
    kept = [t for t in further if t is not None]
    reached = {name_of(t.get("output")) for t in kept}
    reached |= {name_of(t.get("output")) for d in datasets for t in _transforms(d)}
    systems = [
        {**copy.deepcopy(s), "axes": [copy.deepcopy(s["axes"][i]) for i in keep]}
        for s in raw["coordinateSystems"]
        if s.get("name") in reached and len(s["axes"]) == count
    ]
    rest = {k: v for k, v in entry.items() if k not in ("axes", "datasets")}
    found = {"coordinateSystems": systems, "datasets": datasets, **rest}
    return found | ({"coordinateTransformations": kept} if kept else {})


def _cut(transform: JSON, keep: Sequence[int], count: int) -> JSON | None:
    """A transform of the image's axes for the label's; None if it cannot be taken apart."""
    kind = transform.get("type")
    if kind == "identity" or len(keep) == count:
        return copy.deepcopy(transform)
    if kind == "sequence":
        inner = [_cut(t, keep, count) for t in transform.get("transformations", [])]
        cut = [t for t in inner if t is not None]
        return {**transform, "transformations": cut} if len(cut) == len(inner) else None
    values = transform.get(str(kind))
    if kind in PLAIN and isinstance(values, list) and len(values) == count:
        return {**copy.deepcopy(transform), str(kind): [values[i] for i in keep]}
    return None


def name_of(end: object) -> object:
    """Return the name of a transform's input or output, which drafts of 0.6 wrote as a string."""
    return end.get("name") if isinstance(end, dict) else end


def _transforms(holder: JSON) -> list[JSON]:
    found = holder.get("coordinateTransformations") or []
    return [t for t in found if isinstance(t, dict)] if isinstance(found, list) else []
