"""Review a result: write the page on which a person says what is right; take the answers.

::

    image, label, table -> page -> a person -> answers (JSON) -> error rate, in files and in words
                                                              -> a label to learn from

Nothing of the run is changed: what a review makes lies beside it, and is about the very label whose
fingerprint it names.
"""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from anystar_batch.address import absolute, absolute_place, is_read_only, parent
from anystar_batch.archive.ngff import JSON
from anystar_batch.archive.nodes import read_object
from anystar_batch.archive.storage.atomic_write import (
    move_atomic,
    write_bytes_atomic,
    write_json_atomic,
)
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import at_hand, exists, read_bytes
from anystar_batch.archive.storage.lock import hold
from anystar_batch.errors import ConfigError, ImageError, OutputError
from anystar_batch.events import BlockDone, Listener, Note, StageStarted, ignore, timed_stage
from anystar_batch.measure.review import KINDS, MOST, Answers, judge, parse_answers
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.publish import review_of
from anystar_batch.pipeline.result import Result, find_result
from anystar_batch.pipeline.training_set import write_training_set
from anystar_batch.report.findings import gather
from anystar_batch.report.page import page
from anystar_batch.report.review_page import Review, review_page
from anystar_batch.report.review_sample import Selection, each, select
from anystar_batch.report.views import Volume

MOST_BYTES = 2**26
"""Largest file of answers that is read."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReviewConfig:
    """What is reviewed.

    Parameters
    ----------
    image : str
        Path or address of the image.
    label : str
        Name of its label.
    output : str or None
        Directory to which `segment --output` wrote it.
    count, worst : int
        Instances of the random sample, and of the list that begins with the worst.
    seed : int
        Of the sample.
    page : str or None
        Where the page goes; None is beside the table.
    """

    image: str
    label: str = "anystar"
    output: str | None = None
    count: int = 100
    worst: int = 50
    seed: int = 0
    page: str | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("count", self.count, 1), ("worst", self.worst, 0)):
            if not least <= value <= MOST:
                message = f"--{name}: got {value}; expected {least} to {MOST}"
                raise ConfigError(message)
        if not 0 <= self.seed < 2**53:  # a number that JavaScript has, too
            message = f"--seed: got {self.seed}; expected 0 or more, below 2^53"
            raise ConfigError(message)


@dataclass(frozen=True, slots=True)
class PageWritten:
    """A page that waits for a person.

    Parameters
    ----------
    page : str
        Its path.
    label : str
        Path of the label.
    instances, sample, worst : int
        All, and those on the page.
    then : str
        The command that takes the answers.
    """

    page: str
    label: str
    instances: int
    sample: int
    worst: int
    then: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)


def write_page(config: ReviewConfig, listen: Listener = ignore) -> PageWritten:
    """Write the page; nothing else is changed.

    Parameters
    ----------
    config : ReviewConfig
    listen : callable
        Told of every instance that is drawn.

    Raises
    ------
    ImageError
        If there is no image, its label is not ours, has no instances, or its table is missing.
    ConfigError
        If there is no such label.
    OutputError
        If the page cannot be written.
    DataError
        If stored voxels cannot be read.
    """
    result = find_result(config.image, config.label, config.output)
    outputs, label = result.outputs, result.outputs.label
    path = absolute(config.page or f"{outputs.folder}/{outputs.base}.review.html")
    if is_read_only(path):
        message = f"{path}: a web server takes no page; give --page FILE to write it elsewhere"
        raise OutputError(message)
    selection = _select(result, config.count, config.worst, config.seed)
    if not selection.instances:
        message = f"{label.path}: the label has no instances; expected at least one to review"
        raise ImageError(message)
    words = ["anystar-batch", "review", config.image]
    words += ["--label", config.label] if config.label != "anystar" else []
    words += ["--output", config.output] if config.output is not None else []
    then = f"{shlex.join(words)} --answers {shlex.quote(f'{outputs.base}.answers.json')}"
    review = Review(
        title=outputs.base,
        image=label.image.rpartition("/")[2],
        label=label.label_name,
        fingerprint=result.fingerprint,
        seed=config.seed,
        count=config.count,
        worst=config.worst,
        file=f"{outputs.base}.answers.json",
        then=then,
    )
    sample, worst = (len(each(rows)) for rows in (selection.sample, selection.worst))
    volume = Volume(result.source, label.path, result.channel, result.scale_um)
    with timed_stage(listen, StageStarted("review", sample + worst)):
        document = review_page(
            review, volume, selection, lambda name: listen(BlockDone("review", name, 0.0))
        )
    write_bytes_atomic(path, document.encode("utf-8"))
    return PageWritten(path, label.path, selection.instances, sample, worst, then)


def take_answers(config: ReviewConfig, path: str, listen: Listener = ignore) -> dict[str, Any]:
    """Say what the answers come to; keep it beside the label; write what the trainer learns from.

    Parameters
    ----------
    config : ReviewConfig
        Which image and label; seed and counts are those of the answers.
    path : str
        The file that the page saved.
    listen : callable
        Told of a report that could not be made anew.

    Returns
    -------
    dict
        JSON-able: what `measure.review.judge` returns and where things are.

    Raises
    ------
    ConfigError
        If the file is no file of answers, or its answers are of another label.
    LockedError
        If a run holds the results.
    ImageError, OutputError, DataError
        As `write_page`.
    """
    result = find_result(config.image, config.label, config.output)
    outputs, label = result.outputs, result.outputs.label
    answers = _read_answers(path)
    if answers.fingerprint != result.fingerprint:
        message = (
            f"--answers: {path} has answers to another label (fingerprint "
            f"{answers.fingerprint[:12]}); {label.path} has {result.fingerprint[:12]}: give the "
            "image of that page, or make a page of this label: anystar-batch review"
        )
        raise ConfigError(message)
    selection = _select(result, answers.count, answers.worst, answers.seed)
    rows = [*each(selection.sample), *each(selection.worst)]
    lost = sorted(set(answers.answers) - {int(row["label"]) for row in rows})
    if lost:
        message = (
            f"--answers: {path} has an answer to instance {lost[0]}, which the page of seed "
            f"{answers.seed}, {answers.count} and {answers.worst} instances does not show; "
            "expected the file as the page has saved it"
        )
        raise ConfigError(message)
    said = judge((int(row["label"]) for row in each(selection.sample)), answers.answers)
    document = {
        "fingerprint": result.fingerprint,
        "image": label.image,
        "label": label.path,
        "seed": answers.seed,
        "count": answers.count,
        "worst": answers.worst,
        "instances": selection.instances,
        **said,
        "answers": [
            {"label": one.label, "answer": one.kind, "missed": one.missed}
            for one in sorted(answers.answers.values(), key=lambda one: one.label)
        ],
    }
    rows = [row for row in rows if int(row["label"]) in answers.answers]
    with _held(outputs) as fence:
        made = write_training_set(result, rows, answers.answers, fence)
        fence.check()
        _keep(outputs, document)
        _renew_report(outputs, result.fingerprint, fence, listen)
    return {
        **{k: v for k, v in document.items() if k != "answers"},
        "review": outputs.review,
        "training_set": None if made is None else asdict(made),
    }


def _select(result: Result, count: int, worst: int, seed: int) -> Selection:
    """Choose instances, of the table that belongs to the label."""
    with at_hand(result.outputs.stats) as table:
        selection = select(table, count, worst, seed)
    if selection.instances != result.instances:
        message = (
            f"{result.outputs.stats}: the table has {selection.instances} rows, "
            f"{result.outputs.label.path} {result.instances} instances; expected the table of "
            "this label; put it back, or segment again with --overwrite"
        )
        raise ImageError(message)
    return selection


def _read_answers(path: str) -> Answers:
    """Read a file of answers."""
    try:
        data = read_bytes(path, MOST_BYTES)
        document = None if data is None else json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is no JSON"
        message = (
            f"--answers: {path} cannot be read ({why}); give the JSON file that the page of "
            "`anystar-batch review` has saved"
        )
        raise ConfigError(message) from error
    if data is None:
        message = f"--answers: {path} is not there; give the file that the page has saved"
        raise ConfigError(message)
    return parse_answers(document, path)


@contextmanager
def _held(outputs: Outputs) -> Iterator[Fence]:
    """Hold the lock of the results: no run exchanges the label meanwhile."""
    if is_read_only(outputs.folder):
        message = (
            f"{outputs.folder}: a web server takes no review; copy the image and its results to a "
            "directory or a bucket first"
        )
        raise OutputError(message)
    with hold(outputs.locks[0]) as fence:
        yield fence


def _keep(outputs: Outputs, document: JSON) -> None:
    """Write the review beside the label; one of an older label is kept under another name."""
    try:
        old = read_object(outputs.review)
    except ImageError:
        old = None
    if old is not None and old.get("fingerprint") != document["fingerprint"]:
        digits = str(old.get("fingerprint"))[:12]
        move_atomic(outputs.review, f"{outputs.folder}/{outputs.base}.review.{digits}.json")
    write_json_atomic(outputs.review, document)


def _renew_report(outputs: Outputs, digest: str, fence: Fence, listen: Listener) -> None:
    """Put the review into the page of the run, where there is one; failing that is a warning."""
    if not (exists(outputs.report) and exists(outputs.record)):
        return
    try:
        record = read_object(outputs.record) or {}
        summary, label = record["summary"], outputs.label
        is_here = absolute_place(str(summary["label"])) == absolute_place(label.path)
        if not is_here and parent(outputs.report) != outputs.folder:
            return  # the page of a result that this one was copied from
        places = {"image": label.image, "label": label.path, "stats": outputs.stats}
        record["summary"] = {**summary, **({} if is_here else places)}
        with at_hand(outputs.stats) as stats:
            document = page(gather(record, stats, review_of(outputs, digest)))
        fence.check()
        write_bytes_atomic(outputs.report, document.encode("utf-8"))
    except Exception as error:
        logger.warning("report", exc_info=error)
        text = f"{outputs.report} could not be made anew ({type(error).__name__}: {error})"
        listen(Note(text, is_warning=True))


def page_text(written: PageWritten) -> str:
    """Return what a page is, as lines for a person."""
    return (
        f"page   {written.page}: {written.sample} of {written.instances:,} instances drawn by "
        f"chance, {written.worst} others, the worst first\n"
        f"then   open it, answer (keys 1 to 6), save, and: {written.then}"
    )


def answers_text(document: dict[str, Any]) -> str:
    """Return what answers come to, as lines for a person."""
    sample = f"a random sample of {document['instances']:,} instances (seed {document['seed']})"
    lines = [f"error rate  {document['error_rate']['text']}, 95 % interval; {sample}"]
    for kind, words in KINDS.items():
        one = document["kinds"][kind]
        if one["count"]:
            lines.append(f"  {words:<14}{one['text']}")
    lines.append(f"  missed beside {document['missed_next_to_it']['text']}")
    if document["not_answered"]:
        lines.append(
            f"  {document['not_answered']} of the sample have no answer and are not counted: if "
            "they were passed over because they are hard, the rate is too low"
        )
    others = document["worst_first"]
    if others["answered"]:
        said = ", ".join(f"{others[k]} {words}" for k, words in KINDS.items() if others[k])
        lines.append(f"worst first {others['answered']} answered, not in the rate: {said}")
    lines.append(f"review      {document['review']}")
    made = document["training_set"]
    if made is not None:
        lines.append(f"learn from  {made['path']}: {made['instances']} right instances")
        lines.append(f"            {made['command'] or _too_few()}")
    return "\n".join(lines)


def _too_few() -> str:
    return "fewer than two at any one time: too few to fine-tune with"
