"""One page that shows a result: self-contained, without scripts, for screen, phone and paper.

Only times differ between the pages of equal runs: they stand in `<time>` elements, and in the
section that is named `times`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np

from anystar_batch.report import sections
from anystar_batch.report.charts import number
from anystar_batch.report.findings import Findings
from anystar_batch.report.gallery import close_up, galleries
from anystar_batch.report.html import card, grid_table, section, table, text
from anystar_batch.report.limits_figure import limits_svg
from anystar_batch.report.pictures import MOST_EDGE
from anystar_batch.report.probe_figure import probe_svg
from anystar_batch.report.views import Views, see
from anystar_batch.report.warnings import MIN_INSTANCES

ENOUGH, CLEARLY = 20, 1.2
"""Fewest whole instances, and least length along z over that looked for, that are worth a hint."""

SMALL = 14.0
"""Where typical instances have fewer pixels in the slices, a part is shown larger."""

STAGES = {
    "probe": "choosing the scale",
    "limits": "local intensity limits",
    "predict": "network",
    "suppress": "suppression",
    "refine": "second look",
    "suppress 2": "suppression after it",
    "own": "numbering",
    "paint": "painting labels",
    "table": "statistics",
}
"""What stages are called."""


def page(findings: Findings) -> str:
    """Return the page as one HTML document.

    Parameters
    ----------
    findings : Findings
        What table and record say; label and image are read here.

    Raises
    ------
    AnyStarBatchError
        If a voxel cannot be read.
    """
    volume = findings.volume
    views = see(volume, findings.time)
    close = close_up(volume, findings.digest, findings.time) if _is_small(findings, views) else None
    kinds = galleries(volume, findings.digest) if findings.digest.instances else []
    record = findings.record
    title = f"{record['config']['stem']} · {record['config']['label']}"
    body = [
        _header(findings, title),
        _warnings(record["summary"]["warnings"], findings),
        sections.keys(findings),
        sections.review(findings.review) if findings.review is not None else "",
        sections.looks(findings, views, close),
        sections.gallery(kinds) if kinds else "",
        sections.sizes(findings),
        sections.space(findings),
        sections.seams(findings),
        _run(findings),
        _times(record),
        _footer(record),
    ]
    style = resources.files("anystar_batch.report").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _is_small(findings: Findings, views: Views) -> bool:
    diameters = findings.digest.sample["equivalent_diameter_um"]
    if not len(diameters):
        return False
    longest = max(n * s for n, s in zip(views.box.shape, views.scale_um, strict=True))
    return float(np.median(diameters)) / longest * MOST_EDGE < SMALL


def _header(findings: Findings, title: str) -> str:
    shape = " × ".join(f"{n:,}" for n in findings.frame.shape)
    extent = " × ".join(
        number(n * s) for n, s in zip(findings.frame.shape, findings.frame.scale_um, strict=True)
    )
    return (
        f"<header><h1>{text(title)}</h1><p>{shape} voxels, {extent} µm (z, y, x) · "
        f"{text(findings.record['model']['name'])} {text(findings.record['model']['version'])} · "
        f"{_time(findings.record['finished'])}</p></header>"
    )


def _warnings(warnings: Sequence[str], findings: Findings) -> str:
    if not warnings:
        checked = text(_checked(findings))
        return f'<div class="verdict"><strong>✓ No warnings.</strong> {checked}</div>'
    items = "".join(f"<li>{text(w[:1].upper() + w[1:])}.</li>" for w in warnings)
    count = "One warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    return (
        f'<div class="verdict warned" role="note"><strong>⚠ {count}</strong><ul>{items}</ul></div>'
    )


def _checked(findings: Findings) -> str:
    """What was looked for, and what could not be."""
    n = findings.digest.instances
    if n < MIN_INSTANCES:
        return f"Too few instances, {n}, to judge more than the image and the scale."
    seams = findings.seams
    if any(test.p is not None for test in seams):
        return "Border, sizes, scale, exposure, probabilities and seams were checked."
    why = f"seams not: {seams[0].why_not}" if seams else "a single block has no seams"
    return f"Border, sizes, scale, exposure and probabilities were checked; {why}."


def _run(findings: Findings) -> str:
    """Where, with what, at which scale, with which options."""
    record = findings.record
    config, plan, summary, model = (record[k] for k in ("config", "plan", "summary", "model"))
    files = table(
        [
            ("image", f"<code>{text(summary['image'])}</code>"),
            ("label", f"<code>{text(summary['label'])}</code>"),
            ("table", f"<code>{text(summary['stats'])}</code>"),
            ("model", f"{text(model['name'])} {text(model['version'])}, <code>"
                      f"{text(model['sha256'][:12])}</code>"),
            ("host", text(record["host"])),
            ("fingerprint", f"<code>{text(summary['fingerprint'][:16])}</code>"),
            ("versions", text(", ".join(f"{k} {v}" for k, v in record["versions"].items()))),
        ]
    )  # fmt: skip
    options = table([(name, text(value)) for name, value in _options(config, plan, record)])
    cards = [
        card("Image, model, versions", files),
        card("Scale", _scale(record) + _longer(findings)),
        card("Parameters", options),
    ]
    if "local_limits" in plan:
        cards.insert(2, card("Intensity limits", _limits(record, findings.time)))
    return section("What was run", "", f'<div class="tables">{"".join(cards)}</div>', "run")


def _scale(record: Mapping[str, Any]) -> str:
    """The scale that was chosen, and why."""
    plan, probe = record["plan"], record["probe"]
    voxel = " × ".join(number(v) for v in plan["working_voxel_um"])
    size = f"{voxel} µm, read from level {plan['level']}"
    if plan["diameter_um"] is None:
        return f"<p>The image's own scale, which the model was made for: {size}.</p>"
    diameter = number(plan["diameter_um"])
    typical = record["model"]["diameter_voxels"]
    fits = f" At that size they are {number(typical)} working voxels across." if typical else ""
    length = number(plan.get("elongation", 1.0))
    longer = f", {length} times as long along z as across" if "elongation" in plan else ""
    if probe is None:
        given = f"Objects of {diameter} µm{longer}, as given"
        return f"<p>{given}. Working voxel: {size}.{text(fits)}</p>"
    if not probe["is_certain"]:
        return f"<p>The probe found no objects; the image's own scale is used: {size}.</p>"
    rows = [
        (f"{number(t['voxel_um'])} µm", str(t["objects"]),
         number(t["diameter_um"]) if t["objects"] else "–",
         number(t.get("elongation", 1.0)) if t["objects"] else "–", f"{t['evidence']:.2g}")
        for t in sorted(probe["trials"], key=lambda t: float(t["voxel_um"]))
    ]  # fmt: skip
    heads = ("working voxel", "objects", "median, µm", "along z, over across", "surface, 1/µm")
    return (
        f"<p>Objects of {diameter} µm{longer}, proposed by the probe: of its trial scales the one "
        f"at which the objects found have most surface. Working voxel: {size}.{text(fits)}</p>"
        f'<div class="probe">{probe_svg(probe)}</div>{grid_table(heads, rows)}'
    )


def _longer(findings: Findings) -> str:
    """That objects are longer along z than the given size says, where enough of them show it."""
    plan, rows = findings.record["plan"], findings.digest.sample
    if findings.record["probe"] is not None or plan["diameter_um"] is None:
        return ""
    whole = rows["touches_border"] == 0
    z, y, x = (
        (rows[f"bbox_{a}_max"] - rows[f"bbox_{a}_min"])[whole] * scale
        for a, scale in zip("zyx", plan["voxel_size_um"], strict=True)
    )
    if len(z) < ENOUGH:
        return ""
    length = float(np.median(z / np.sqrt(y * x)))
    if length < CLEARLY * float(plan.get("elongation", 1.0)):
        return ""
    said = f"Those found are {length:.2g} times as long along z as across: "
    return f"<p>{said}<code>--elongation {length:.2g}</code> may outline them better.</p>"


def _limits(record: Mapping[str, Any], time: int) -> str:
    """Where limits that follow the image lie, at one time."""
    by_time = dict(zip(record["plan"]["times"], record["limits_grids"], strict=True))
    grid = by_time.get(time)
    if grid is None:
        return (
            "<p>They may follow the image (local); no part is so dim that it needs its own, so "
            "those of the whole volume hold.</p>"
        )
    z, y, x = grid["cells"]
    return (
        f"<p>They follow the image (local) in {z} × {y} × {x} cells (z, y, x), between which they "
        "are interpolated. Intensities that become 0, and 1, seen along z and along x:</p>"
        f'<div class="probe">{limits_svg(grid)}</div>'
    )


def _options(
    config: Mapping[str, Any], plan: Mapping[str, Any], record: Mapping[str, Any]
) -> list[tuple[str, object]]:
    """Names and values of what decided the result, and of how it was made."""
    result = config["result"]
    limits = [pair for pair in plan["intensity_limits"] if pair is not None]
    filters = plan.get("filters") or {}
    rows: list[tuple[str, object]] = [
        ("channel", plan["channel"]),
        ("times", _several(plan["times"])),
        ("inside", _inside(plan.get("inside"), record.get("inside"))),
        ("least probability", f"{plan['prob_thresh']:g}"),
        ("largest shared volume", f"{plan['nms_thresh']:g}"),
        ("intensity limits", "; ".join(f"{a:g} to {b:g}" for a, b in limits[:3])
         + (" …" if len(limits) > 3 else "")),
        ("filters", ", ".join(f"{k.replace('_', '-')} {_plain(v)}" for k, v in filters.items())
         or "none"),
        ("removed by filters", _counts(record["summary"]["removed"])),
        ("scales", ", ".join(map(str, result["scales"]))),
        ("second look", _second_look(plan, record)),
        ("surfaces", _surfaces(plan)),
        ("tile", _several(plan["tile"], " × ") + " working voxels"),
        ("block", _several(record["block_shape"], " × ") + " level-0 voxels"),
        ("precision, backend", f"{result['precision']}, {result['backend']}"),
        ("workers", record["workers"]),
        ("too large to believe", f"{record['candidates_too_large']:,} candidates"),
        ("hidden by others", f"{record['survivors_hidden']:,} survivors"),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value != ""]


def _inside(region: Mapping[str, Any] | None, part: Mapping[str, Any] | None) -> str:
    """In which region instances have their points, and how much of the image it is."""
    if region is None or part is None:
        return ""
    ids = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in region.get("ids", ())[:12])
    named = f"{region['name']}, regions {ids}" if ids else str(region["name"])
    return (
        f"{named}: {100 * part['share']:.3g} % of the image; {part['tiles']:,} tiles near it, "
        f"{part['tiles_outside']:,} not looked at"
    )


def _second_look(plan: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """Whether outlines were refined, how many, and by how much."""
    look, refined = plan.get("second_look"), record.get("refined")
    if not isinstance(look, Mapping) or not refined:
        return str(look or "")
    change = refined["mean_volume_ratio"] - 1.0
    return (
        f"{refined['outlines']:,} outlines at level {look['level']}, in the mean "
        f"{abs(change):.0%} {'larger' if change >= 0 else 'smaller'} by volume"
    )


def _surfaces(plan: Mapping[str, Any]) -> str:
    """Where surfaces were put, if not where they are seen."""
    share, shift = plan.get("outline"), plan.get("expand_um", 0.0)
    words = [] if share is None else [f"where the mean profile has fallen to {share:g}"]
    if shift:
        words.append(f"moved {abs(shift):g} µm {'outward' if shift > 0 else 'inward'}")
    return ", ".join(words)


def _times(record: Mapping[str, Any]) -> str:
    """Wall time of every stage."""
    seconds = record["summary"]["seconds"]
    longest = max(seconds.values(), default=0.0) or 1.0
    rows = []
    for stage, value in seconds.items():
        name, _, rest = stage.partition(" ")
        described = STAGES.get(stage, STAGES.get(name, name))
        words = f"pyramid level {rest}" if name == "pyramid" else described
        bar = f'<span class="meter" style="width:{100 * value / longest:.1f}%"></span>'
        rows.append((words, f"{value:,.1f} s{bar}"))
    total = sum(seconds.values())
    lead = "Wall time of this session, by stage; what an earlier session did is not in it."
    body = card(f"{total:,.1f} s together", table(rows)) if rows else "<p>Nothing was timed.</p>"
    return section("How long it took", lead, body, "times")


def _footer(record: Mapping[str, Any]) -> str:
    return (
        f"<footer>anystar-batch {text(record['anystar_batch'])}. This page is one file, without "
        "scripts, and asks nothing of any network. What the checks mean: docs/report.md.</footer>"
    )


def _time(stamp: str) -> str:
    return f'<time datetime="{text(stamp)}">{text(stamp.replace("T", " ")[:16])} UTC</time>'


def _several(values: Sequence[Any], joint: str = ", ") -> str:
    shown = joint.join(map(str, values[:12]))
    return f"{shown} … ({len(values)})" if len(values) > 12 else shown


def _plain(value: object) -> str:
    return "".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{v:,} by {k.replace('_', '-')}" for k, v in counted.items())
