"""The harness: `python -m bench run|stardist|scaling|blocks OUT`.

    run        the whole command against the bare network
    stardist   the whole command against StarDist's own
    scaling    does a voxel cost the same in a large volume?
    blocks     what a block costs the engine

The other benches are modules: `bench.stars`, `bench.context`, `bench.quality`, `bench.training`.
"""

from __future__ import annotations

import sys

from bench import blocks, run, scaling, stardist_big

PARTS = {
    "blocks": blocks.main,
    "run": run.main,
    "scaling": scaling.main,
    "stardist": stardist_big.main,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: python -m bench {'|'.join(PARTS)} OUT [options]\n\n{__doc__}")
    PARTS[sys.argv[1]](sys.argv[2:])
