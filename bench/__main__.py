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
    gpu        what a GPU does, in ten minutes: network, command, training

The other benches are modules: `bench.stars`, `bench.context`, `bench.quality`,
`bench.dimness`, `bench.exports`, `bench.training`; `bench.options` writes `docs/options.md`,
`bench.manual` the manual page.
"""

from __future__ import annotations

import importlib
import sys

PARTS = {
    "blocks": "blocks",
    "chaos": "chaos",
    "check": "check",
    "giant": "giant",
    "gpu": "gpu.driver",
    "pareto": "pareto",
    "peers": "peers",
    "run": "run",
    "scaling": "scaling",
    "stardist": "stardist_big",
    "tables": "tables",
}
"""Module of every part: each loads what it needs and no more, as a lent machine has little."""

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: python -m bench {'|'.join(PARTS)} OUT [options]\n\n{__doc__}")
    importlib.import_module(f"bench.{PARTS[sys.argv[1]]}").main(sys.argv[2:])
