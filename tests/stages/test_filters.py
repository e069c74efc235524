"""Filters act on survivors, each on its own values; the bytes still depend on nothing else."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import read_image
from anystar_batch.config import Filters, ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError
from anystar_batch.events import BlockDone, Note, ignore
from anystar_batch.geometry import Box, grid_range
from anystar_batch.parsing import Quantity, parse_volume
from anystar_batch.pipeline.outputs import output_paths
from anystar_batch.pipeline.segment import segment
from anystar_batch.stages.number import removed
from anystar_batch.stages.plan import fingerprint_parts
from anystar_batch.stages.task import model_rays, position_keys
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.raster import owns_voxel
from anystar_batch.stars.suppress import suppress
from tests.stages.test_plan import plan_of
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor, make_model, random_ellipsoids, write_image
from tests.support.law_phantom import digests
from tests.support.slow_filters import contrast_by_hand, regularity_by_hand, volume_by_hand

SHAPE = (37, 61, 66)
MODEL = make_model(tile=32, context=8, diameter=12.0, max_radius=24.0)
TRUTH = random_ellipsoids(SHAPE, 70, 5, radius=(3.0, 7.5))
FILTERS = Filters(
    min_volume=Quantity(150.0, "px"),
    max_volume=Quantity(150.0, "um3"),
    min_prob=0.8,
    min_contrast=0.8,
    min_regularity=0.8,
)


@dataclass(frozen=True)
class Ragged(TruthPredictor):
    """Its stars are ragged, each to its own degree."""

    def find(self, image, window, core, prob_thresh):
        points, prob, dist = super().find(image, window, core, prob_thresh)
        seed = points.astype(np.int64) @ [7919, 104_729, 1_299_709]
        noise = (seed[:, None] + 7 * np.arange(96) ** 2) % 101 / 100 - 0.5
        return points, prob, (dist * (1 + noise * (seed % 3)[:, None] / 4)).astype(np.float32)


FACTORY = Ragged(TRUTH, core=0.7, wobble=0.5)


@pytest.fixture(scope="module")
def data():
    image = TRUTH.image(np.float64)
    return np.rint(image + np.random.default_rng(0).normal(0, 300, SHAPE)).clip(0).astype(np.uint16)


@pytest.fixture
def image(tmp_path, data):
    return new_image(tmp_path, data)


def new_image(folder, data):
    return write_image(folder / "a.ome.zarr", [data], chunks=(32, 32, 32), scale=(0.5, 0.5, 0.5))


def config(image, filters, block_shape=SHAPE, **run):
    return SegmentConfig(
        image=str(image),
        result=ResultConfig(diameter=Quantity(6.0, "um"), filters=filters),
        run=RunConfig(block_shape=block_shape, memory=6 * 10**9, **run),
    )


def run(image, filters, listen=ignore, **more):
    return segment(config(image, filters, **more), listen, factory=FACTORY, model=MODEL)


@dataclass(frozen=True)
class Expected:
    """Survivors of the whole volume and what is measured of them, by hand."""

    survivors: Candidates
    values: dict


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory):
    box = Box.of_shape(SHAPE)
    points, prob, dist = FACTORY.find(data, box, box, MODEL.prob_thresh)
    fits = dist.max(axis=1) <= MODEL.max_radius
    every = Candidates(points[fits], prob[fits], quantise(dist[fits], MODEL.max_radius))
    kept = every.take(suppress(every, model_rays(MODEL), MODEL.nms_thresh))
    kept = kept.take(np.argsort(position_keys(kept.points, SHAPE)))
    low, high = np.percentile(data, [MODEL.low_percentile, MODEL.high_percentile])
    scaled = np.clip((data - low) / (high - low), 0, 1)
    tiles = plan_of(new_image(tmp_path_factory.mktemp("plan"), data), None, 6.0, MODEL).tiles
    contrast = []
    for p, d in zip(kept.points, kept.dist.astype(np.float64), strict=True):
        (owner,) = grid_range(Box(tuple(p), tuple(p + 1)), tiles.core, tiles.counts)
        seen = tiles.window_box(owner).intersect(box)
        contrast.append(contrast_by_hand(scaled, (0, 0, 0), seen, p, d))
    dist = kept.dist.astype(np.float64)
    values = {
        "volume": np.array([volume_by_hand(d) for d in dist]),
        "prob": kept.prob,
        "contrast": np.array(contrast),
        "regularity": np.array([regularity_by_hand(d) for d in dist]),
    }
    return Expected(kept, values)


def fails_by_hand(values, filters):
    """Names of filters to who fails them, whatever the others."""
    tests = {
        "min_volume": (values["volume"], filters.min_volume, 1),
        "max_volume": (-values["volume"], filters.max_volume, -1),
        "min_prob": (values["prob"], filters.min_prob, 1),
        "min_contrast": (values["contrast"], filters.min_contrast, 1),
        "min_regularity": (values["regularity"], filters.min_regularity, 1),
    }
    found = {}
    for name, (value, limit, sign) in tests.items():
        if limit is None:
            continue
        level = limit
        if isinstance(limit, Quantity):
            level = limit.value if limit.unit == "px" else limit.value / 0.5**3
        assert np.abs(value - sign * level).min() > 1e-5  # no tie of rounding decides the test
        found[name] = value < sign * level
    return found


ALONE = [Filters(**{k: getattr(FILTERS, k)}) for k in FILTERS.to_json()]


@pytest.mark.parametrize("filters", [*ALONE, FILTERS], ids=[*FILTERS.to_json(), "all"])
def test_whoever_fails_by_hand_is_removed_and_nobody_else(image, expected, filters):
    notes = []
    summary = run(image, filters, notes.append, block_shape=(32, 32, 32), keep_work=True)
    fails = fails_by_hand(expected.values, filters)
    counts, standing = {}, np.ones(len(expected.survivors), bool)
    for name, mask in fails.items():
        counts[name] = int((standing & mask).sum())
        standing &= ~mask
    assert all(counts.values())
    assert summary.removed == counts
    kept = expected.survivors.take(standing)
    plan = plan_of(image, None, 6.0, MODEL)
    shown = owns_voxel(kept, model_rays(MODEL), plan.lattice, Box.of_shape(SHAPE))
    keys = np.load(Path(output_paths(config(image, filters)).work) / "instances-0.npy")
    assert keys.tolist() == position_keys(kept.points[shown], SHAPE).tolist()
    assert 5 < summary.instances == len(keys) < len(expected.survivors)
    # The table: numbers without gaps, and the measures that were asked for.
    table = tiny_volume.rows(summary.stats)
    assert [int(r["label"]) for r in table] == list(range(1, len(keys) + 1))
    for column in ("prob", "contrast", "regularity"):
        asked = column == "prob" or f"min_{column}" in counts
        assert (column in table[0]) == asked
        if asked:
            found = [float(r[column]) for r in table]
            right = expected.values[column][standing][shown]
            np.testing.assert_allclose(found, right, rtol=1e-4)
    # What is said of it.
    attributes = zarr.open_group(summary.label, mode="r").attrs.asdict()["anystar-batch"]
    assert attributes["removed"] == counts
    assert attributes["options"]["filters"] == attributes["decided"]["filters"] == filters.to_json()
    (text,) = [e.text for e in notes if isinstance(e, Note) and "removed" in e.text]
    assert text.startswith(f"the filters removed {sum(counts.values())} objects: ")
    for name, count in counts.items():
        assert f"{count} by --{name.replace('_', '-')}" in text


def test_blocks_and_a_rerun_change_no_byte(tmp_path, data):
    found = []
    for k, block_shape in enumerate([SHAPE, (32, 32, 32), (64, 32, 40)]):
        image = new_image(tmp_path / str(k), data)
        if k == 2:
            with pytest.raises(Stop):
                run(image, FILTERS, StopAfter("own", 1), block_shape=(32, 32, 32))
        run(image, FILTERS, block_shape=block_shape)
        found.append(digests(image))
    assert found[0] == found[1] == found[2]


class Stop(Exception):
    """What ends a run early."""


@dataclass
class StopAfter:
    """Ends a run after some blocks of a stage."""

    stage: str
    left: int

    def __call__(self, event):
        if isinstance(event, BlockDone) and event.stage == self.stage:
            self.left -= 1
            if self.left < 0:
                raise Stop


@dataclass(frozen=True)
class Three:
    """A large star, a small and less probable one inside it, and one apart."""

    def __call__(self, *_):
        return self

    def find(self, _image, _window, core, _prob_thresh):
        points = np.array([[10, 16, 12], [10, 18, 14], [10, 28, 34]], np.int32)
        prob, radius = np.array([0.9, 0.7, 0.8], np.float32), np.array([6.0, 4.0, 4.0], np.float32)
        mine = ((points >= core.start) & (points < core.stop)).all(axis=1)
        return points[mine], prob[mine], np.repeat(radius[mine, None], 96, axis=1)


def test_what_a_removed_object_suppressed_stays_away(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    sphere = 4 / 3 * np.pi * 5.0**3 * 0.5**3
    filters = Filters(max_volume=Quantity(sphere, "um3"))
    summary = tiny_volume.segment(image, factory=Three(), filters=filters)
    assert (summary.instances, summary.removed) == (1, {"max_volume": 1})
    labels = zarr.open_array(f"{image}/labels/anystar/0", mode="r")[...]
    assert np.unique(labels).tolist() == [0, 1]
    assert labels[10, 28, 34] == 1
    assert not labels[:, :25, :25].any()
    again = tiny_volume.segment(image, factory=Three(), filters=filters)
    assert (again.status, again.removed) == ("nothing to do", {"max_volume": 1})
    without = tiny_volume.segment(image, factory=Three(), label="all")
    assert (without.instances, without.removed) == (2, {})


def test_all_removed_is_said_to_be_so(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    notes = []
    summary = tiny_volume.segment(image, notes.append, filters=Filters(min_prob=1.0))
    assert summary.instances == 0
    (said,) = summary.warnings
    assert said.startswith("no objects are left. Looked at: level 0")
    assert "the filters removed 5" in said
    assert "the filters removed 5 objects: 5 by --min-prob" in [
        e.text for e in notes if isinstance(e, Note)
    ]


def test_zero_removes_nobody_and_shows_the_measures(tmp_path):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    summary = tiny_volume.segment(image, filters=Filters(min_contrast=0.0, min_regularity=0.0))
    assert (summary.instances, summary.removed) == (5, {"min_contrast": 0, "min_regularity": 0})
    table = tiny_volume.rows(summary.stats)
    assert list(table[0])[:4] == ["label", "prob", "contrast", "regularity"]
    assert all(float(r["contrast"]) > 3 and float(r["regularity"]) > 0.98 for r in table)


# Without a run


def stars(radius, contrast=None):
    count = len(radius)
    dist = np.repeat(np.asarray(radius, np.float32)[:, None], 96, axis=1)
    points = np.tile(np.array([[5, 5, 5]], np.int32), (count, 1))
    measured = None if contrast is None else np.asarray(contrast, np.float32)
    return Candidates(points, np.full(count, 0.7, np.float32), quantise(dist, 24.0), measured)


def test_volumes_are_those_of_level_0_whatever_the_working_scale(image):
    # Two level-0 voxels, one micrometre, a working voxel.
    plan = plan_of(image, None, 12.0, MODEL)
    assert plan.lattice.scale == (2.0, 2.0, 2.0)
    sizes = stars([2.0, 3.0, 4.0])
    voxels = [8 * volume_by_hand(d.astype(np.float64)) for d in sizes.dist]
    for unit, size in (("px", 1.0), ("um3", 0.125)):
        limit = Quantity(voxels[1] * size, unit)
        low = replace(plan, filters=Filters(min_volume=replace(limit, value=limit.value - 1e-6)))
        high = replace(plan, filters=Filters(max_volume=replace(limit, value=limit.value + 1e-6)))
        rays = model_rays(MODEL)
        assert removed(low, sizes, rays)["min_volume"].tolist() == [True, False, False]
        assert removed(high, sizes, rays)["max_volume"].tolist() == [False, False, True]


def test_a_limit_as_the_table_shows_it_is_kept_and_so_is_what_cannot_be_measured(image):
    plan = plan_of(image, None, 6.0, MODEL)
    rays = model_rays(MODEL)
    some = stars([4.0] * 3, [0.1, np.nan, 0.3])
    by = {"min_prob": 0.7, "min_contrast": 0.3, "min_regularity": 1.0}
    gone = removed(replace(plan, filters=Filters(**by)), some, rays)
    assert {k: v.tolist() for k, v in gone.items()} == {
        "min_prob": [False, False, False],
        "min_contrast": [True, False, False],
        "min_regularity": [False, False, False],
    }
    assert removed(plan, some, rays) == {}


def test_contrasts_must_have_been_measured(image):
    plan = replace(plan_of(image, None, 6.0, MODEL), filters=Filters(min_contrast=1.0))
    with pytest.raises(ValueError, match="survivors have no contrast"):
        removed(plan, stars([4.0]), model_rays(MODEL))
    assert not removed(plan, Candidates.empty(96), model_rays(MODEL))["min_contrast"].any()


def test_without_filters_neither_fingerprint_nor_plan_mention_them(image):
    parts = fingerprint_parts(read_image(image), MODEL, ResultConfig(), "float32")
    assert "filters" not in parts
    assert "filters" not in plan_of(image, None, 6.0, MODEL).to_json()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500", Quantity(500.0, "um3")),
        ("500um3", Quantity(500.0, "um3")),
        (" 1e2 µm³ ", Quantity(100.0, "um3")),
        ("0.5um^3", Quantity(0.5, "um3")),
        ("2mm3", Quantity(2e9, "um3")),
        ("8nm3", Quantity(8e-9, "um3")),
        ("123px", Quantity(123.0, "px")),
    ],
)
def test_a_volume_is_read(text, expected):
    found = parse_volume("--min-volume", text)
    assert found.unit == expected.unit
    assert found.value == pytest.approx(expected.value)


@pytest.mark.parametrize(
    "text", ["", "um3", "0", "-3", "nan", "1e999", "1.2.3", "12um", "9px3", "4 barns"]
)
def test_a_volume_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match=r"--max-volume: got .*500um3 .* or 120px"):
        parse_volume("--max-volume", text)


def test_volumes_in_voxels():
    assert Quantity(12.0, "px").in_voxels((2.0, 0.5, 0.5)) == 12.0
    assert Quantity(12.0, "um3").in_voxels((2.0, 0.5, 0.5)) == 24.0
    given = Filters(Quantity(12.0, "um3"), Quantity(40.0, "px"), 0.5)
    assert given.volume_range((2.0, 0.5, 0.5)) == (24.0, 40.0)
    assert str(given) == "--min-volume 12um3 --max-volume 40px --min-prob 0.5"
    assert Filters().volume_range((1.0, 1.0, 1.0)) == (0.0, np.inf)


def test_volumes_of_two_units_are_compared_when_the_voxel_is_known(image):
    filters = Filters(Quantity(10.0, "um3"), Quantity(70.0, "px"))
    with pytest.raises(ConfigError, match="--min-volume: got 10um3, more than --max-volume 70px"):
        plan_of(image, ResultConfig(filters=filters), 6.0, MODEL)


BAD = [
    (["--min-volume", "12um"], "--min-volume: got '12um'; expected a positive volume"),
    (["--max-volume", "0"], "--max-volume: got '0'; expected a positive volume"),
    (["--min-volume", "9", "--max-volume", "8um3"], "--min-volume: got 9um3, more than"),
    (["--min-prob", "1.5"], "--min-prob: got 1.5; expected 0 to 1"),
    (["--min-prob", "nan"], "--min-prob: got nan; expected 0 to 1"),
    (["--min-contrast", "-1"], "--min-contrast: got -1; expected 0 or more"),
    (["--min-contrast", "inf"], "--min-contrast: got inf; expected 0 or more"),
    (["--min-regularity", "-0.1"], "--min-regularity: got -0.1; expected 0 to 1"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_a_bad_filter_is_refused(tmp_path, command, options, message):
    done = command("segment", tmp_path / "a.zarr", *options)
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}")


def test_the_command_filters(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    options = ["--min-volume", "300px", "--max-volume", "100000", "--min-prob", "0.6"]
    options += ["--min-contrast", "1", "--min-regularity", "0.5", "--diameter", "5um"]
    plan = command("segment", image, *options, "--dry-run")
    assert "filters     --min-volume 300px --max-volume 100000um3 --min-prob 0.6" in plan.stdout
    done = command("segment", image, *options)
    assert done.exit_code == 0, done.stderr
    removed = int(done.stderr.split("the filters removed ")[1].split()[0])
    assert 0 < removed < 5
    assert f": {5 - removed} instances" in done.stdout
