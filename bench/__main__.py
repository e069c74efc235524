"""`python -m bench run OUT`: the harness; `stardist`: against StarDist's own; `scaling`: over size.

The other benches are modules: `bench.stars`, `bench.context`, `bench.quality`, `bench.training`.
"""

from __future__ import annotations

import sys

from bench import run, scaling, stardist_big

PARTS = {"run": run.main, "stardist": stardist_big.main, "scaling": scaling.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PARTS:
        sys.exit(f"usage: python -m bench {'|'.join(PARTS)} OUT [options]\n\n{__doc__}")
    PARTS[sys.argv[1]](sys.argv[2:])
