"""A part's share of what comes after the network: judge, look again, number, paint, coarsen.

Parts that find all tiles done go on: each does the same blocks of every stage, and waits after each
until the others have done theirs, as the next stage reads what lies across blocks. What is decided
over the whole volume (the few candidates in doubt, the numbers) each decides for itself: it is
little work, and the same answer. A part waits only for parts that are at work; if nobody is, it
stops, and the run that finishes does what is left.

So that no block has two owners, all have the blocks that the first of them cut::

    embryo.anystar.work/parts/units.json      number of parts, shape of a block
"""

from __future__ import annotations

import json
import time
from dataclasses import replace

from anystar_batch.archive.storage.atomic_write import write_json_atomic
from anystar_batch.archive.storage.files import read_bytes, statuses
from anystar_batch.archive.storage.lock import hold_list
from anystar_batch.errors import ConfigError, OutOfTimeError
from anystar_batch.events import Note
from anystar_batch.geometry import as_zyx
from anystar_batch.pipeline.label_stages import begin_label, paint_label
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.part_ledgers import (
    are_at_work,
    ledger_name,
    ledger_paths,
)
from anystar_batch.stages import image_identity
from anystar_batch.stages.run import Run

UNITS = "units.json"
"""File that says how what comes after the network is shared."""

SHARE = "share"
"""Stage in a part's ledger: of which other stages it has done its share."""

PAUSE = 2.0
"""Seconds between two looks at what others have done."""

LOOK = 15.0
"""Seconds between two looks at whether others are at work."""

GRACE = 60.0
"""Seconds for which a part waits for others that may be about to begin."""


class LeftToOthersError(Exception):
    """What a part waits for is nobody's: the run that finishes does it."""


class Together:
    """The share of one part, and its waiting for the others (`stages.run.Share`).

    Parameters
    ----------
    outputs : Outputs
    part : (index, count)
        Whose lock is held.
    run : Run
        With this part's own ledger.
    parts : dict
        What the fingerprint was made of.
    """

    def __init__(
        self, outputs: Outputs, part: tuple[int, int], run: Run, parts: dict[str, object]
    ) -> None:
        self._outputs, self._part, self._run, self._parts = outputs, part, run, parts
        self._sizes: dict[str, int] = {}
        self._began = time.monotonic()

    def has(self, number: int, count: int) -> bool:
        """Return whether a block is this part's: side by side, so that parts share few faces."""
        index, parts = self._part
        return (index - 1) * count // parts <= number < index * count // parts

    def gather(self, stage: str, pieces: int) -> None:
        """Wait until all pieces of a stage are done.

        Parameters
        ----------
        stage : str
        pieces : int
            Tiles or write units of all blocks.

        Raises
        ------
        LeftToOthersError
            If nobody at work does what is missing.
        OutOfTimeError
            If the time is up before.
        """
        ledger, (index, count) = self._run.ledger, self._part
        done, shares = ledger.entries(stage), ledger.entries(SHARE)
        ledger.done(SHARE, {_share_key(stage, index): {}})
        next_look, told = time.monotonic(), False
        while True:
            is_late = time.monotonic() - self._began > GRACE and time.monotonic() >= next_look
            # Asked before their ledgers are read: who has ended meanwhile has noted all. Others who
            # wait have done their share: nobody waits for them.
            missing = [n for n in range(1, count + 1) if _share_key(stage, n) not in shares]
            is_nobody = is_late and not are_at_work(self._outputs, [(n, count) for n in missing])
            if is_late:
                next_look = time.monotonic() + LOOK
            self.learn()
            if len(done) >= pieces:
                return
            if is_nobody:
                raise LeftToOthersError(stage)
            if not told:
                self._run.on_event(Note(f"waiting for other parts: {stage}"))
                told = True
            self._check()
            time.sleep(PAUSE)

    def learn(self) -> None:
        """Take in what the ledgers of others say, of those that have grown."""
        own = f"{self._outputs.parts}/{ledger_name(self._part)}"
        paths = [path for path in ledger_paths(self._outputs) if path != own]
        for path, status in zip(paths, statuses(paths), strict=True):
            if status is not None and self._sizes.get(path) != status[0]:
                self._run.ledger.learn(path, self._parts)
                self._sizes[path] = status[0]

    def _check(self) -> None:
        """Raise if there is no use in waiting: the lock is lost, or the time is up."""
        self._run.work.fence.check()
        stop = self._run.engine.stop
        if stop.is_due:
            message = f"stopped {stop.why} while waiting for other parts; the same command goes on"
            raise OutOfTimeError(message)


def _share_key(stage: str, index: int) -> str:
    """Key of the note that a part has done its share of a stage."""
    return f"{stage}/{index}"


def do_units(run: Run, together: Together, outputs: Outputs, part: tuple[int, int]) -> bool:
    """Do a part's share of all stages from suppression to the pyramid.

    Parameters
    ----------
    run : Run
        All of whose tiles are done; with this part's own ledger.
    together : Together
    outputs : Outputs
    part : (index, count)

    Returns
    -------
    bool
        Whether the whole label is painted; else something was left to nobody at work.

    Raises
    ------
    ConfigError
        If the others are another number.
    LedgerMismatchError
        If the label that parts have begun to paint is gone.
    AnyStarBatchError
        As of the stages.
    """
    run.work.fence.check()
    together.learn()
    with hold_list(outputs.parts):
        agreed = _agreed(outputs, part, run)
        begin_label(run, outputs)
    image_identity.check_content(run)
    try:
        paint_label(replace(run, block_shape=agreed, share=together))
    except LeftToOthersError:
        return False
    finally:
        image_identity.check_content(run)
    return True


def _agreed(outputs: Outputs, part: tuple[int, int], run: Run) -> tuple[int, int, int]:
    """Return the shape of a block that all parts take: that of the first one that asks."""
    path = f"{outputs.parts}/{UNITS}"
    text = read_bytes(path)
    if text is None:
        run.work.fence.check()
        write_json_atomic(path, {"parts": part[1], "block_shape": list(run.block_shape)})
        return run.block_shape
    said = json.loads(text)
    if said["parts"] != part[1]:
        message = (
            f"--part {part[0]}/{part[1]}: all tiles are done, and what comes after them is shared "
            f"by {said['parts']} parts; give I/{said['parts']}, or leave --part out to finish"
        )
        raise ConfigError(message)
    return as_zyx(said["block_shape"])
