"""The manual page, from the commands: `python -m bench.manual > docs/man/anystar-batch.1`.

Roff with the macros of man(7), which groff and mandoc both know. Commands, arguments and options
are those of the command line itself; those of `segment` and `sweep` are declared in
`anystar_batch/options.py`. What stands here is only what no option says.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import typer

from anystar_batch import __version__, cli
from anystar_batch.cli.screen import DONE, FAILED, INTERRUPTED, LATER, UNDECIDED, USAGE, WARNED
from anystar_batch.options import PANELS
from tests.support.checkout import ROOT

PAGE = ROOT / "docs" / "man" / "anystar-batch.1"

WIDTH = 76
"""Of a line of the source, characters; a leading `\\\\&` comes on top."""

DESCRIPTION = """\
Cuts OME-Zarr volumes into blocks, finds every star-convex object in them (nuclei, nodules,
spheroids) with a StarDist-3D network that was trained on synthetic images, joins the blocks
exactly, and writes labels, a table and a page to look at. The result depends on the image, the
model and the options alone, never on blocks, workers, memory or a run that was killed and
repeated."""

CODES = (
    (DONE, "Done, or nothing to do."),
    (FAILED, "Something failed. Nothing of it is published; the same command resumes."),
    (USAGE, "Wrong usage or input."),
    (WARNED, "Published, with warnings, under `--fail-on-warning`; of `seamtest`: a trace."),
    (UNDECIDED, "Of `seamtest`: cannot tell."),
    (LATER, "Locked by another run, or out of time; the next run continues."),
    (INTERRUPTED, "Interrupted; the same command resumes."),
)
"""Exit codes, and what each says."""

OF_FILES = "What `segment embryo.ome.zarr` writes, unless `--output` names another place:"

FILES = (
    ("embryo.ome.zarr/labels/anystar", "The label, a pyramid that mirrors the image's."),
    ("embryo.anystar.csv", "One row an instance."),
    ("embryo.anystar.html", "A page that shows the result."),
    ("embryo.anystar.run.json", "What was run, and what it found."),
    ("embryo.anystar.toml", "Its options, for `--config`."),
    ("embryo.anystar.work", "Work directory of a run that is not finished; the next resumes it."),
)
"""What is written, and what each is."""

VARIABLES = (
    ("CUDA_VISIBLE_DEVICES", "GPUs that may be used."),
    ("TMPDIR", "Where temporary files go."),
    ("NUMBA_CACHE_DIR", "Where compiled kernels and the network's graphs are kept between runs."),
    (
        "ANYSTAR_BATCH_KEPT_GRAPHS",
        "0 builds the network anew each time, under Keras: same results.",
    ),
    ("AWS_*, GOOGLE_APPLICATION_CREDENTIALS", "Credentials of object stores, never an address's."),
)
"""Variables of the environment that change what a run does."""

EXAMPLES = (
    ("Look first; nothing is written:", "anystar-batch segment embryo.ome.zarr --dry-run"),
    ("Objects of 12 micrometres:", "anystar-batch segment embryo.ome.zarr --diameter 12um"),
    ("An archive, every night, at most six hours:", "anystar-batch sweep /data --max-hours 6"),
    ("Does the installation work?", "anystar-batch selftest"),
)
"""What a command is for, and the command."""


def page() -> str:
    """Return the manual page, roff."""
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    lines = [
        f'.\\" Made by `python -m bench.manual > {PAGE.relative_to(ROOT)}`; a test keeps it so.',
        f'.TH ANYSTAR\\-BATCH 1 {_date()} "anystar\\-batch {__version__}" "User Commands"',
        ".SH NAME",
        f"anystar\\-batch \\- {_text(_first(cli.app.info.help))}",
        ".SH SYNOPSIS",
        *_synopsis(commands),
        ".SH DESCRIPTION",
        _text(DESCRIPTION),
        ".SH COMMANDS",
    ]
    for name, command in commands.items():
        lines += _command(name, command)
    lines += _options(commands["segment"], commands["sweep"])
    lines += [".SH EXIT STATUS", *_entries((str(code), said) for code, said in CODES)]
    lines += [".SH ENVIRONMENT", *_entries(VARIABLES)]
    lines += [".SH FILES", _text(OF_FILES), *_entries(FILES), ".SH EXAMPLES"]
    for what, line in EXAMPLES:
        lines += [_text(what), ".PP", ".nf", ".RS", _text(line), ".RE", ".fi", ".PP"]
    lines.pop()
    lines += [
        ".SH SEE ALSO",
        "The documentation that comes with the sources:",
        ".IR README.md ,",
        ".I docs/",
    ]
    return "\n".join(lines) + "\n"


def _date() -> str:
    """Day of the release, from where it is cited."""
    text = (ROOT / "CITATION.cff").read_text()
    (day,) = re.findall(r"^date-released: (\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    return str(day)


def _text(words: str) -> str:
    """Text with hyphens that can be copied, names in bold, and no line that reads as a request."""
    escaped = words.replace("\\", "\\e").replace("-", "\\-")
    bold = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped)
    lines = textwrap.wrap(bold, WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def _first(text: str | None) -> str:
    """First sentence, as the line NAME wants it: no capital, no full stop."""
    sentence = (text or "").split("\n\n")[0].rstrip(".")
    return sentence[:1].lower() + sentence[1:]


def _entries(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A list of tagged paragraphs."""
    for tag, said in entries:
        yield from (".TP", f"\\fB{_text(tag)}\\fR", _text(said))


def _is_argument(parameter: Any) -> bool:  # noqa: ANN401  (a parameter of Typer's)
    return parameter.param_type_name == "argument"


def _synopsis(commands: dict[str, Any]) -> Iterator[str]:
    for name, command in commands.items():
        arguments = [
            p.metavar if p.required else f"[{p.metavar}]" for p in command.params if _is_argument(p)
        ]
        has_options = any(not _is_argument(p) for p in command.params)
        words = f"\\fBanystar\\-batch {name}\\fR"
        words += "".join(f" \\fI{_text(argument)}\\fR" for argument in arguments)
        yield words + (" [\\fIOPTION\\fR...]" if has_options else "")
        yield ".br"
    yield "\\fBanystar\\-batch\\fR [\\fICOMMAND\\fR] \\fB\\-\\-help\\fR | \\fB\\-\\-version\\fR"
    yield ".br"
    yield "\\fBanystar\\-batch\\fR \\fB\\-\\-install\\-completion\\fR"


def _command(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401
    arguments = [p for p in command.params if _is_argument(p)]
    tag = f"\\fB{name}\\fR" + "".join(f" \\fI{_text(p.metavar)}\\fR" for p in arguments)
    yield from (".TP", tag, _text(command.help.split("\n\n")[0]))
    for argument in arguments:
        yield f"\\fI{_text(argument.metavar)}\\fR: {_text(argument.help)}"
    if name in ("segment", "sweep"):
        yield "Its options are listed below."
        return
    options = [p for p in command.params if not _is_argument(p)]
    if options:
        yield ".RS"
        for option in options:
            yield from _option(option)
        yield ".RE"


def _options(segment: Any, sweep: Any) -> Iterator[str]:  # noqa: ANN401
    """Options of the two commands that segment, panel by panel, each once."""
    yield ".SH OPTIONS OF SEGMENT AND SWEEP"
    of_segment, of_sweep = (
        {p.name: p for p in command.params if not _is_argument(p)} for command in (segment, sweep)
    )
    every = {**of_segment, **of_sweep}
    for panel in PANELS:
        yield f".SS {_text(panel)}"
        for name, option in every.items():
            if option.rich_help_panel == panel:
                only = "segment" if name not in of_sweep else "sweep"
                is_shared = name in of_segment and name in of_sweep
                yield from _option(option, "" if is_shared else f"Only `{only}`.")


def _option(option: Any, note: str = "") -> Iterator[str]:  # noqa: ANN401
    flags = ", ".join(f"\\fB{_text(f)}\\fR" for f in (*option.opts, *option.secondary_opts))
    takes = "" if option.is_flag else f" \\fI{_text(_metavar(option))}\\fR"
    is_told = isinstance(option.default, str | int | float) and not option.is_flag
    default = f"Default: {option.default}." if is_told and option.default != "" else ""
    yield ".TP"
    yield flags + takes
    yield _text(" ".join(filter(None, (option.help, default, note))))


def _metavar(option: Any) -> str:  # noqa: ANN401
    return str(option.metavar or option.name.upper().replace("_", "-"))


def main() -> None:
    """Print the page."""
    print(page(), end="")


if __name__ == "__main__":
    main()
