"""`python -m bench run OUT`: the harness; the other benches are modules of their own."""

from __future__ import annotations

import sys

from bench import run

if __name__ == "__main__":
    if sys.argv[1:2] != ["run"]:
        sys.exit("usage: python -m bench run OUT [options]; see also bench.stars, bench.quality")
    run.main(sys.argv[2:])
