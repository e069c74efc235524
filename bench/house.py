"""The rooms of the house and the imports between them, as `docs/images/house.svg` and in numbers.

::

    python -m bench.house                  draw the picture anew
    python -m bench.house --count [DIR]    numbers for `docs/architecture.md`, of any checkout

Rooms and their floors come from the contract in `pyproject.toml`, what each is for from the first
words of its docstring, ties from the import graph: the picture cannot say what the code does not. A
room stands on the diagonal, under the rooms that may import it. Its imports go along its row to the
right and down to the room that is imported; a way back up would be a red line to the left.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/house.svg"
PACKAGE, TRAINER = "anystar_batch", "trainer"

WALLED = "archive.storage"
"""A room within a room, with a wall of its own; drawn beside it."""

LEFT, TOP, STEP, BOX, FOOT = 300, 64, 38, 24, 16
"""Pixels: left of the first box, above the first row, from box to box, a box, below the last."""

LETTER = 8.5
"""Pixels of a bold letter, about: what stands before a name keeps clear of it."""

MANY = 8
"""Imports from which on a tie is drawn filled."""

STYLE = """
  .card { fill: #ffffff } .band { fill: #eef1f6 } .line, .tie { stroke: #66758a }
  .strong { fill: #14202e } .weak { fill: #56616f }
  .room { fill: #2f5d8c } .file { fill: #93abc4 } .guest { fill: #b07d2b }
  .tie { fill: #ffffff } .many { fill: #cfe0f1 } .tip { fill: #66758a }
  .up { stroke: #c0392b }
  @media (prefers-color-scheme: dark) {
    .card { fill: #161b22 } .band { fill: #1f2630 } .line, .tie { stroke: #8b98a9 }
    .strong { fill: #eef2f6 } .weak { fill: #a9b4c0 }
    .room { fill: #6ea8dc } .file { fill: #58728c } .guest { fill: #d9a95a }
    .tie { fill: #161b22 } .many { fill: #27496b } .tip { fill: #8b98a9 }
    .up { stroke: #ff7b6b }
  }
"""


@dataclass(frozen=True, slots=True)
class Room:
    """A folder of the package, or a file beside the folders.

    Parameters
    ----------
    name : str
        Module, without the name of the package.
    floor : int
        Line of the contract, 1 at the top; 0 is the trainer, no part of the package.
    label : str
        As in the folder list: `stars/`, `config.py`.
    what : str
        What it is for, in a few words.
    """

    name: str
    floor: int
    label: str
    what: str


def rooms() -> list[Room]:
    """Return the trainer, then the rooms from the top down."""
    found = [Room(TRAINER, 0, f"{TRAINER}/", _first_words(ROOT / TRAINER))]
    for floor, names in enumerate(floors(ROOT), start=1):
        for name in names:
            found.append(_room(name, floor))
            if WALLED.startswith(f"{name}."):
                found.append(_room(WALLED, floor))
    return found


def _room(name: str, floor: int) -> Room:
    path = ROOT / PACKAGE / name.replace(".", "/")
    label = name.replace(".", "/") + ("/" if path.is_dir() else ".py")
    return Room(name, floor, label, _first_words(path))


def floors(root: Path) -> list[list[str]]:
    """Return the names on every line of a checkout's contract of layers, the first one."""
    document = tomllib.loads((root / "pyproject.toml").read_text())
    contracts = document["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in line.split("|")]
            for line in layers]  # fmt: skip


def _first_words(path: Path) -> str:
    """The first line of a module's docstring, up to the first colon, semicolon or full stop."""
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    line = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
    for mark in ";:.":
        line = line.split(f"{mark} ")[0].removesuffix(mark)
    return line.replace("`", "")


def imports() -> Iterator[tuple[str, str]]:
    """Yield every import of one module by another, within package and trainer."""
    graph = grimp.build_graph(PACKAGE, TRAINER, cache_dir=None)
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            yield importer, imported


def ties(walled: tuple[str, ...] = (WALLED,)) -> Counter[tuple[str, str]]:
    """Count the imports of the modules of one room from those of another.

    Parameters
    ----------
    walled : tuple of str
        Rooms within rooms that count as rooms.

    Returns
    -------
    Counter
        By names of importer and imported. Not counted: `__main__`, and the package itself, whom
        some ask for the version.
    """

    def room_of(module: str) -> str:
        package, _, name = module.partition(".")
        if package == TRAINER:
            return TRAINER
        inner = (room for room in walled if f"{name}.".startswith(f"{room}."))
        return next(inner, name.split(".")[0])

    pairs = ((room_of(a), room_of(b)) for a, b in imports())
    return Counter(pair for pair in pairs if len({*pair} - {"", "__main__"}) == 2)


def picture() -> str:
    """Return the SVG: the same bytes for the same imports."""
    house, counts = rooms(), ties()
    at = {room.name: n for n, room in enumerate(house)}
    width, height = LEFT + STEP * len(house) + 14, TOP + STEP * len(house) + FOOT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="13">',
        "<title>The rooms of anystar-batch, and who imports whom</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3.5" '
        'orient="auto"><path class="tip" d="M0 0 7 3.5 0 7z"/></marker></defs>',
        f'<rect class="card" width="{width}" height="{height}" rx="8"/>',
        f'<text class="strong" x="16" y="28" font-size="16" font-weight="bold">'
        f"{_count(house, 'room') - 1} rooms, one more within, {_count(house, 'file')} files beside "
        "them: who imports whom</text>",
        '<text class="weak" x="16" y="48">A room imports along its row, to the right, and then '
        "down to the room that is imported; the number counts imports.</text>",
        *_bands(house, width),
    ]
    # Lines first, numbers over them.
    marks = []
    for (importer, imported), count in sorted(counts.items(), key=lambda t: (at[t[0][0]], t)):
        i, j = at[importer], at[imported]
        lines.append(_line(i, j))
        marks += _mark(i, j, count)
    for n, room in enumerate(house):
        lines += _box(n, room)
    return "\n".join([*lines, *marks, *_legend(len(house)), "</svg>", ""])


def _count(house: list[Room], kind: str) -> int:
    return sum(1 for room in house if _kind(room) == kind)


def _x(n: int) -> int:
    return LEFT + STEP * n + STEP // 2


def _y(n: int) -> int:
    return TOP + STEP * n + STEP // 2


def _bands(house: list[Room], width: int) -> Iterator[str]:
    """Every other floor shaded; the number of each."""
    for floor in sorted({room.floor for room in house}):
        rows = [n for n, room in enumerate(house) if room.floor == floor]
        top, high = TOP + STEP * rows[0], STEP * len(rows)
        if floor % 2 == 0:
            yield f'<rect class="band" x="8" y="{top}" width="{width - 16}" height="{high}"/>'
        name = f"floor {floor}" if floor else "beside"
        yield f'<text class="weak" x="16" y="{top + STEP // 2 + 4}" font-size="11">{name}</text>'


def _line(i: int, j: int) -> str:
    """From box i along its row, then to box j."""
    style = "line" if j > i else "line up"
    gap = BOX // 2 if j > i else -(BOX // 2)
    way = f"M{_x(i) + gap} {_y(i)} H{_x(j)} V{_y(j) - gap}"
    return f'<path class="{style}" d="{way}" fill="none" marker-end="url(#tip)"/>'


def _mark(i: int, j: int, count: int) -> Iterator[str]:
    """The number at the corner."""
    style = "tie many" if count >= MANY else "tie"
    yield f'<circle class="{style}" cx="{_x(j)}" cy="{_y(i)}" r="11"/>'
    yield (
        f'<text class="strong" x="{_x(j)}" y="{_y(i) + 4}" text-anchor="middle" '
        f'font-size="11">{count}</text>'
    )


def _kind(room: Room) -> str:
    if not room.floor:
        return "guest"
    return "room" if room.label.endswith("/") else "file"


def _box(n: int, room: Room) -> Iterator[str]:
    """The box on the diagonal, and to its left what the room is for, and its name."""
    x, y = _x(n) - BOX // 2, _y(n)
    yield (
        f'<rect class="{_kind(room)}" x="{x}" y="{y - BOX // 2}" width="{BOX}" '
        f'height="{BOX}" rx="5"/>'
    )
    yield (
        f'<text class="strong" x="{x - 8}" y="{y + 4}" text-anchor="end" font-weight="bold">'
        f"{escape(room.label)}</text>"
    )
    yield (
        f'<text class="weak" x="{x - 16 - LETTER * len(room.label):g}" y="{y + 4}" '
        f'text-anchor="end" font-size="12">{escape(room.what)}</text>'
    )


def _legend(count: int) -> Iterator[str]:
    """What the colours say, in the empty corner."""
    rows = [
        ("guest", "builds the model; not in the wheel"),
        ("room", "a folder"),
        ("file", "a file beside the folders"),
    ]
    top = TOP + STEP * count - 22 * len(rows) - 26
    for n, (style, text) in enumerate(rows):
        y = top + 22 * n
        yield f'<rect class="{style}" x="80" y="{y}" width="14" height="14" rx="3"/>'
        yield f'<text class="weak" x="102" y="{y + 12}" font-size="12">{text}</text>'
    y = top + 22 * len(rows)
    yield f'<circle class="tie many" cx="87" cy="{y + 7}" r="7"/>'
    yield f'<text class="weak" x="102" y="{y + 12}" font-size="12">{MANY} imports or more</text>'


def numbers(root: Path) -> dict[str, object]:
    """Return the numbers of a checkout that is first in `sys.path`.

    Parameters
    ----------
    root : Path
        The checkout.
    """
    package = root / PACKAGE
    files = {p: len(p.read_text().splitlines()) for p in sorted(package.rglob("*.py"))}
    beside = [p for p in files if p.parent == package]
    longest = max(files, key=lambda path: files[path])
    inside = {k: v for k, v in ties(walled=()).items() if TRAINER not in k}
    layers = floors(root)
    text = (root / "pyproject.toml").read_text()
    return {
        "files": len(files),
        "files beside the folders": len(beside),
        "folders": len({p.parent for p in files} - {package}),
        "lines": sum(files.values()),
        "longest file": f"{longest.relative_to(package)}, {files[longest]} lines",
        "files under 60 lines": sum(1 for p, n in files.items() if n < 60 and p.stem[0] != "_"),
        "floors of the contract": len(layers),
        "names in them": sum(map(len, layers)),
        "lines of all contracts": len(text[text.index("[tool.importlinter]") :].splitlines()),
        "ties between rooms": len(inside),
        "imports between rooms": sum(inside.values()),
        "trainer files beside its folders": len(list((root / TRAINER).glob("*.py"))),
    }


def main(arguments: list[str]) -> None:
    """Draw, or count."""
    parser = argparse.ArgumentParser(prog="python -m bench.house", description=__doc__)
    parser.add_argument("--count", type=Path, nargs="?", const=ROOT, metavar="DIR")
    count = parser.parse_args(arguments).count
    if count is None:
        sys.path.insert(0, str(ROOT))
        PICTURE.write_text(picture())
        print(PICTURE)
        return
    sys.path.insert(0, str(count.absolute()))
    for name, value in numbers(count).items():
        print(f"{name:34} {value}")


if __name__ == "__main__":
    main(sys.argv[1:])
