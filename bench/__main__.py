"""The harness: `python -m bench PART OUT`.

    run        the whole command against the bare network
    check      what has become slower since `bench/baseline.json`
    pareto     accuracy against speed of networks
    peers      our joining against that of others, fed by our network
    stardist   the whole command against StarDist's own
    scaling    does a voxel cost the same in a large volume?
    blocks     what a block costs the engine
    tables     is a table of ten million rows written in bounded memory?
    chaos      disturbed runs: does anything get lost?
    giant      20 gigavoxels with the real network, killed twice

The other benches are modules: `bench.stars`, `bench.context`, `bench.quality`,
`bench.dimness`, `bench.exports`, `bench.training`; `bench.options` writes `docs/options.md`,
`bench.manual` the manual page.
"""

from __future__ import annotations

import sys

from bench import blocks, chaos, check, giant, pareto, peers, run, scaling, stardist_big, tables

PARTS = {
    "blocks": blocks.main,
    "chaos": chaos.main,
    "check": check.main,
    "giant": giant.main,
    "pareto": pareto.main,
    "peers": peers.main,
    "run": run.main,
    "scaling": scaling.main,
    "stardist": stardist_big.main,
    "tables": tables.main,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: python -m bench {'|'.join(PARTS)} OUT [options]\n\n{__doc__}")
    PARTS[sys.argv[1]](sys.argv[2:])
