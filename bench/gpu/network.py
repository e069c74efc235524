"""The bare network by window: what the command's own predictor takes for one tile, and no more.

A call brings a window of random intensities to the device and every probability back; none is high
enough for distances. Bringing the window alone is timed beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from anystar_batch.geometry import Box
from anystar_batch.network.predictor import Predictor
from anystar_batch.network.slabs import is_out_of_memory
from bench.gpu.device import Clock, Device, repeated
from bench.gpu.sizes import Sizes

Message = dict[str, Any]
"""What a part tells the driver, see `bench.gpu.child`."""


def rows(
    sizes: Sizes,
    predictor: Predictor,
    device: Device,
    left: Callable[[], float],
    clock: Clock = time.perf_counter,
) -> Iterator[Message]:
    """Time every window, ascending; the largest, which the command runs, before time runs out.

    Parameters
    ----------
    sizes : Sizes
    predictor : Predictor
    device : Device
    left : callable
        Seconds left to this part.
    clock : callable

    Yields
    ------
    dict
    """
    waiting, longest, budget = list(sizes.windows), 0.0, left()
    while waiting:
        is_late = left() < budget / 2 and sizes.windows[-1] in waiting
        edge = waiting.pop(-1 if is_late else 0)
        case = f"window {edge}^3"
        if left() < longest:
            yield {"left_out": case, "why": "no time"}
            continue
        yield {"begun": case}
        began = clock()
        try:
            row = window(edge, predictor, device, sizes.seconds, clock)
        except Exception as error:  # noqa: BLE001  (told, and the next window begins)
            row = failure(error)
        longest = max(longest, clock() - began)
        yield {"row": {"case": case, "edge": edge, **row, "peak_device_bytes": device.risen()}}


def window(
    edge: int, predictor: Predictor, device: Device, enough: float, clock: Clock
) -> dict[str, Any]:
    """Time one window.

    Parameters
    ----------
    edge : int
        Voxels along each axis.
    predictor : Predictor
    device : Device
    enough : float
        Seconds.
    clock : callable
    """
    box = Box((0, 0, 0), (edge,) * 3)
    image = np.random.default_rng(0).random(box.shape, np.float32)
    found = repeated(lambda: predictor.find(image, box, box, 2.0), enough, clock)
    brought = repeated(lambda: device.bring(image), enough / 10, clock)
    return {
        "first_seconds": round(found.first, 3),
        "seconds": found.seconds,
        "spread": found.spread,
        "calls": found.calls,
        "copy_seconds": brought.seconds,
        "mvoxels": round(edge**3 / found.seconds / 1e6, 3),
    }


def failure(error: Exception) -> dict[str, Any]:
    """Return what is told of a case that failed: that it does not fit, or an error."""
    if any(e is not None and is_out_of_memory(e) for e in (error, error.__cause__)):
        return {"out_of_memory": True}
    return {"error": f"{type(error).__name__}: {error}"[:600]}
