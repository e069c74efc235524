"""The errors raised on purpose: each message says what, found, expected, cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def shorten(found: object, most: int = 160) -> str:
    """Return what was found as text for a message: in one line, its middle left out if long.

    Parameters
    ----------
    found : object
        A value from somebody's file, or somebody's error.
    most : int
        Characters.
    """
    text = " ".join(str(found).split())
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """Return the end of a message that names the nearest valid choice; nothing if none is near.

    Parameters
    ----------
    found : str
        What was given.
    known : iterable of str
        What would have been valid.

    Examples
    --------
    >>> did_you_mean("Flaot32", ["auto", "float32"])
    "; did you mean 'float32'?"
    >>> did_you_mean("x", ["auto", "float32"])
    ''
    """
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(found.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


class AnyStarBatchError(Exception):
    """Base of every error raised on purpose; anything else is a bug."""


class ImageError(AnyStarBatchError, ValueError):
    """The input image cannot be used as it is."""


class UnsuitedError(ImageError):
    """An image that is not for this tool: one plane, values that are no numbers, another version.

    Nothing of it is damaged, and nothing would be better tomorrow. Among many images it is told
    and left out; named by a user, it is a mistake like any other.
    """


class NoImageError(ImageError):
    """There is no OME-Zarr image at a place, whatever its name says."""


class ForbiddenError(ImageError):
    """The metadata may not be read by this user."""


class DataError(ImageError):
    """Voxels that should be there cannot be read; once they can, a rerun continues."""


class ConfigError(AnyStarBatchError, ValueError):
    """An option has a value that cannot be used."""


class ModelError(AnyStarBatchError, FileNotFoundError):
    """A model folder is missing, incomplete or not a StarDist-3D model."""


class RaysError(AnyStarBatchError, ValueError):
    """Rays whose faces do not partition the directions cleanly."""


class OutputExistsError(AnyStarBatchError, FileExistsError):
    """A published result has the name that this run would take."""


class OutputError(AnyStarBatchError, OSError):
    """The result cannot be written where it was asked for."""

    def __str__(self) -> str:
        # An OSError with a number shows it; the message alone is for the user.
        return self.strerror or super().__str__()


class ViewerError(AnyStarBatchError):
    """Images cannot be shown here: the viewer is not installed, or there is no screen."""


class LedgerMismatchError(AnyStarBatchError):
    """A work directory belongs to another image, model or configuration."""


class ImageChangedError(LedgerMismatchError):
    """The image is no longer the one that the run has begun with."""


class LockedError(AnyStarBatchError):
    """Another run holds the lock."""


class LostLockError(LockedError):
    """The run was taken for dead: another has taken its lock over, and it may not go on."""


class OutOfTimeError(AnyStarBatchError):
    """The run stopped cleanly at its time limit; a rerun continues."""


class WorkersError(AnyStarBatchError):
    """Worker processes could not be started, or all are gone; the same command may succeed."""


class BlockError(AnyStarBatchError):
    """A block failed; raised `from` the cause.

    Parameters
    ----------
    stage : str
        Stage in which the block failed.
    block : str
        Name of the block, e.g. `1.3.2`.
    reason : str
        One line of the cause.
    """

    def __init__(self, stage: str, block: str, reason: str) -> None:
        super().__init__(stage, block, reason)
        self.stage = stage
        self.block = block
        self.reason = reason

    def __str__(self) -> str:
        return f"stage {self.stage}, block {self.block}: {self.reason}"
