"""Stars within the label: published with it, or added to one that was published without.

No voxel depends on them, so they are no part of the fingerprint. A label that is there and lacks
them gets them: the stages are run again, and the stars are added if they paint that very label.
"""

from __future__ import annotations

import numpy as np

from anystar_batch.archive.label_image import LabelWriter
from anystar_batch.archive.labels import add_group, discard
from anystar_batch.archive.ngff import ImageSource
from anystar_batch.archive.star_group import STARS, has_stars
from anystar_batch.archive.storage.files import remove_tree
from anystar_batch.config import SegmentConfig
from anystar_batch.errors import ConfigError, OutputExistsError
from anystar_batch.events import Note, StageStarted, timed_stage
from anystar_batch.geometry import grid_box, grid_shape, iter_grid
from anystar_batch.pipeline.outputs import Outputs
from anystar_batch.pipeline.publish import throw_away
from anystar_batch.stages.run import Run, instance_count
from anystar_batch.stages.star_rows import stars_run

ADD_STARS = "add stars"
"""What a dry run says of a label that is there and lacks them."""


def check_stars(config: SegmentConfig, source: ImageSource) -> None:
    """Check that the name of the stars' group is free in the label.

    Raises
    ------
    ConfigError
        If stars are asked for, and a level of the image has the name.
    """
    if config.run.stars and any(lv.path.split("/")[0] == STARS for lv in source.levels):
        message = (
            f"--stars: {source.path}: a level of the image is called {STARS!r}, and so of the "
            "label; expected the name to be free; leave out --stars"
        )
        raise ConfigError(message)


def lacks_stars(config: SegmentConfig, outputs: Outputs) -> bool:
    """Return whether stars are asked for, and a published label has none."""
    return config.run.stars and not has_stars(outputs.label.path)


def make_stars(run: Run, config: SegmentConfig) -> None:
    """Write the stars into the hidden label; where nobody asks, none of an earlier run stay.

    Parameters
    ----------
    run : Run
        Its instances are numbered.
    config : SegmentConfig
    """
    if config.run.stars:
        stars_run(run)
    else:
        run.work.fence.check()
        remove_tree(f"{run.work.label}/{STARS}")


def add_stars(run: Run, config: SegmentConfig, outputs: Outputs) -> None:
    """Move the stars into the published label, if that is what they paint; tidy up.

    Parameters
    ----------
    run : Run
        The published result, done anew in the hidden label.
    config : SegmentConfig
    outputs : Outputs

    Raises
    ------
    OutputExistsError
        If the voxels of the two labels differ. Nothing is changed.
    """
    digest, label = run.ledger.fingerprint, outputs.label
    where = _difference(run, label.path)
    if where is not None:
        message = (
            f"{label.path}: its voxels are not those that the stars paint ({where}): it was "
            "edited, or made on another machine; nothing is changed; give --overwrite with "
            "--stars to make both anew, or another --label"
        )
        raise OutputExistsError(message)
    add_group(label, digest, STARS, run.work.fence.check)
    text = f"{instance_count(run)} stars were added to the label that was there: {label.path}"
    run.on_event(Note(text))
    discard(label, digest)
    if not config.run.keep_work:
        throw_away(outputs, digest, run.work.fence)


def _difference(run: Run, published: str) -> str | None:
    """Where level 0 of the hidden label and of the published one differ first; None: nowhere."""
    spec = run.spec
    made, there = LabelWriter(run.work.label, spec), LabelWriter(published, spec)
    unit, shape = spec.write_unit_zyx(0), spec.shape_zyx(0)
    with timed_stage(run.on_event, StageStarted("compare", 1)):
        for time in range(spec.num_times):
            for index in iter_grid(grid_shape(shape, unit)):
                box = grid_box(index, unit, shape)
                ours, theirs = (one.read_box(0, time, box) for one in (made, there))
                if not np.array_equal(ours, theirs):
                    return f"time {time}, voxels {box.start} to {box.stop}"
    return None
