"""What every worker process of a local cluster does before it takes work; Dask calls it.

Ctrl-C reaches all processes of a terminal. The run's own process answers it and closes the cluster;
a worker that answered it too would only print where it was.
"""

from __future__ import annotations

import signal


def dask_setup(_worker: object) -> None:
    """Leave Ctrl-C to the run's own process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
