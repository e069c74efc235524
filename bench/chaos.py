"""Disturb runs at random and look at what is left: `python -m bench chaos OUT --runs 50 --seed 1`.

Every run segments a small phantom with a network that needs no TensorFlow, in a process of its own
that is forked from this one. It is disturbed at a moment drawn from the seed: at the n-th operation
on files, of all, of the last fifth or of those that others can see (publishing, the lock), or after
a time. Then it is looked at, from the files alone; the command is repeated, with other blocks; and
the bytes are compared with an undisturbed run's.

    OUT/chaos.json    every run        OUT/<number>/    folders of runs that failed a check

With `--spread` the moments are not drawn but lie evenly over the whole run, half of them counted
in operations on files and half in time. With `--busy` two processes burn meanwhile. With
`--minutes` it stops after a while, exit code 75; the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anystar_batch.archive.storage.atomic_write import write_json_atomic
from bench.aftermath import LABEL, judge, leftovers, look
from bench.disturbances import KINDS, Disturbance, Scene, can_mount, room_taken, small_disk
from bench.processes import Process
from bench.undisturbed import BLOCKS, EARLIER, Bench, prepare, start, words
from tests.support import faults

NEAR_END = 0.8
"""Part of the operations after which results are finished and published."""

BURNING = 2
"""Processes that burn with `--busy`."""

ANYWHERE, SEEN, TIMED = 0.35, 0.75, 0.3
"""Chances: any operation; that, or one that others can see; after a time instead."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    kinds = tuple(k for k in options.kinds if k != "small disk" or can_mount(options.out))
    if len(kinds) < len(options.kinds):
        print("left out: small disk, which needs root", file=sys.stderr)
    header = {"seed": options.seed, "kinds": list(kinds), "is_small": options.small}
    header |= {name: True for name in ("everywhere", "spread", "busy") if vars(options)[name]}
    file = options.out.resolve() / "chaos.json"
    runs = _earlier(file, header) if options.only is None else []
    known = {done["number"] for done in runs}
    with burning(BURNING if options.busy else 0):
        bench = prepare(file.parent, kinds, options.seed, is_small=options.small)
        for disturbance in _wanted(bench, options):
            if disturbance.number in known:
                continue
            if time.monotonic() - began > 60 * options.minutes:
                print(f"{len(runs)} runs so far; give the same command", file=sys.stderr)
                sys.exit(75)
            runs.append(one(bench, disturbance))
            if options.only is None:
                write_json_atomic(file, header | {"runs": runs})
            print(line(runs[-1]), file=sys.stderr, flush=True)
    shutil.rmtree(bench.templates)
    print(table(runs))
    if not all(all(done["checks"].values()) for done in runs):
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench chaos", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--small", action="store_true", help="smaller, one format, one worker")
    parser.add_argument("--only", type=int, help="number of one run, to repeat it")
    parser.add_argument(
        "--everywhere", action="store_true", help="kill at each operation that others can see"
    )
    parser.add_argument("--spread", action="store_true", help="moments evenly over the whole run")
    parser.add_argument("--busy", action="store_true", help="burn two processors meanwhile")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after")
    return parser


def _earlier(file: Path, header: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs of an earlier call with the same options."""
    if not file.exists():
        return []
    document = json.loads(file.read_bytes())
    runs: list[dict[str, Any]] = document.pop("runs")
    if document != header:
        sys.exit(f"{file}: found runs of {document}, expected {header}; give another OUT")
    return runs


def draw(bench: Bench, number: int) -> Disturbance:
    """Draw a run from the seed and its number."""
    rng = random.Random(f"{bench.seed}/{number}")
    name = bench.kinds[number % len(bench.kinds)]
    kind = KINDS[name]
    form = rng.choice(list(bench.forms))
    workers = rng.choice([n for n in kind.workers if n in bench.workers])
    variant, earlier = rng.choice(kind.variants), rng.choice(EARLIER)
    if variant == "earlier" and earlier == "none":
        earlier = "same"
    known = bench.forms[form]
    total = known.operations[earlier if workers == 1 else "none", workers]
    where, after = rng.random(), None
    if where < ANYWHERE or (workers > 1 and where < SEEN):
        at = rng.randint(1, total)
    elif where < SEEN:
        at = rng.choice(known.visible[earlier])
    else:
        at = rng.randint(int(NEAR_END * total), total)
    if kind.fault == "stop" and rng.random() < TIMED and bench.is_timed:
        at, after = 0, round(rng.uniform(0, known.seconds[workers]), 3)
    return Disturbance(
        number, name, variant, form, earlier, workers, at, after, rng.getrandbits(32)
    )


def _wanted(bench: Bench, options: argparse.Namespace) -> Iterator[Disturbance]:
    """Yield the runs that are asked for."""
    if options.everywhere:
        return everywhere(bench)
    if options.spread:
        return (one for one in spread(bench, options.runs) if options.only in {None, one.number})
    numbers = range(options.runs) if options.only is None else [options.only]
    return (draw(bench, number) for number in numbers)


def spread(bench: Bench, runs: int) -> Iterator[Disturbance]:
    """Yield disturbances whose moments lie evenly between the begin and the end of a run."""
    earlier = tuple(dict.fromkeys(EARLIER))
    cases = itertools.cycle(itertools.product(bench.forms, earlier, bench.kinds))
    for number in range(runs):
        rng, part = random.Random(f"{bench.seed}/{number}"), (number + 0.5) / runs
        form, before, name = next(cases)
        kind, known = KINDS[name], bench.forms[form]
        workers = rng.choice([n for n in kind.workers if n in bench.workers])
        at, after = 0, round(part * known.seconds[workers], 3)
        if kind.fault != "stop" or number % 4 < 2:  # the cases alternate between two kinds
            total = known.operations[before if workers == 1 else "none", workers]
            at, after = 1 + int(part * total), None
        variant = rng.choice(kind.variants)
        seed = rng.getrandbits(32)
        yield Disturbance(number, name, variant, form, before, workers, at, after, seed)


@contextlib.contextmanager
def burning(count: int) -> Iterator[None]:
    """Keep processors busy meanwhile, at the latest until this process is gone."""
    text = f"import os\nwhile os.getppid() == {os.getpid()}: sum(range(10**5))"
    loop = [sys.executable, "-c", text]
    others = [subprocess.Popen(loop) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def everywhere(bench: Bench) -> Iterator[Disturbance]:
    """Yield a kill before every operation that others can see, without and over a label."""
    number = 0
    for form, known in bench.forms.items():
        for earlier in ("none", "same"):
            for at in known.visible[earlier]:
                yield Disturbance(number, "kill -9 client", "", form, earlier, 1, at, None, number)
                number += 1


def fault_of(drawn: Disturbance, folder: Path) -> faults.Fault:
    """Return what goes wrong inside the process."""
    rng = random.Random(drawn.seed)
    return faults.Fault(
        kind=KINDS[drawn.kind].fault,
        at=drawn.at,
        length=int(drawn.variant) if drawn.variant.isdecimal() else 0,
        share=rng.choice([0.01, 0.03, 0.1]),
        jump=rng.choice([-1, 1]) * rng.uniform(3600, 400 * 86400),
        seed=drawn.seed,
        folder=str(folder),
    )


def one(bench: Bench, drawn: Disturbance) -> dict[str, Any]:
    """Disturb a run, look, repeat the command, and compare."""
    known, began = bench.forms[drawn.form], time.monotonic()
    kind, rng = KINDS[drawn.kind], random.Random(drawn.seed)
    folder = bench.out / f"{drawn.number:04}"
    with _place(bench, drawn, folder, rng) as more_room:
        before = known.starts[drawn.earlier]
        other = bench.templates / drawn.form / "other image" / "phantom.ome.zarr"

        def another(*more: str, block: tuple[int, int, int] = BLOCKS[0]) -> Process:
            return start(bench, folder, (*words(drawn.earlier), *more), 1, faults.Fault(), block)

        scene = Scene(drawn, folder, None, another, other, rng)
        if kind.is_before and kind.act is not None:
            kind.act(scene)
        process = start(bench, folder, words(drawn.earlier), drawn.workers, fault_of(drawn, folder))
        scene.process = process
        came = False
        if kind.act is not None and not kind.is_before:
            came = process.meet(drawn.after)
            if came:
                kind.act(scene)
                came = not scene.has_missed
        code = process.wait()
        came = came or kind.is_before or process.counter[1] > 0 or kind.fault == "disk"
        state, errors = look(folder), process.errors()
        good = (known.good, known.good_other) if kind.replaces else (known.good,)
        checks = {"ends as it may": code in kind.codes and set(scene.codes) <= {0, 75}}
        checks["says why in one line"] = code in {0, -9, -15, 130} or (
            len(errors) == 1 and "unexpected" not in errors[0]
        )
        checks |= judge(state, before, good, tuple(scene.deleted))
        checks["image is untouched"] = (
            kind.replaces or bool(scene.mend) or state.image == before.image
        )
        for mend in scene.mend:
            mend()
        more_room()
        again = another(block=rng.choice(BLOCKS))
        codes = [again.wait()]
        said = "".join(again.errors())
        cure = next((word for word in ("--restart", "--overwrite") if word in said), None)
        if codes == [2] and kind.may_restart and cure is not None:
            # A table whose label was deleted is not replaced unasked.
            again = another(cure, block=rng.choice(BLOCKS))
            codes.append(again.wait())
        final = look(folder)
        checks["rerun completes"] = codes[-1] == 0
        wanted = good if code == 0 else (known.good_other,) if kind.replaces and came else good[:1]
        checks["bytes are an undisturbed run's"] = (
            any(
                final.labels.get(LABEL) == one.labels[LABEL]
                and final.tables.get(LABEL) == one.tables[LABEL]
                for one in wanted
            )
            and LABEL in final.listed
        )
        checks["earlier label still reads"] = judge(final, before, good, tuple(scene.deleted))[
            "earlier label reads identically"
        ]
        left = leftovers(folder)
        checks["nothing is left behind"] = not left
        checks["no process is left"] = _is_alone(process)
    done = asdict(drawn) | {
        "came": came,
        "operations": process.counter[0],
        "hits": process.counter[1],
        "code": code,
        "second": scene.codes,
        "rerun": codes,
        "errors": errors,
        "rerun errors": again.errors(),
        "left": left,
        "seconds": round(time.monotonic() - began, 2),
        "checks": checks,
    }
    if all(checks.values()):
        _forget(bench.out, drawn.number)
    return done


def line(done: dict[str, Any]) -> str:
    """Return one line on a run."""
    bad = [name for name, is_true in done["checks"].items() if not is_true]
    when = f"{done['after']} s" if done["after"] is not None else f"operation {done['at']}"
    return (
        f"{done['number']:4} {done['kind']} {done['variant']} ({done['form']}, {done['earlier']}, "
        f"{done['workers']} workers, {when}): exit {done['code']} {done['second'] or ''}, rerun "
        f"{done['rerun']}: {'FAILED: ' + ', '.join(bad) if bad else 'good'}"
    )


def table(runs: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table of counts by kind."""
    rows = [
        "| disturbance | runs | came | exit codes | restarts | all checks held |",
        "|" + "---|" * 6,
    ]
    for kind in dict.fromkeys(done["kind"] for done in runs):
        of_kind = [done for done in runs if done["kind"] == kind]
        codes = Counter(done["code"] for done in of_kind)
        shown = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        came = sum(done["came"] for done in of_kind)
        again = sum(len(done["rerun"]) > 1 for done in of_kind)
        held = sum(all(done["checks"].values()) for done in of_kind)
        rows.append(f"| {kind} | {len(of_kind)} | {came} | {shown} | {again} | {held} |")
    held = sum(all(done["checks"].values()) for done in runs)
    came = sum(done["came"] for done in runs)
    return "\n".join([*rows, f"| all | {len(runs)} | {came} | | | {held} |"])


@contextlib.contextmanager
def _place(
    bench: Bench, drawn: Disturbance, folder: Path, rng: random.Random
) -> Iterator[Callable[[], None]]:
    """Copy what a run begins with; yields what gives it more room."""
    _forget(bench.out, drawn.number)
    folder.mkdir()
    template = bench.templates / drawn.form / drawn.earlier
    with contextlib.ExitStack() as stack:
        more_room: Callable[[], None] = lambda: None  # noqa: E731
        if KINDS[drawn.kind].fault == "disk":
            room = room_taken(template) + int(rng.uniform(0, 2) * bench.forms[drawn.form].room)
            more_room = stack.enter_context(small_disk(folder, room))
        shutil.copytree(template, folder, dirs_exist_ok=True)
        yield more_room


def _forget(out: Path, number: int) -> None:
    for path in out.glob(f"{number:04}*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _is_alone(process: Process) -> bool:
    """Return whether all processes of a run are gone, at the latest after a while."""
    until = time.monotonic() + 120
    while process.has_group():
        if time.monotonic() > until:
            process.end()
            return False
        time.sleep(0.05)
    return True
