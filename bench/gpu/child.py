"""The process of one part: `python -m bench.gpu.child PART OUT ...`, started by the driver.

It tells the driver what it finds, one JSON object a line, through a pipe of its own, as libraries
print on all others::

    {"device": NAME, "start_up_seconds": S}   the backend is loaded
    {"begun": CASE}                           should it be ended now, it was in this one
    {"row": {"case": CASE, ...}}              measured; `error` and `out_of_memory` are in the row
    {"left_out": CASE, "why": WORDS}
    {"done": true}                            nothing is left
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from anystar_batch.engine.engines import threads_per_worker
from anystar_batch.network.imports import declare_own, quiet_imports
from anystar_batch.network.model import load_model
from anystar_batch.network.predictor import KerasFactory
from bench.gpu.device import Device
from bench.gpu.sizes import FULL, QUICK

Message = dict[str, Any]

PARTS = ("images", "network", "command", "again", "shell", "training")


def main(arguments: Sequence[str] | None = None) -> None:
    began = time.monotonic()
    options = _parser().parse_args(arguments)
    until = began + options.seconds

    def left() -> float:
        return until - time.monotonic()

    with os.fdopen(options.pipe, "w", buffering=1) as pipe:
        for message in messages(options, left):
            pipe.write(json.dumps(message) + "\n")
        pipe.write('{"done": true}\n')


def messages(options: argparse.Namespace, left: Callable[[], float]) -> Iterator[Message]:
    """Yield what a part finds.

    Parameters
    ----------
    options : Namespace
        Of the command line.
    left : callable
        Seconds left to this part.
    """
    sizes = QUICK if options.quick else FULL
    backend, precision = options.backend, options.precision
    if options.part == "images":
        from bench.gpu import scenes

        scenes.make_all(sizes, options.out)
        return
    if options.part == "shell":
        from bench.gpu import shell

        yield from shell.rows(sizes, options.out, backend, precision, left)
        return
    began, device = time.monotonic(), Device(backend)
    if options.part == "training":
        with quiet_imports(backend):
            import keras  # noqa: F401
        from bench.gpu import training

        yield told(device, began)
        yield from training.rows(sizes, precision, device, left)
        return
    predictor = KerasFactory(precision, backend)(load_model(options.model), threads_per_worker(1))
    yield told(device, began)
    if options.part == "network":
        from bench.gpu import network

        yield from network.rows(sizes, predictor, device, left)
        return
    from bench.gpu import command

    bench = command.Bench(sizes, options.out, predictor, device, precision, left)
    yield from command.bytes_rows(bench, (1,)) if options.part == "again" else command.rows(bench)


def told(device: Device, began: float) -> dict[str, Any]:
    """Return the first message: the backend is loaded."""
    return {
        "device": device.name,
        "start_up_seconds": round(time.monotonic() - began, 2),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.child", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--backend", required=True)
    parser.add_argument("--precision", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--pipe", type=int, required=True, help="file descriptor")
    parser.add_argument("--model", default="anystar-mix")
    parser.add_argument("--quick", action="store_true")
    return parser


if __name__ == "__main__":
    declare_own()
    sys.exit(main())
