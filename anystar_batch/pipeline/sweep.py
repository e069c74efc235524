"""The order of work for an archive: every image below a directory that has no current label.

::

    find      below ROOT, by name            archive.discovery
    judge     current, other, being written  ahead.standing, archive.settle
    segment   the rest, oldest first         pipeline.segment, one engine, one network
    gather    a table of every plate         plates.gather

One image is one outcome, whatever becomes of it; the next one is begun all the same, unless it is
time to stop. What is not for this tool is told, and fails nothing. Two sweeps never work on one
root at once, and runs on one image never do.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import time as clock
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path

from anystar_batch.address import is_remote
from anystar_batch.archive.age import Settling, is_any_young, newest_file
from anystar_batch.archive.discovery import find_zarrs, images_in, is_zarr
from anystar_batch.archive.images import read_image
from anystar_batch.archive.nodes import local_path
from anystar_batch.archive.storage import files
from anystar_batch.archive.storage.fence import Fence
from anystar_batch.archive.storage.files import file_system_now
from anystar_batch.archive.storage.lock import hold
from anystar_batch.config import SegmentConfig
from anystar_batch.engine.engines import Engine, InlineEngine
from anystar_batch.errors import (
    AnyStarBatchError,
    ConfigError,
    ForbiddenError,
    ImageChangedError,
    ImageError,
    LockedError,
    LostLockError,
    ModelError,
    NoImageError,
    OutOfTimeError,
    OutputError,
    UnsuitedError,
)
from anystar_batch.events import Listener, Note, ignore
from anystar_batch.network.model import Model, load_model
from anystar_batch.network.predictor import PredictorFactory
from anystar_batch.pipeline import segment
from anystar_batch.pipeline.dry_run import Standing
from anystar_batch.pipeline.dry_run import standing as standing_of
from anystar_batch.pipeline.inputs import Plate, name_images, plates_of
from anystar_batch.pipeline.outputs import taken_over
from anystar_batch.pipeline.plate_table import gather
from anystar_batch.pipeline.run_record import DONE
from anystar_batch.pipeline.sweep_outcome import Outcome, Status, Swept, condensed

logger = logging.getLogger(__name__)

LOCK = "anystar-batch-sweep"
"""How the name of a root's lock file begins."""


@dataclass(frozen=True, slots=True)
class _Todo:
    """An image to segment: its config, when it was written, and the outermost Zarr it is in."""

    config: SegmentConfig
    written: float
    top: str


@dataclass(frozen=True, slots=True)
class _Sweeping:
    """What all images of a sweep share."""

    config: SweepConfig
    settling: Settling
    model: Model
    factory: PredictorFactory | None
    engine: Engine
    on_event: Listener


def sweep(
    config: SweepConfig,
    on_outcome: Callable[[Outcome], None],
    on_event: Listener = ignore,
    *,
    engine: Engine | None = None,
    factory: PredictorFactory | None = None,
    model: Model | None = None,
) -> Swept:
    """Segment every image below a directory that has no current label and is complete.

    Parameters
    ----------
    config : SweepConfig
        What is wanted.
    on_outcome : callable
        Told of every image, as soon as it is known what becomes of it.
    on_event : callable
        Told of every stage and block.
    engine : Engine, optional
        Runs the blocks of all images, until its `stop` is due; None works in this process.
    factory : PredictorFactory, optional
        Makes the network; None is the model's own, under Keras.
    model : Model, optional
        Instead of the one that is wanted.

    Returns
    -------
    Swept

    Raises
    ------
    LockedError
        If another sweep holds the root; the message says which, since when.
    ModelError
        If the model cannot be used: no image would fare better.
    OutputError
        If the lock cannot be made.
    """
    model = load_model(config.template.model) if model is None else model
    engine = engine or InlineEngine()
    started = clock.monotonic()
    told: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        on_outcome(outcome)

    stopped = None
    with _hold_root(config, on_event) as (fence, offset):
        shared = _Sweeping(
            config, Settling(config.settle, offset), model, factory, engine, on_event
        )
        todo, plates = _judged(shared, tell)
        for number, one in enumerate(todo):
            stopped = _why_stop(fence, engine)
            if stopped is not None:
                for left in todo[number:]:
                    tell(Outcome(left.config.image, Status.LEFT))
                break
            on_event(Note(f"image {number + 1} of {len(todo)}: {one.config.image}"))
            tell(_segmented(shared, one))
        if stopped is None and any(one.status is Status.STOPPED for one in told):
            stopped = f"stopped {engine.stop.why}"
        done = {one.image for one in told if one.status is Status.DONE}
        for plate in plates:
            _gather(shared, plate, done, tell)
    return Swept(config.root, tuple(told), clock.monotonic() - started, stopped)


def preview(
    config: SweepConfig, on_outcome: Callable[[Outcome], None], *, model: Model | None = None
) -> Swept:
    """Say what a sweep would do, oldest first; write nothing, and take no lock.

    Parameters
    ----------
    config : SweepConfig
        What is wanted.
    on_outcome : callable
        Told of every image.
    model : Model, optional
        Instead of the one that is wanted.
    """
    model = load_model(config.template.model) if model is None else model
    started = clock.monotonic()
    told: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        on_outcome(outcome)

    shared = _Sweeping(config, Settling(config.settle), model, None, InlineEngine(), ignore)
    for one in _judged(shared, tell)[0]:
        tell(Outcome(one.config.image, Status.WANTED))
    return Swept(config.root, tuple(told), clock.monotonic() - started, None)


@contextlib.contextmanager
def _hold_root(config: SweepConfig, on_event: Listener) -> Iterator[tuple[Fence, float]]:
    """Hold the root; give also by how much the clock of the images' files is ahead of ours."""
    folder = Path(config.lock).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder}: cannot be made ({error.strerror}); give another --output DIR"
        raise OutputError(error.errno, message) from error

    def tell(who: str) -> None:
        on_event(taken_over(who))

    with hold(config.lock, tell=tell) as fence:
        # Beside the images alone is the clock theirs.
        is_theirs = config.template.output is None
        yield fence, file_system_now(folder) - clock.time() if is_theirs else 0.0


def _why_stop(fence: Fence, engine: Engine) -> str | None:
    """Why no further image may begin, None if it may."""
    if engine.stop.is_due:
        return f"stopped {engine.stop.why}"
    try:
        fence.check()
    except LostLockError as error:
        return str(error)
    return None


def _judged(shared: _Sweeping, tell: Callable[[Outcome], None]) -> tuple[list[_Todo], list[str]]:
    """Find every image; tell of those with which nothing is to be done, and return the others.

    The paths returned besides hold more images than one: plates may be among them.
    """
    found = find_zarrs(shared.config.root, shared.config.pattern)
    for path, reason in found.left_out:
        tell(Outcome(path, Status.UNSUITED, reason))
    taken: dict[tuple[str, str], str] = {}
    todo: list[_Todo] = []
    several: list[str] = []
    for top in found.matches:
        try:
            images = images_in(top)
        except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
            tell(_failure(shared, error, top, top))
            continue
        if images and images != [top]:
            several.append(top)
        judged = [_judged_one(shared, image, top, taken) for image in images]
        todo += [one for one in judged if isinstance(one, _Todo)]
        for outcome in condensed([one for one in judged if isinstance(one, Outcome)], top):
            tell(outcome)
    return sorted(todo, key=lambda one: (one.written, one.config.image)), several


def _judged_one(
    shared: _Sweeping, image: str, top: str, taken: dict[tuple[str, str], str]
) -> Outcome | _Todo:
    """Judge one image; whatever is raised becomes its outcome, but for the model."""
    try:
        return _judge(shared, _config_of(shared.config, image, taken), top)
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
        return _failure(shared, error, image, top)


def _config_of(config: SweepConfig, image: str, taken: dict[tuple[str, str], str]) -> SegmentConfig:
    """What is wanted of one image; its name does not depend on what else lies below the root."""
    template = config.template
    named = name_images([image], with_output=template.output is not None, root=config.root)[0]
    key = ("" if template.output is not None else named.home, named.stem)
    other = taken.setdefault(key, image)
    if other != image:
        message = f"{image}: would write files named {named.stem}.*, as {other} does; rename one"
        raise ConfigError(message)
    run = template.run
    if run.work_dir is not None:
        # Images of one name in two directories must not meet each other's work.
        below = os.path.relpath(named.home, config.root)
        below = named.home.lstrip("/") if below.startswith("..") else below
        run = replace(run, work_dir=f"{run.work_dir}/{below}")
    return replace(template, image=image, home=named.home, stem=named.stem, run=run)


def _judge(shared: _Sweeping, config: SegmentConfig, top: str) -> Outcome | _Todo:
    """Decide from metadata and file times what is to be done with an image."""
    standing, text = standing_of(config, shared.model)
    if standing is Standing.CURRENT:
        return Outcome(config.image, Status.CURRENT, text)
    if standing is Standing.OTHER and not config.run.overwrite:
        return Outcome(config.image, Status.OTHER, text)
    source = read_image(config.image, config.result.multiscale)
    written = newest_file(source, shared.settling)
    if written is None:
        return Outcome(config.image, Status.WAITING)
    run = replace(config.run, overwrite=standing is Standing.OTHER)
    return _Todo(replace(config, run=run), written, top)


def _segmented(shared: _Sweeping, one: _Todo) -> Outcome:
    """Segment an image; whatever is raised becomes its outcome."""
    config = one.config
    try:
        try:
            return _segment(shared, config)
        except ImageChangedError:
            # What an earlier night began is of the image as it was: begun again, once.
            return _segment(shared, replace(config, run=replace(config.run, restart=True)))
    except ModelError:
        raise
    except OutOfTimeError as error:
        return Outcome(config.image, Status.STOPPED, str(error))
    except LockedError as error:
        return Outcome(config.image, Status.LOCKED, str(error))
    except ImageChangedError as error:
        return Outcome(config.image, Status.WAITING, str(error))
    except Exception as error:  # noqa: BLE001  (one broken image never stops the others)
        return _failure(shared, error, config.image, one.top)


def _segment(shared: _Sweeping, config: SegmentConfig) -> Outcome:
    """Segment an image, unless it was written to since it was judged: the night is long."""
    source = read_image(config.image, config.result.multiscale)
    if newest_file(source, shared.settling) is None:
        return Outcome(config.image, Status.WAITING)
    summary = segment.segment(
        config,
        shared.on_event,
        engine=shared.engine,
        factory=shared.factory,
        model=shared.model,
    )
    status = Status.DONE if summary.status == DONE else Status.CURRENT
    return Outcome(config.image, status, "; ".join(summary.warnings), summary)


def _gather(shared: _Sweeping, top: str, done: Set[str], tell: Callable[[Outcome], None]) -> None:
    """Make the table of a plate of which a field is new, or that has fields and no table."""
    plate = None
    try:
        plate = _plate(shared.config, top)
        if plate is None:
            return
        if not done.isdisjoint(plate.images) or not files.exists(plate.stats):
            gather(plate)
    except Exception as error:  # noqa: BLE001  (one broken plate never stops the others)
        if plate is not None:
            tell(_failure(shared, error, plate.stats, top))


def _plate(config: SweepConfig, top: str) -> Plate | None:
    """The plate at a path, None if it is none."""
    template = config.template
    named = name_images([top], with_output=template.output is not None, root=config.root)
    if named[0].of is None:
        return None
    configs = [replace(template, image=n.path, home=n.home, stem=n.stem) for n in named]
    return plates_of(named, configs)[1][0]


def _failure(shared: _Sweeping, error: Exception, image: str, top: str) -> Outcome:
    """The outcome of an error: no image yet may be one once it is written.

    What a container lists and is no image is a failure; what only has the name of one is none.
    """
    with contextlib.suppress(AnyStarBatchError):
        if isinstance(error, ImageError) and is_any_young(top, shared.settling):
            return Outcome(image, Status.WAITING, str(error))
    is_other = isinstance(error, NoImageError) and image == top
    if is_other or isinstance(error, UnsuitedError | ForbiddenError):
        logger.info("%s", error)
        return Outcome(image, Status.UNSUITED, str(error))
    if isinstance(error, AnyStarBatchError):
        logger.error("%s", error)
        return Outcome(image, Status.FAILED, str(error))
    logger.critical("unexpected", exc_info=error)
    return Outcome(image, Status.FAILED, f"unexpected {type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class SweepConfig:
    """One sweep.

    Parameters
    ----------
    root : str
        Directory below which images lie.
    template : SegmentConfig
        What is wanted of every image; its `image`, `home` and `stem` are not looked at.
    pattern : str
        Names of the directories that are images.
    settle : float
        Seconds without a new file after which an image is complete.
    """

    root: str
    template: SegmentConfig
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
        output = self.template.output
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
        if self.template.stats is not None or self.template.run.restart:
            message = "a sweep names its tables itself, and throws no unfinished run away"
            raise ConfigError(message)

    @property
    def lock(self) -> str:
        """The root's lock file: beside the results, so that `--output` leaves the root alone."""
        if self.template.output is None:
            return f"{self.root}/{LOCK}.lock"
        digest = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]
        return f"{self.template.output}/{LOCK}.{digest}.lock"
