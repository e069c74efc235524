"""What the backend and NVIDIA's driver tell of the device, and how long a call on it takes."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import platform
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from numpy.typing import NDArray

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of calls.

    Parameters
    ----------
    first : float
        Of the first one, which compiles.
    seconds : float
        Median of the others; not a number if there was no time for one.
    spread : (float, float)
        Least and largest of the others.
    calls : int
        Others.
    """

    first: float
    seconds: float
    spread: tuple[float, float]
    calls: int


def repeated(
    call: Callable[[], object],
    enough: float,
    clock: Clock = time.perf_counter,
    most: int = 20,
) -> Timed:
    """Time a call that returns when the device is done: the first apart, then some more.

    Parameters
    ----------
    call : callable
    enough : float
        Seconds after which it is not called again; once more it is called at least.
    clock : callable
    most : int
        Calls after the first.
    """
    began = clock()
    call()
    first, spent = clock() - began, []
    while not spent or (sum(spent) < enough and len(spent) < most):
        began = clock()
        call()
        spent.append(clock() - began)
    return Timed(first, statistics.median(spent), (min(spent), max(spent)), len(spent))


@dataclass(slots=True)
class Device:
    """What a backend computes on; loads the backend when it is asked.

    Parameters
    ----------
    backend : {"jax", "tensorflow"}
    """

    backend: str
    _before: int = 0

    @property
    def name(self) -> str:
        """What it is: `gpu NVIDIA H200`, `cpu x86_64`."""
        if self.backend == "jax":
            first = importlib.import_module("jax").devices()[0]
            kind = platform.machine() if first.platform == "cpu" else first.device_kind
            return f"{first.platform} {kind}"
        config = importlib.import_module("tensorflow").config
        for gpu in config.list_physical_devices("GPU"):
            told = config.experimental.get_device_details(gpu)
            return f"gpu {told.get('device_name', gpu.name)}"
        return f"cpu {platform.machine()}"

    def bring(self, values: NDArray[Any]) -> None:
        """Bring an array there; return when it is there."""
        tensor = importlib.import_module("keras").ops.convert_to_tensor(values)
        if self.backend == "jax":
            tensor.block_until_ready()
        else:
            tensor[(0,) * len(tensor.shape)].numpy()

    def risen(self) -> int | None:
        """Return the most memory in use since this was asked last, bytes, where it is told.

        JAX tells the peak of the whole process: where it has not risen, None.
        """
        if self.backend == "jax":
            told = importlib.import_module("jax").devices()[0].memory_stats() or {}
            before, self._before = self._before, int(told.get("peak_bytes_in_use", 0))
            return self._before if self._before > before else None
        config = importlib.import_module("tensorflow").config
        if not config.list_physical_devices("GPU"):
            return None
        peak = int(config.experimental.get_memory_info("GPU:0")["peak"])
        config.experimental.reset_memory_stats("GPU:0")
        return peak

    def forget(self) -> None:
        """Give up what a network that is used no more has left there."""
        importlib.import_module("keras").backend.clear_session()
        gc.collect()


@dataclass(slots=True)
class Utilisation:
    """How busy the first GPU is, asked of nvidia-smi five times a second while this is open.

    Its percentage is the share of a short time in which anything at all ran there.
    """

    _told: list[tuple[float, float]] = field(default_factory=list)
    _tool: subprocess.Popen[str] | None = None
    _listener: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Begin to ask, if the tool is there."""
        tool = shutil.which("nvidia-smi")
        if tool is None:
            return self
        words = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            self._tool = subprocess.Popen(
                [*words, "--id=0", "--loop-ms=200"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError:
            return self
        self._listener = threading.Thread(target=self._listen, args=(self._tool,), daemon=True)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        if self._tool is not None and self._listener is not None:
            self._tool.kill()
            self._tool.wait()
            self._listener.join()

    def _listen(self, tool: subprocess.Popen[str]) -> None:
        with contextlib.closing(tool.stdout or io.StringIO()) as told:
            for line in told:
                with contextlib.suppress(ValueError):  # `[N/A]`: this GPU does not tell
                    self._told.append((time.perf_counter(), float(line)))

    def mean(self, began: float, ended: float) -> float | None:
        """Return the mean between two times of `time.perf_counter`, percent; None: not told."""
        values = [percent for at, percent in list(self._told) if began <= at <= ended]
        return round(statistics.fmean(values), 1) if values else None
