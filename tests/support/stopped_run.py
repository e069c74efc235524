"""Segment small volumes in a process that stops itself (SIGSTOP) in each of them; run by tests.

usage: stopped_run.py WHERE=IMAGE...

WHERE is `find` (while a tile is in the network), `paint` (after the stage's first block), `publish`
or `finish` (right before). Whoever continues the process gets a line with what became of the run.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from anystar_batch.archive.storage import lock
from anystar_batch.errors import AnyStarBatchError
from anystar_batch.events import BlockDone
from anystar_batch.pipeline import segment
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor

INTERVAL = 0.05
"""Seconds between signs of life: a holder stopped for a second counts as dead."""


def stop(*_):
    os.kill(os.getpid(), signal.SIGSTOP)


class Stopping:
    """Stops the process while it has the second tile."""

    def __init__(self):
        self.tiles = 0

    def __call__(self, *_):
        return self

    def find(self, *arguments):
        self.tiles += 1
        if self.tiles == 2:
            stop()
        return TruthPredictor(tiny_volume.truth()).find(*arguments)


def run(where, image):
    def listen(event):
        if where == "paint" and isinstance(event, BlockDone) and event.stage == "paint":
            stop()

    def stop_first(function):
        return lambda *arguments: (stop(), function(*arguments))[1]

    publish, finish = segment.publish, segment.finish
    if where == "publish":
        segment.publish = stop_first(publish)
    if where == "finish":
        segment.finish = stop_first(finish)
    try:
        tiny_volume.segment(image, listen, factory=Stopping() if where == "find" else None)
    except AnyStarBatchError as error:
        return f"{type(error).__name__}: {error}"
    finally:
        segment.publish, segment.finish = publish, finish
    return "done"


if __name__ == "__main__":
    lock.INTERVAL = INTERVAL
    for argument in sys.argv[1:]:
        sys.stdout.write(f"{run(*argument.split('=', 1))}\n")
        sys.stdout.flush()
