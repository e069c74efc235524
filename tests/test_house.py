"""The house: what lives in which room, how its files are called, and its picture."""

import ast
import re
from pathlib import Path

import pytest

from bench import house
from tests.support.checkout import ROOT

MODULES = [
    path
    for package in (house.PACKAGE, house.TRAINER)
    for path in sorted((ROOT / package).rglob("*.py"))
]
ROOMS = sorted({path.parent for path in MODULES} - {ROOT / house.PACKAGE, ROOT / house.TRAINER})
BESIDE_MOST = 12
"""Files beside the rooms of the package, `__init__` and `__main__` among them."""

LONGEST = 400
LONGER = {
    "anystar_batch/options.py": "a table, one entry an option; half of its lines are entries",
    "anystar_batch/pipeline/sweep.py": "options, turns and outcome of one command, read together",
    "trainer/fit.py": "the whole of a run in its order, read from top to bottom",
}
"""Files that may be longer, and why."""

ENDINGS = ("ing", "ed", "ly")
OTHERS = {"ahead", "bound", "done", "found", "given", "held", "hidden", "kept", "known", "left",
          "lost", "made", "seen", "shown", "swept", "taken", "written"}  # fmt: skip
"""Participles and adverbs that no ending gives away."""
NOUNS = {
    "downsampling": "of levels, a noun of the field",
    "feed": "what brings batches",
    "labelled": "labelled images, as a data set is called",
    "matching": "of instances, a noun of the field",
    "parsing": "of options; the plan of the house names it",
    "sampling": "of an image's voxels, a noun of the field",
}
"""File names that look like a verb's form and are nouns, and why."""

FROZEN = "trainer/frozen"
"""Never edited, so its docstring lists no files."""


def name(path):
    return path.relative_to(ROOT).as_posix()


def is_no_noun(word):
    return word in OTHERS or word.endswith(ENDINGS)


def test_every_module_is_in_a_room_or_one_of_a_few_files_beside_them():
    placed = {room for floor in house.floors(ROOT) for room in floor} | {"__init__", "__main__"}
    inside = (path.relative_to(ROOT / house.PACKAGE) for path in MODULES if is_ours(path))
    assert {Path(path.parts[0]).stem for path in inside} == placed
    assert len(list((ROOT / house.PACKAGE).glob("*.py"))) <= BESIDE_MOST


def is_ours(path):
    return path.is_relative_to(ROOT / house.PACKAGE)


def test_every_folder_of_python_files_is_a_package_with_a_docstring():
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room


def test_no_file_is_longer_than_it_may_be():
    long = {name(path) for path in MODULES if len(path.read_text().splitlines()) > LONGEST}
    assert long == set(LONGER), "split it, or say why; an exception that is not needed goes"


def test_a_file_is_called_by_a_noun_or_the_stage_it_runs():
    odd = {path.stem for path in MODULES if is_no_noun(path.stem.rpartition("_")[2])}
    assert odd == set(NOUNS)


@pytest.mark.parametrize("word", ["reading", "measured", "swept", "ahead", "exactly", "deciding"])
def test_names_that_say_nothing_are_seen(word):
    assert is_no_noun(word)


@pytest.mark.parametrize("room", [r for r in ROOMS if name(r) != FROZEN], ids=name)
def test_a_room_names_all_of_its_files(room):
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    files = {path.stem for path in room.glob("*.py")} - {"__init__"}
    files |= {f"{path.parent.name}/" for path in room.glob("*/__init__.py")}
    assert files <= set(re.findall(r"`([\w/]+)`", text))


def test_tests_mirror_the_rooms():
    rooms = {path.relative_to(ROOT / house.PACKAGE).as_posix() for path in ROOMS if is_ours(path)}
    rooms |= {name(path) for path in ROOMS if not is_ours(path)}
    folders = {path.parent.relative_to(ROOT / "tests").as_posix()
               for path in (ROOT / "tests").glob("*/**/test_*.py")}  # fmt: skip
    assert folders <= rooms | {"laws", house.TRAINER}


def test_nothing_goes_back_up():
    order = [room.name for room in house.rooms()]
    assert all(order.index(a) < order.index(b) for a, b in house.ties())


def test_the_picture_shows_the_imports_of_today():
    drawn = house.PICTURE.read_text()
    assert drawn == house.picture(), "draw it anew: python -m bench.house"


COMMANDS = ("anystar_batch/cli/commands.py", "anystar_batch/cli/export.py",
            "anystar_batch/cli/seamtest.py", "anystar_batch/cli/segment.py",
            "anystar_batch/cli/sweep.py")  # fmt: skip
"""Docstrings of commands are their help: what they raise ends the program, and help is no place."""


def raised(function):
    """What a function itself raises, not the ones that it defines."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield ast.unparse(node.exc)
        elif not isinstance(node, ast.FunctionDef | ast.Lambda):
            yield from raised(node)


def test_every_public_function_says_what_it_raises():
    silent = [
        f"{name(path)}: {node.name}"
        for path in MODULES
        if name(path) not in COMMANDS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and (text := ast.get_docstring(node)) is not None
        and list(raised(node))
        and "Raises\n------" not in text
    ]
    assert silent == []


NOTES = [ROOT / "docs/architecture.md", *sorted((ROOT / house.PACKAGE).glob("*/DESIGN.md"))]


FILES = (".csv", ".h5", ".json", ".jsonl", ".npy", ".svg", ".toml")
"""What looks like a dotted name and is the name of a file of a run or a model."""


def words(page):
    """What stands in backticks and is a path, or a dotted name."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = (
        word.removesuffix("()") for word in re.findall(r"`([a-z_A-Z][\w./-]*(?:\(\))?)`", text)
    )
    return [word for word in found if re.search(r"[./]", word) and not word.endswith(FILES)]


def names_of(body, prefix=""):
    """Names that a module defines: functions, values, classes and what they define."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from names_of(node.body, f"{prefix}{node.name}.")
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Name):
                yield prefix + target.id


def leads_somewhere(word, base):
    """Whether a word is a path, a module or a name of one, below a folder; None: not from here."""
    if "/" in word or word.endswith((".py", ".md")):
        return (base / word).exists() or None
    parts = word.split(".")
    for count in range(1, len(parts) + 1):
        file = base.joinpath(*parts[:count]).with_suffix(".py")
        if file.exists():
            rest = ".".join(parts[count:])
            return not rest or rest in set(names_of(ast.parse(file.read_text()).body))
    return None


@pytest.mark.parametrize("page", NOTES, ids=name)
def test_what_a_note_names_is_there(page):
    bases = (ROOT / house.PACKAGE, ROOT, page.parent)
    answers = {word: {leads_somewhere(word, base) for base in bases} for word in words(page)}
    begun = {w for w, found in answers.items() if found != {None} or "/" in w or w.endswith(".py")}
    assert {word for word in begun if True not in answers[word]} == set()
    assert len(begun) > 10
