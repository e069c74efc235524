"""Segment a phantom in a process that kills itself at a chosen moment; run by the law tests.

usage: killed_run.py IMAGE STAGE AFTER {truth,refined,moved,inside,real}

AFTER is the block of the stage whose end is the last thing that happens; 0 is the stage's start.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from anystar_batch.events import BlockDone, StageStarted
from anystar_batch.pipeline import segment
from tests.support.inside_phantom import inside_config, inside_factory, inside_model
from tests.support.law_phantom import (
    MOVED,
    law_config,
    law_factory,
    law_model,
    refined_config,
    refined_model,
)
from tests.support.real_model import real_config


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def main(image, stage, after, network):
    seen = 0

    def listen(event):
        nonlocal seen
        if isinstance(event, BlockDone) and event.stage == stage:
            seen += 1
            if seen == after:
                die()
        if isinstance(event, StageStarted) and event.stage == stage and after == 0:
            die()

    if stage == "publish":
        segment.publish = lambda *_: die()
    if stage == "finish":
        segment.finish = lambda *_: die()
    config, options = wanted(image, network)
    segment.segment(config, listen, **options)


def wanted(image, network):
    """What is run, and with which network."""
    if network in ("refined", "moved"):
        config = refined_config(image, (40, 48, 56))
        if network == "moved":
            config = replace(config, result=replace(config.result, **MOVED))
        model = refined_model(Path(image).parent / "refiner")
        return config, {"factory": law_factory(), "model": model}
    if network == "inside":
        config = inside_config(image, (16, 24, 20))
        return config, {"factory": inside_factory(), "model": inside_model()}
    if network == "real":
        return real_config(image, (16, 40, 56)), {}
    config = law_config(image, (40, 48, 56))
    return config, {"factory": law_factory(), "model": law_model()}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
