"""Segment a phantom in a process that kills itself at a chosen moment; run by the law tests.

usage: killed_run.py IMAGE STAGE AFTER {truth,refined,moved,local,real}

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
from tests.support.dim_phantom import Peaks, dim_config
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
    chosen = {"refined": refined, "moved": refined, "local": local, "real": real, "truth": truth}
    chosen[network](image, listen, network)


def refined(image, listen, network):
    config = refined_config(image, (40, 48, 56))
    if network == "moved":
        config = replace(config, result=replace(config.result, **MOVED))
    model = refined_model(Path(image).parent / "refiner")
    segment.segment(config, listen, factory=law_factory(), model=model)


def local(image, listen, _):
    model = refined_model(Path(image).parent / "refiner")
    segment.segment(dim_config(image, (40, 48, 56)), listen, factory=Peaks(), model=model)


def real(image, listen, _):
    segment.segment(real_config(image, (16, 40, 56)), listen)


def truth(image, listen, _):
    config = law_config(image, (40, 48, 56))
    segment.segment(config, listen, factory=law_factory(), model=law_model())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
