"""A disturbed process: how it is started, met at the moment of its disturbance, and waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil

from tests.support import faults

PATIENCE = 600.0
"""Seconds that a process may take before it counts as hanging."""


class Process:
    """A command in a process group of its own, forked from this process."""

    def __init__(
        self, words: list[str], phantom: faults.Phantom, fault: faults.Fault, log: Path
    ) -> None:
        self.counter = faults.Counter()
        self.log = log
        self.code: int | None = None
        self.is_stopped = False
        self.pid = faults.fork(faults.command, log, words, phantom, fault, self.counter)

    def meet(self, after: float | None) -> bool:
        """Wait until it has stopped itself, or for so long; return whether it has not ended."""
        until = time.monotonic() + (PATIENCE if after is None else after)
        while self._poll() and not self.is_stopped and time.monotonic() < until:
            time.sleep(0.002)
        return self.code is None

    def wait(self) -> int:
        """Let it go on, wait for its end, and return its exit code; -1000 if it hangs."""
        if self.code is None:
            self.signal(signal.SIGCONT)
        until = time.monotonic() + PATIENCE
        while self._poll() and time.monotonic() < until:
            time.sleep(0.005)
        if self.code is None:
            self.end()
            self.code = -1000
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal to it alone."""
        self.is_stopped = False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill it and all its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.pid).children(recursive=True)
            return [p for p in below if any("spawn_main" in word for word in p.cmdline())]
        return []

    def has_group(self) -> bool:
        """Return whether any process of its session is left."""
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(process.pid) == self.pid and process.status() != "zombie":
                    return True
        return False

    def errors(self) -> list[str]:
        """Return the lines in which it has said what went wrong."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [t for t in text.splitlines() if t.startswith("error: ") or "Traceback" in t]

    def _poll(self) -> bool:
        """Look what has become of it; return whether it has not ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                self.is_stopped = True
            elif pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is None
