"""What a user asks of a sweep: checked once, here, and trusted below."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.discovery import is_zarr
from anystar_batch.archive.nodes import local_path
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ConfigError

LOCK = "anystar-batch-sweep"
"""How the name of a root's lock file begins."""


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """One sweep.

    Parameters
    ----------
    root : str
        Directory below which images lie.
    wanted : SegmentConfig
        What is wanted of every image; its `image`, `home` and `stem` are not looked at.
    pattern : str
        Names of the directories that are images.
    settle : float
        Seconds without a new file after which an image is complete.
    """

    root: str
    wanted: SegmentConfig
    pattern: str = "*.ome.zarr"
    settle: float = 900.0

    def __post_init__(self) -> None:
        root = os.path.abspath(local_path(self.root))  # noqa: PTH100  (keeps links)
        object.__setattr__(self, "root", root)
        if not Path(root).is_dir():
            message = f"{root}: no directory; give the one below which the images lie"
            raise ConfigError(message)
        if is_zarr(root):
            message = f"{root}: a Zarr itself, not a directory of images; use `segment`"
            raise ConfigError(message)
        output = self.wanted.output
        if output is not None and is_remote(output):
            message = (
                f"--output: {output}: a sweep writes to directories of this machine only; for "
                "object stores use `segment`"
            )
            raise ConfigError(message)
        if not self.pattern or "/" in self.pattern:
            message = f"--pattern: got {self.pattern!r}; expected one of names, such as *.ome.zarr"
            raise ConfigError(message)
        if not 0 <= self.settle < math.inf:
            message = f"--settle: got {self.settle:g} s; expected none or some"
            raise ConfigError(message)
        if self.wanted.stats is not None or self.wanted.run.restart:
            message = "a sweep names its tables itself, and throws no unfinished run away"
            raise ConfigError(message)

    @property
    def lock(self) -> str:
        """The root's lock file: beside the results, so that `--output` leaves the root alone."""
        if self.wanted.output is None:
            return f"{self.root}/{LOCK}.lock"
        digest = hashlib.sha256(self.root.encode()).hexdigest()[:8]
        return f"{local_path(self.wanted.output)}/{LOCK}.{digest}.lock"
