"""`docs/options.md`, from the declarations: `python -m bench.options > docs/options.md`."""

from __future__ import annotations

from anystar_batch.options import PANELS, SCREEN, SEGMENT, SWEEP, Option

HEADER = """# Options

Made from `anystar_batch/options.py` by `python -m bench.options > docs/options.md`; a test keeps
the two alike. An option is called the same on the command line (`--min-volume`), in a
[file](config.md) (`min-volume`) and from [Python](api.md) (`min_volume`).
"""


def page() -> str:
    """Return the page, Markdown: one table a panel of the help."""
    parts = [HEADER]
    for panel in PANELS:
        rows = [o for o in (*SEGMENT, *SWEEP, *SCREEN) if o.panel == panel]
        parts.append(f"## {panel}\n\n| option | takes | default | |\n|---|---|---|---|")
        parts[-1] += "".join(f"\n{_row(option)}" for option in rows) + "\n"
    return "\n".join(parts)


def _row(option: Option) -> str:
    flags = ", ".join(f"`{f}`" for f in (option.flags or (f"--{option.key}",)))
    takes = option.words if option.kind is not bool else ""
    default = "" if option.default in (None, False, "") else f"`{option.default}`"
    where = " Only `sweep`." if option in SWEEP else "" if option.in_sweep else " Not `sweep`."
    help_text = option.help.replace("|", "\\|")
    return f"| {flags} | {takes} | {default} | {help_text}{where} |"


def main() -> None:
    """Print the page."""
    print(page(), end="")


if __name__ == "__main__":
    main()
