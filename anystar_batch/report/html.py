"""Small pieces of HTML: every text goes through `text`, which escapes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from anystar_batch.report.pictures import Layers


def text(value: object) -> str:
    """Return a value as text that cannot be markup, also inside quotes."""
    return escape(str(value), quote=True)


def section(heading: str, lead: str, body: str, name: str) -> str:
    """Return a section; heading and lead are plain text, the body is HTML."""
    lead = f'<p class="lead">{text(lead)}</p>' if lead else ""
    return f'<section id="{name}"><h2>{text(heading)}</h2>{lead}{body}</section>'


def card(heading: str, body: str) -> str:
    """Return a box with a heading; the body is HTML."""
    return f'<div class="card"><h3>{text(heading)}</h3>{body}</div>'


def key(name: str, value: str, unit: str = "", more: str = "") -> str:
    """Return one key number; all plain text."""
    small = f" <small>{text(unit)}</small>" if unit else ""
    extra = f'<dd class="more">{text(more)}</dd>' if more else ""
    return (
        f'<div class="key"><dt>{text(name)}</dt>'
        f'<dd class="value">{text(value)}{small}</dd>{extra}</div>'
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values; names are plain text, values HTML."""
    lines = (f'<tr><th scope="row">{text(name)}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def grid_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a head; plain text; all columns but the first are numbers."""
    head = "".join(
        f'<th scope="col"{"" if k == 0 else " class=number"}>{text(h)}</th>'
        for k, h in enumerate(heads)
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{'' if k == 0 else ' class=number'}>{text(v)}</td>" for k, v in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    body = f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody>"
    return f'<div class="wide"><table class="grid">{body}</table></div>'


def view(
    picture: Layers, described: str, *, name: str = "", bar: tuple[float, str] | None = None
) -> str:
    """Return a picture with its outlines above it.

    Parameters
    ----------
    picture : Layers
    described : str
        What it shows, for those who cannot see it.
    name : str
        Written in its corner.
    bar : (share, text), optional
        A scale bar: its part of the width, and what it is long.
    """
    label = f'<span class="name">{text(name)}</span>' if name else ""
    scale = (
        ""
        if bar is None
        else f'<span class="bar-um" style="width:{100 * bar[0]:.2f}%">{text(bar[1])}</span>'
    )
    return (
        f'<div class="view" style="aspect-ratio:{picture.width}/{picture.height}">'
        f'<img src="{picture.grey}" alt="{text(described)}">'
        f'<img class="over" src="{picture.outlines}" alt="">{label}{scale}</div>'
    )
