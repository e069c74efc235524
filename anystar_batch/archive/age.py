"""The age of an image's files: whether it is still being written.

An image counts as settled when nothing in it has changed for a while.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anystar_batch.archive.discovery import is_system_folder
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.storage.zip_index import split
from anystar_batch.errors import ForbiddenError, ImageError


@dataclass(frozen=True, slots=True)
class Settling:
    """What counts as still being written.

    Parameters
    ----------
    seconds : float
        A file is young for so long after it was written.
    offset : float
        Seconds by which the clock of the file system is ahead of ours.

    Notes
    -----
    A time in the future is no reason to wait for it: a file is young while its time is within
    `seconds` of now on either side.
    """

    seconds: float
    offset: float = 0.0

    def is_young(self, written: float) -> bool:
        """Return whether a file of this time (seconds) is young."""
        return abs(time.time() + self.offset - written) < self.seconds


def newest_file(source: ImageSource, settling: Settling) -> float | None:
    """Return when the newest file of an image's levels was written, seconds; None if one is young.

    The first young file ends the search. Of an image in a zip file that is the zip file.

    Parameters
    ----------
    source : ImageSource
        The image.
    settling : Settling

    Raises
    ------
    ImageError
        If a directory of it cannot be read; ForbiddenError if this user may not.
    """
    zipped = split(source.path)
    if zipped is not None:
        written = Path(zipped[0]).stat().st_mtime
        return None if settling.is_young(written) else written
    newest = 0.0
    for level in source.levels:
        for written in _file_times(Path(source.path, level.path)):
            if settling.is_young(written):
                return None
            newest = max(newest, written)
    return newest


def is_any_young(path: str | Path, settling: Settling) -> bool:
    """Return whether any file or directory of what is no image yet is young; labels apart.

    Parameters
    ----------
    path : path
        A directory, or a zip file; where there is none, nothing is young.
    settling : Settling

    Raises
    ------
    ImageError
        If a directory of it cannot be read.
    """
    try:
        own = Path(path).stat().st_mtime
    except OSError:
        return False
    return settling.is_young(own) or (
        Path(path).is_dir()
        and any(settling.is_young(written) for written in _file_times(Path(path), but="labels"))
    )


def _file_times(folder: Path, but: str | None = None) -> Iterator[float]:
    """Times of the files below a directory, seconds; of a directory its files come first."""
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # a writer renames its temporary files
                            yield entry.stat().st_mtime
                    elif entry.name != but and not is_system_folder(entry.name):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"{error.filename}: cannot be read: {error.strerror}"
            kind = ForbiddenError if isinstance(error, PermissionError) else ImageError
            raise kind(message) from error
