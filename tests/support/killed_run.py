"""Segment a phantom in a process that kills itself at a chosen moment; run by the law tests.

usage: killed_run.py IMAGE STAGE AFTER RUN

RUN is one of truth, refined, moved, kept, local, inside, real, part:I/N, units:I/N@SECONDS.

AFTER is the block of the stage whose end is the last thing that happens; 0 is the stage's start.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from anystar_batch.events import BlockDone, StageStarted
from anystar_batch.parsing import parse_part
from anystar_batch.pipeline import part_units, segment
from anystar_batch.pipeline.part import segment_part
from tests.support.dim_phantom import Peaks, dim_config
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
    RUNS[network.partition(":")[0]](image, network, listen)


def refined(image, network, listen):
    config = refined_config(image, (40, 48, 56), keep_candidates=network == "kept")
    if network == "moved":
        config = replace(config, result=replace(config.result, **MOVED))
    model = refined_model(Path(image).parent / "refiner")
    segment.segment(config, listen, factory=law_factory(), model=model)


def local(image, _network, listen):
    model = refined_model(Path(image).parent / "refiner")
    segment.segment(dim_config(image, (40, 48, 56)), listen, factory=Peaks(), model=model)


def real(image, _network, listen):
    segment.segment(real_config(image, (16, 40, 56)), listen)


def one_part(image, network, listen):
    kind, _, text = network.partition(":")
    if kind == "units":
        text, _, grace = text.partition("@")
        part_units.GRACE, part_units.LOOK, part_units.PAUSE = float(grace), 0.5, 0.1
        config = refined_config(image, (40, 48, 56), part=parse_part(text))
        model = refined_model(Path(image).parent / "refiner")
        segment_part(config, listen, factory=law_factory(), model=model)
        return
    config = law_config(image, (40, 48, 56), part=parse_part(text))
    home, _, name = image.rpartition("/")
    config = replace(config, home=home, stem=name.removesuffix(".ome.zarr"))
    segment_part(config, listen, factory=law_factory(), model=law_model())


def inside(image, _network, listen):
    config = inside_config(image, (16, 24, 20))
    segment.segment(config, listen, factory=inside_factory(), model=inside_model())


def truth(image, _network, listen):
    config = law_config(image, (40, 48, 56))
    segment.segment(config, listen, factory=law_factory(), model=law_model())


RUNS = {
    "truth": truth,
    "refined": refined,
    "moved": refined,
    "kept": refined,
    "local": local,
    "real": real,
    "part": one_part,
    "units": one_part,
    "inside": inside,
}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
