"""The page on which a person says what is right: one file, a short script, no network.

An instance is shown in three planes through its centroid, cut out of one box that is read at the
finest level where it is at most 96 voxels wide.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from anystar_batch.geometry import Box
from anystar_batch.measure.review import FORMAT, KINDS, VERSION
from anystar_batch.report.charts import number
from anystar_batch.report.gallery import crop_place
from anystar_batch.report.html import text
from anystar_batch.report.pictures import Marked, contrast, layers, stretched
from anystar_batch.report.review_sample import Selection, each
from anystar_batch.report.views import Read, Volume

AROUND = 2.4
"""Edge of a crop over the longest extent of its instance: neighbours are seen whole."""

PIXELS = 256
"""Edge of the outlines' pictures."""

PENS = ((255, 210, 0), (90, 200, 255))
"""Colours of the instance and of its neighbours: seen on black and on white."""

PLANES = ("xy", "xz", "yz")
"""As they are shown: seen along z, y and x. Rows and columns: y, x; z, x; z, y."""


@dataclass(frozen=True, slots=True)
class Review:
    """What a page is of.

    Parameters
    ----------
    title : str
        `<stem>.<label>`.
    image, label, fingerprint : str
        Name of the image, name and fingerprint of the label.
    seed, count, worst : int
        What chose the instances.
    file : str
        Name of the file of answers.
    then : str
        The command that takes it.
    """

    title: str
    image: str
    label: str
    fingerprint: str
    seed: int
    count: int
    worst: int
    file: str
    then: str


def review_page(
    review: Review, volume: Volume, selection: Selection, shown: Callable[[str], None]
) -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    review : Review
    volume : Volume
        Image and label.
    selection : Selection
        The instances.
    shown : callable
        Told the number of each instance once it is drawn.

    Raises
    ------
    DataError
        If a stored chunk cannot be decoded.
    """
    read, items = volume.reader(), []
    for name, rows in (("sample", selection.sample), ("worst", selection.worst)):
        for row in each(rows):
            items.append(_item(volume, row, name, read))
            shown(str(int(row["label"])))
    data = {
        "format": FORMAT,
        "version": VERSION,
        "kinds": list(KINDS),
        "words": KINDS,
        **{k: getattr(review, k) for k in ("fingerprint", "image", "label", "seed", "count")},
        "worst": review.worst,
        "file": review.file,
        "then": review.then,
        "items": items,
    }
    style, script = (_file(f"review.{suffix}") for suffix in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # The text of a script must not hold the end of one.
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">"
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>Review of {text(review.title)}</title><style>{style}</style></head>\n"
        f"<body>{_body(review, selection)}\n"
        f'<script type="application/json" id="data">{embedded}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _body(review: Review, selection: Selection) -> str:
    """What does not change while the page is used."""
    planes = "".join(
        f'<div class="view"><img alt="{name} plane through the instance"><img class="over" '
        f'alt=""><span>{name}</span></div>'
        for name in PLANES
    )
    answers = "".join(
        f'<button type="button" data-answer="{kind}"><kbd>{k}</kbd>{words}'
        '<span class="count"></span></button>'
        for k, (kind, words) in enumerate(KINDS.items(), 1)
    )
    return (
        f"<main><h1>Review of {text(review.title)}</h1>"
        "<details><summary>Is the instance with the thick, yellow outline right?</summary><p>"
        "false: there is no object. Merged: it holds several. Split: it is a part of one. Bad "
        "outline: one object, but its surface is elsewhere. Missed next to it: an object beside it "
        "has no outline; say that first, then what it is itself. Some of the "
        f"{selection.instances:,} instances were drawn by chance, and only they give the error "
        "rate; the worst first are a list of their own. Save the answers and give the file to the "
        "command.</p></details>"
        '<p id="lost" hidden><strong>This browser keeps nothing of a local file: save before you '
        "close the page, and load the file to go on.</strong></p>"
        '<div class="row lists">'
        '<button type="button" id="sample">Random sample<span class="count"></span></button>'
        '<button type="button" id="worst">Worst first<span class="count"></span></button></div>'
        '<progress id="bar" aria-label="answered of this list"></progress>'
        f'<figure><div class="planes" id="planes">{planes}</div>'
        '<figcaption><span id="what"></span><span id="where"></span></figcaption></figure>'
        f'<div class="row answers">{answers}<button type="button" id="missed"><kbd>6</kbd>missed '
        'next to it<span class="count"></span></button></div>'
        '<p id="status" role="status" aria-live="polite"></p>'
        '<div class="row">'
        '<button type="button" id="previous"><kbd>←</kbd>previous</button>'
        '<button type="button" id="next"><kbd>→</kbd>next</button>'
        '<button type="button" id="undo"><kbd>U</kbd>undo</button>'
        '<button type="button" id="outlines" aria-pressed="true"><kbd>O</kbd>outlines</button>'
        '<button type="button" id="save"><kbd>D</kbd>save answers</button>'
        '<label class="button">load answers<input type="file" id="load" '
        'accept=".json,application/json"></label></div></main>'
    )


def _item(volume: Volume, row: dict[str, float], name: str, read: Read) -> dict[str, Any]:
    """One instance, as the script takes it."""
    planes, edge_um = _planes(volume, row, read)
    said = [f"{number(row['equivalent_diameter_um'])} µm across, shown {number(edge_um)} µm"]
    if volume.source.num_times > 1:
        said.append(f"time {int(row['t'])}")
    if name == "worst":
        # Of the sample it is not said: who knows how sure the program is judges otherwise.
        said.append(f"probability {row['prob']:.2f}")
        said += [f"quality {row['quality']:.2f}"] if "quality" in row else []
    return {"label": int(row["label"]), "list": name, "said": ", ".join(said), "planes": planes}


def _planes(
    volume: Volume, row: dict[str, float], read: Read
) -> tuple[list[tuple[str, str]], float]:
    """Grey values and outlines of the three planes, and their edge in micrometres."""
    place = crop_place(volume, row, AROUND)
    inside = place.box.intersect(Box.of_shape(volume.source.shape_zyx(place.level)))
    voxels, labels = read(place.level, int(row["t"]), inside)
    pad = [
        (a - b, d - c)
        for a, b, c, d in zip(
            inside.start, place.box.start, inside.stop, place.box.stop, strict=True
        )
    ]
    voxels = np.pad(voxels, pad, constant_values=np.nan)
    labels = np.pad(labels, pad)
    at = [a - b for a, b in zip(place.at, place.box.start, strict=True)]
    cuts = [voxels.take(k, axis) for axis, k in enumerate(at)]
    names = [np.take(labels, k, axis) for axis, k in enumerate(at)]
    limits = contrast(*cuts)
    size, diameter = (PIXELS, PIXELS), PIXELS / AROUND
    planes = []
    for axis, (cut, name) in enumerate(zip(cuts, names, strict=True)):
        rows, columns = (span for k, span in enumerate(place.spans) if k != axis)
        drawn = layers(
            stretched(cut, limits), name, size,
            diameter=diameter, only=Marked(int(row["label"]), *PENS), window=(rows, columns),
        )  # fmt: skip
        planes.append((drawn.grey, drawn.outlines))
    return planes, place.edge_um


def _file(name: str) -> str:
    return resources.files("anystar_batch.report").joinpath(name).read_text("utf-8")
