"""The stages between the network and the table, in their order: of a whole run, or of a part."""

from __future__ import annotations

from anystar_batch.archive.labels import create_label
from anystar_batch.archive.storage.files import exists
from anystar_batch.errors import LedgerMismatchError
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.stages import number, paint, pyramid, refine, suppress
from anystar_batch.stages.run import Run


def begin_label(run: Run, outputs: Outputs) -> None:
    """Make the empty label, or go on with the one that is there.

    Raises
    ------
    LedgerMismatchError
        If some of it is painted, and it is gone.
    """
    hidden = outputs.label.hidden_path(run.ledger.fingerprint)
    if run.ledger.entries("paint") and not exists(hidden):
        message = (
            f"{outputs.work} speaks of a half-painted label that is gone ({hidden}); give --restart"
        )
        raise LedgerMismatchError(message)
    run.work.fence.check()
    create_label(outputs.label, run.spec, run.ledger.fingerprint)


def paint_label(run: Run) -> None:
    """Do every stage after the network up to the painted label, or this run's share of them."""
    suppress.suppress_run(run)
    if run.plan.second_look is not None:
        refine.refine_run(run)
        suppress.suppress_run(run, 2)
    number.number_run(run)
    paint.paint_run(run)
    pyramid.pyramid_run(run)
