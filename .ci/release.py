"""What a release must agree on: tag, package, citation and changelog. Needs Python 3.11 only.

usage: release.py version        print the package's version
       release.py notes TAG      print the changelog's section of that version, or say what differs
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version(root: Path) -> str:
    """Return the package's version, read from where the build reads it; nothing is imported."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    path = root / project["tool"]["hatch"]["version"]["path"]
    return _one(r'^__version__ = "(.+)"$', path)


def notes(root: Path, tag: str) -> str:
    """Return the section of the changelog that a tag releases.

    Raises
    ------
    ValueError
        The tag, the citation or the changelog names another version than the package.
    """
    package = version(root)
    if tag != f"v{package}":
        raise ValueError(f"the tag is {tag}, the package's version {package}: tag v{package}")
    cited = _one(r"^version: (.+)$", root / "CITATION.cff")
    if cited != package:
        raise ValueError(f"CITATION.cff names version {cited}, the package {package}")
    sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, body = section.partition("\n")
        if heading.split()[0] == package:
            return body.strip() + "\n"
    raise ValueError(f"CHANGELOG.md has no section '## {package}': rename the unreleased one")


def _one(pattern: str, path: Path) -> str:
    found = re.findall(pattern, path.read_text(), re.MULTILINE)
    if len(found) != 1:
        raise ValueError(f"{path.name}: {len(found)} lines match {pattern}, expected one")
    return str(found[0])


def main(arguments: list[str]) -> int:
    """Print what is asked for; 1 where something differs, 2 where the usage is wrong."""
    try:
        match arguments:
            case ["version"]:
                sys.stdout.write(version(ROOT) + "\n")
            case ["notes", tag]:
                sys.stdout.write(notes(ROOT, tag))
            case _:
                sys.stderr.write(__doc__ or "")
                return 2
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
