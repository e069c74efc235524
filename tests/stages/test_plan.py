from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import time as clock
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.archive.ngff import channel_index
from anystar_batch.config import Filters, ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import ConfigError, ImageError
from anystar_batch.network.model import Model, RefinerInfo
from anystar_batch.parsing import Quantity
from anystar_batch.stages import plan as plan_module
from anystar_batch.stages import sampling
from anystar_batch.stages.image_identity import limits_content
from anystar_batch.stages.plan import fingerprint, fingerprint_parts, level_scales, make_plan
from anystar_batch.stages.region import Region
from anystar_batch.stages.sampling import all_limits, intensity_limits, level_position
from tests.support.fakes import make_model, mean_level, write_image

NOISE = np.random.default_rng(8).integers(100, 4000, (20, 40, 44)).astype(np.uint16)
PERCENTILES = (1.0, 99.9)


def reader_of(path):
    return ImageReader(read_image(str(path)))


def plan_of(path, config=None, diameter_um=None, model=None):
    config = ResultConfig() if config is None else config
    model = make_model(diameter=12.0) if model is None else model
    reader = reader_of(path)
    channel = channel_index(reader.source, config.channel)
    times = config.segmented_times(reader.source.num_times)
    limits = all_limits(reader, model, channel, times)
    return make_plan(reader, model, config, diameter_um, limits)


def edit_ome(path, change):
    """Change the OME attributes of a 0.5 image in place."""
    file = path / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"]["ome"])
    file.write_text(json.dumps(document))


def sparse_image(path, shape, chunks, stored, *, unit="micrometer", levels=1):
    """An image that claims `shape` and stores one chunk, as index and values, a level."""
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    datasets = []
    for k in range(levels):
        claimed = tuple(n // 2**k for n in shape)
        array = group.create_array(
            str(k),
            shape=claimed,
            chunks=chunks,
            dtype=np.uint16,
            fill_value=0,
            dimension_names=["z", "y", "x"],
        )
        if stored is not None:
            index = [int(i / 2**k) for i in stored]
            where = tuple(
                slice(i * c, min((i + 1) * c, n))
                for i, c, n in zip(index, chunks, claimed, strict=True)
            )
            sizes = [s.stop - s.start for s in where]
            array[where] = np.random.default_rng(9).integers(1, 1000, sizes).astype(np.uint16)
        scale = [{"type": "scale", "scale": [float(2**k)] * 3}]
        datasets.append({"path": str(k), "coordinateTransformations": scale})
    axes = [{"name": a, "type": "space", "unit": unit} for a in "zyx"]
    entry = {"name": "sparse", "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [entry]}
    return path


# Intensity limits


def test_limits_are_percentiles_of_each_time_and_channel(tmp_path):
    data = np.stack([np.stack([NOISE, NOISE // 2 + 7]), np.stack([NOISE * 3, NOISE + 1])])
    path = write_image(tmp_path / "a.ome.zarr", [data], axes="tczyx", chunks=(1, 1, 8, 16, 16))
    reader = reader_of(path)
    for t in range(2):
        for c in range(2):
            expected = tuple(np.percentile(data[t, c], PERCENTILES))
            assert intensity_limits(reader, t, c, PERCENTILES) == pytest.approx(expected)


def test_chunks_that_are_not_stored_do_not_count(tmp_path):
    data = np.zeros((16, 48, 48), np.uint16)
    data[:, 16:32, 16:] = NOISE[:16, :16, :32]
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(16, 16, 16))
    expected = tuple(np.percentile(data[:, 16:32, 16:], PERCENTILES))
    assert expected[0] > 0
    assert intensity_limits(reader_of(path), 0, 0, PERCENTILES) == pytest.approx(expected)


def test_undefined_and_infinite_voxels_do_not_count(tmp_path):
    data = NOISE.astype(np.float32)
    data[:3] = np.nan
    data[3] = np.inf
    data[4] = -np.inf
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(8, 16, 16))
    expected = tuple(np.percentile(data[5:], PERCENTILES))
    assert intensity_limits(reader_of(path), 0, 0, PERCENTILES) == pytest.approx(expected)


def test_times_without_contrast_have_no_limits(tmp_path):
    data = np.stack([NOISE, np.full_like(NOISE, 7), np.zeros_like(NOISE)]).astype(np.float32)
    data = np.concatenate([data, np.full_like(data[:1], np.nan)])
    path = write_image(tmp_path / "a.ome.zarr", [data], axes="tzyx", chunks=(1, 8, 16, 16))
    found = all_limits(reader_of(path), make_model(), 0, (0, 1, 2, 3))
    assert found[0] is not None
    assert found[1:] == (None, None, None)


def test_an_image_without_contrast_at_any_selected_time_is_refused(tmp_path):
    data = np.stack([NOISE, np.full_like(NOISE, 7)])
    path = write_image(tmp_path / "a.ome.zarr", [data], axes="tzyx", chunks=(1, 8, 16, 16))
    with pytest.raises(ImageError, match=r"channel 0 is constant or empty at every selected time"):
        all_limits(reader_of(path), make_model(), 0, (1,))


def test_one_time_alone_has_the_limits_it_has_among_all(tmp_path):
    data = np.stack([NOISE + 17 * t for t in range(4)])
    path = write_image(tmp_path / "a.ome.zarr", [data], axes="tzyx", chunks=(1, 8, 16, 16))
    among = plan_of(path)
    alone = plan_of(path, ResultConfig(time="3"))
    assert among.times == (0, 1, 2, 3)
    assert alone.times == (3,)
    assert alone.limits_of(3) == among.limits_of(3) == alone.limits[0]
    assert among.limits_of(0) != among.limits_of(3)


def test_limits_come_from_the_coarsest_level_that_is_large_enough(tmp_path, monkeypatch):
    levels = [NOISE, NOISE[:, ::2, ::2] + 10_000, NOISE[:, ::4, ::4] + 20_000]
    path = write_image(tmp_path / "a.ome.zarr", levels, chunks=(8, 16, 16))
    reader = reader_of(path)
    low = []
    for least in (levels[0].size, levels[1].size, levels[2].size, levels[0].size + 1):
        monkeypatch.setattr(sampling, "LIMITS_MIN_VOXELS", least)
        low.append(intensity_limits(reader, 0, 0, PERCENTILES)[0] // 10_000)
    assert low == [0, 1, 2, 0]


def test_of_a_large_level_a_lattice_of_chunks_is_read(tmp_path, monkeypatch):
    data = np.arange(48**3, dtype=np.uint32).reshape(48, 48, 48)
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(8, 8, 8))
    reader = reader_of(path)
    read = []
    inner = ImageReader.read_box

    def spy(self, level, t, c, box):
        read.append(box)
        return inner(self, level, t, c, box)

    monkeypatch.setattr(ImageReader, "read_box", spy)
    monkeypatch.setattr(sampling, "LIMITS_MAX_VOXELS", 48**3 // 10)
    low, high = intensity_limits(reader, 0, 0, (1.0, 99.0))
    assert 8 <= len(read) <= 6**3 // 10
    assert len(set(read)) == len(read)
    assert low < 0.35 * 48**3
    assert high > 0.65 * 48**3


def test_a_flat_volume_of_many_chunks_is_read_within_the_bound(tmp_path, monkeypatch):
    # One chunk deep: the lattice must thin out y and x all the more.
    data = np.tile(NOISE[:2], (1, 4, 4))
    path = write_image(tmp_path / "a.ome.zarr", [data], chunks=(2, 8, 8))
    monkeypatch.setattr(sampling, "LIMITS_MAX_VOXELS", data.size // 25)
    boxes = sampling._sample_boxes(reader_of(path), 0, 0, 0)
    assert data.size // 100 < sum(box.size for box in boxes) <= data.size // 25


def test_a_huge_chunk_is_read_in_its_middle(tmp_path):
    path = sparse_image(tmp_path / "a.ome.zarr", (300, 400, 100), (300, 400, 100), (0, 0, 0))
    (box,) = sampling._sample_boxes(reader_of(path), 0, 0, 0)
    assert (box.start, box.stop) == ((22, 72, 0), (278, 328, 100))


def test_the_identity_of_what_was_read_changes_with_it(tmp_path):
    path = write_image(tmp_path / "a.ome.zarr", [NOISE], chunks=(8, 16, 16))
    before = limits_content(reader_of(path), (0,), 0)
    assert before == limits_content(reader_of(path), (0,), 0)
    zarr.open_array(f"{path}/0")[0, 0, 0] = 9
    assert limits_content(reader_of(path), (0,), 0) != before


# Huge claims


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("stored", [(0, 0, 0), (777, 1234, 901), (1562, 1562, 1562)])
def test_a_petavoxel_claim_with_one_stored_chunk_plans_in_no_time(tmp_path, stored, levels):
    shape, chunks = (100_000, 100_000, 100_000), (64, 64, 64)
    path = sparse_image(tmp_path / "a.ome.zarr", shape, chunks, stored, levels=levels)
    tracemalloc.start()
    started = clock.process_time()
    plan = plan_of(path, diameter_um=12.0 * 2 ** (levels - 1))
    seconds = clock.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert plan.limits[0] is not None
    assert plan.limits[0][1] > 900
    assert plan.working.level == levels - 1
    assert np.prod(plan.tiles.counts, dtype=float) > 10**6
    assert seconds < 20, "of this process, however busy the machine is"
    assert peak < 3 * 10**8


def test_a_few_stored_chunks_are_all_seen_though_a_lattice_meets_one_of_them(tmp_path):
    # The chunk that the lattice meets is flat; the two others are the image.
    path = tmp_path / "a.ome.zarr"
    sparse_image(path, (10_000, 10_000, 10_000), (100, 100, 100), None)
    reader = reader_of(path)
    array = zarr.open_array(f"{path}/0", mode="r+")
    counts = (100, 100, 100)
    stride = 1
    while np.prod([len(a) for a in sampling._every(counts, stride)]) > 32:
        stride += 1
    z, y, x = (100 * axis[0] for axis in sampling._every(counts, stride))
    array[z : z + 100, y : y + 100, x : x + 100] = 5
    array[:100, :100, :100] = np.random.default_rng(0).integers(1, 1000, (100,) * 3)
    found = intensity_limits(reader, 0, 0, PERCENTILES)
    assert found is not None
    assert found[1] > 900


# Where levels lie


def make_pyramid(image, made, factors=(2, 2, 2)):
    z, y, x = factors
    levels = [image]
    for _ in range(2):
        last = levels[-1]
        levels.append(last[::z, ::y, ::x] if made == "stride" else mean_level(last, factors))
    return levels


@pytest.mark.parametrize("made", ["stride", "area average"])
@pytest.mark.parametrize("level", [1, 2])
def test_an_undeclared_level_is_told_from_its_texture(tmp_path, made, level):
    path = write_image(tmp_path / "a.ome.zarr", make_pyramid(NOISE, made), chunks=(8, 16, 16))
    found = level_position(reader_of(path), level, 0, 0)
    assert found.origin == made
    expected = 0.0 if made == "stride" else (2**level - 1) / 2
    assert found.offset == (expected,) * 3
    assert found.step == (2.0**level,) * 3


def test_texture_is_looked_for_where_there_is_some(tmp_path):
    data = np.zeros((40, 160, 160), np.uint16)
    data[25:35, 90:100, 130:140] = NOISE[:10, :10, :10]
    path = write_image(tmp_path / "a.ome.zarr", make_pyramid(data, "stride"), chunks=(8, 16, 16))
    assert level_position(reader_of(path), 1, 0, 0).origin == "stride"


def test_texture_outside_the_lattice_of_crops_is_found_in_stored_chunks(tmp_path):
    data = np.zeros((8, 400, 400), np.uint16)
    data[:, 52:80, 52:80] = NOISE[:8, :28, :28]
    levels = make_pyramid(data, "stride", (1, 2, 2))
    path = write_image(tmp_path / "a.ome.zarr", levels, chunks=(8, 26, 26))
    assert level_position(reader_of(path), 1, 0, 0).origin == "stride"


def test_a_crop_of_a_coarse_level_stays_small_in_level_0(tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "FINE_CROP", 16)
    path = write_image(tmp_path / "a.ome.zarr", make_pyramid(NOISE, "stride"), chunks=(8, 16, 16))
    reader = reader_of(path)
    crop = sampling._textured_crop(reader, 1, 0, 0, (2.0, 2.0, 2.0))
    assert crop.shape == (8, 8, 8)
    assert level_position(reader, 1, 0, 0).origin == "stride"


def test_a_declared_translation_is_believed(tmp_path):
    path = write_image(
        tmp_path / "a.ome.zarr",
        make_pyramid(NOISE, "stride"),
        chunks=(8, 16, 16),
        scale=(2.0, 0.5, 0.5),
        translations=[(10.0, 20.0, 30.0), (11.0, 20.25, 30.125), (13.0, 20.75, 30.75)],
    )
    found = level_position(reader_of(path), 1, 0, 0)
    assert (found.origin, found.offset) == ("declared", (0.5, 0.5, 0.25))
    assert level_position(reader_of(path), 2, 0, 0).offset == (1.5, 1.5, 1.5)
    assert level_position(reader_of(path), 0, 0, 0).offset == (0.0, 0.0, 0.0)


def test_one_translation_of_the_whole_multiscale_says_nothing_about_a_level(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write_image(path, make_pyramid(NOISE, "area average"), chunks=(8, 16, 16))
    moved = [{"type": "translation", "translation": [5.0, 6.0, 7.0]}]
    moved.insert(0, {"type": "scale", "scale": [1.0, 1.0, 1.0]})
    edit_ome(path, lambda ome: ome["multiscales"][0].update(coordinateTransformations=moved))
    assert level_position(reader_of(path), 1, 0, 0).origin == "area average"
    assert plan_of(path).translation_um == (5.0, 6.0, 7.0)


# The plan


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        ("micrometer micrometer micrometer", (1.0, 2.0, 3.0)),
        ("nanometer micrometer mm", (0.001, 2.0, 3000.0)),
        ("pixel pixel pixel", (0.5, 4.0, 1.5)),
        ("furlong furlong furlong", (0.5, 4.0, 1.5)),
        ("- - micrometer", (0.5, 4.0, 3.0)),
    ],
)
def test_voxel_size_scales_levels_and_a_position_only_where_its_unit_is_not_known(
    tmp_path, units, expected
):
    path = write_image(
        tmp_path / "a.ome.zarr",
        make_pyramid(NOISE, "stride", (1, 2, 2)),
        chunks=(8, 16, 16),
        scale=(2.0, 0.5, 0.5),
        translations=[(1.0, 2.0, 3.0), (1.0, 2.25, 3.25), (1.0, 2.75, 3.75)],
    )

    def say(ome):
        for axis, unit in zip(ome["multiscales"][0]["axes"], units.split(), strict=True):
            axis["unit"] = unit.removeprefix("-")

    edit_ome(Path(path), say)
    source = read_image(path)
    scales, translation = level_scales(source, ResultConfig(voxel_size=(1.0, 1.0, 0.25)))
    assert np.allclose(scales, [(1.0, 1.0, 0.25), (1.0, 2.0, 0.5), (1.0, 4.0, 1.0)])
    assert translation == pytest.approx(expected)
    if units.split()[0] == "micrometer":
        same, where = level_scales(source, ResultConfig())
        assert same == [(2.0, 0.5, 0.5), (2.0, 1.0, 1.0), (2.0, 2.0, 2.0)]
        assert where == (1.0, 2.0, 3.0)


def test_voxel_size_changes_the_working_scale_and_not_where_levels_lie(tmp_path):
    path = write_image(
        tmp_path / "a.ome.zarr", make_pyramid(NOISE, "area average"), chunks=(8, 16, 16)
    )
    given = plan_of(path, ResultConfig(voxel_size=(0.5, 0.5, 0.5)), diameter_um=12.0)
    assert given.working.level == 1
    assert given.scale_um == (0.5, 0.5, 0.5)
    assert given.level.step == (2.0, 2.0, 2.0)
    assert given.lattice.scale == (2.0, 2.0, 2.0)
    assert given.lattice.offset == (0.5, 0.5, 0.5)
    assert plan_of(path, diameter_um=12.0).working.level == 0


def test_channels_have_names_and_indices(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write_image(path, [np.stack([NOISE, NOISE, NOISE])], axes="czyx", chunks=(1, 8, 16, 16))
    labels = [{"label": name} for name in ("DAPI", "2", "GFP")]
    edit_ome(path, lambda ome: ome.update(omero={"channels": labels}))
    source = read_image(str(path))
    assert source.channels == ("DAPI", "2", "GFP")
    assert [channel_index(source, c) for c in ("DAPI", "GFP", "0", "1")] == [0, 2, 0, 1]
    # A name goes before an index.
    assert channel_index(source, "2") == 1
    for wrong in ("3", "gfp", "-1", "", "\N{SUPERSCRIPT TWO}"):
        with pytest.raises(ConfigError, match=r"--channel: got .*0 \(DAPI\), 1 \(2\), 2 \(GFP\)"):
            channel_index(source, wrong)


def test_a_model_without_a_size_takes_level_0_as_it_is(tmp_path):
    path = write_image(tmp_path / "a.ome.zarr", make_pyramid(NOISE, "stride"), chunks=(8, 16, 16))
    plan = plan_of(path, diameter_um=40.0, model=make_model(diameter=None))
    assert (plan.working.level, plan.working.zoom) == (0, (1.0, 1.0, 1.0))


def test_options_go_before_the_models_own(tmp_path):
    path = write_image(tmp_path / "a.ome.zarr", [NOISE], chunks=(8, 16, 16))
    plan = plan_of(path)
    assert (plan.prob_thresh, plan.nms_thresh, plan.max_radius) == (0.5, 0.3, 24.0)
    plan = plan_of(path, ResultConfig(prob_thresh=0.7, nms_thresh=0.1, tile=16))
    assert (plan.prob_thresh, plan.nms_thresh) == (0.7, 0.1)
    assert plan.tiles.core[1:] == (16, 16)


def test_a_plan_is_picklable_and_its_record_is_json(tmp_path):
    path = write_image(tmp_path / "a.ome.zarr", make_pyramid(NOISE, "stride"), chunks=(8, 16, 16))
    plan = plan_of(path, diameter_um=24.0)
    assert pickle.loads(pickle.dumps(plan)) == plan
    record = json.loads(json.dumps(plan.to_json()))
    assert (record["level"], record["level_origin"]) == (1, "stride")
    assert record["working_voxel_um"] == [2.0, 2.0, 2.0]


# Fingerprint


def digest(path, config=None, model=None, precision="float32"):
    config = ResultConfig() if config is None else config
    model = make_model() if model is None else model
    return fingerprint(fingerprint_parts(read_image(str(path)), model, config, precision))


@pytest.fixture
def series(tmp_path):
    path = tmp_path / "a.ome.zarr"
    data = np.stack([np.stack([NOISE, NOISE]), np.stack([NOISE, NOISE])])
    write_image(path, [data], axes="tczyx", chunks=(1, 1, 8, 16, 16))
    return path


OPTIONS = [
    ResultConfig(refine="on"),
    ResultConfig(channel="1"),
    ResultConfig(time="1"),
    ResultConfig(diameter=Quantity(9.0, "um")),
    ResultConfig(diameter=Quantity(9.0, "px")),
    ResultConfig(diameter=Quantity(9.5, "um")),
    ResultConfig(voxel_size=(1.0, 1.0, 1.0)),
    ResultConfig(prob_thresh=0.6),
    ResultConfig(nms_thresh=0.4),
    ResultConfig(tile=64),
    ResultConfig(filters=Filters(min_volume=Quantity(9.0, "um3"))),
    ResultConfig(filters=Filters(min_volume=Quantity(9.0, "px"))),
    ResultConfig(filters=Filters(max_volume=Quantity(9.0, "um3"))),
    ResultConfig(filters=Filters(min_prob=0.6)),
    ResultConfig(filters=Filters(min_contrast=0.0)),
    ResultConfig(filters=Filters(min_contrast=0.6)),
    ResultConfig(filters=Filters(min_regularity=0.6)),
    ResultConfig(scales=(1, 2)),
    ResultConfig(scales=(1, 3)),
    ResultConfig(backend="jax"),
    ResultConfig(reference_time=1),
    ResultConfig(measure=("feret",)),
    ResultConfig(level=0),
    ResultConfig(limits="local"),
    ResultConfig(refine="on", outline=0.5),
    ResultConfig(expand=Quantity(-1.0, "um")),
    ResultConfig(elongation=1.0),
    ResultConfig(elongation=1.4),
]


def test_every_option_that_changes_the_result_changes_the_fingerprint(series):
    found = {digest(series, config) for config in [ResultConfig(), *OPTIONS]}
    assert len(found) == 1 + len(OPTIONS)
    covered = {
        field.name
        for field in dataclasses.fields(ResultConfig)
        if any(getattr(o, field.name) != getattr(ResultConfig(), field.name) for o in OPTIONS)
    }
    # Of precision, multiscale and region counts what comes of it, not what was asked for.
    known = {field.name for field in dataclasses.fields(ResultConfig)}
    assert covered == known - {"precision", "multiscale", "inside"}


def test_of_a_region_numbers_and_content_count(series):
    source, model = read_image(str(series)), make_model()
    region = Region(source, "organoids", (), "one")
    changes = [
        {},
        {"content": "two"},
        {"ids": ((1, 2),)},
        {"ids": ((1, 3),)},
    ]
    changed = [dataclasses.replace(region, **change) for change in changes]
    found = {
        fingerprint(fingerprint_parts(source, model, ResultConfig(), "float32", one))
        for one in (None, *changed)
    }
    assert len(found) == 5
    assert digest(series) in found
    moved = dataclasses.replace(region, name="elsewhere", scale=(2.0, 2.0, 2.0))
    parts = fingerprint_parts(source, model, ResultConfig(), "float32", moved)
    assert fingerprint(parts) in found


def test_saying_what_holds_anyway_changes_nothing(series):
    plain = digest(series)
    model = make_model()
    said = ResultConfig(
        channel="0",
        time="0-1",
        prob_thresh=model.prob_thresh,
        nms_thresh=model.nms_thresh,
        tile=model.tile,
    )
    assert digest(series, said) == plain


def test_every_value_of_the_model_but_its_name_and_place_counts(series):
    model = make_model()
    kept = {"name", "version", "folder", "unet", "rays_json"}  # the last two are in the SHA-256
    changes = {
        "sha256": "1" * 64,
        "prob_thresh": 0.61,
        "nms_thresh": 0.31,
        "diameter": 13.0,
        "max_radius": 25.0,
        "tile": 64,
        "context": 16,
        "low_percentile": 2.0,
        "high_percentile": 99.0,
        "refiner": RefinerInfo("nowhere", "2" * 64, 0.2),
    }
    assert set(changes) | kept == {field.name for field in dataclasses.fields(Model)}
    found = {digest(series, model=dataclasses.replace(model, **{k: v})) for k, v in changes.items()}
    assert len(found - {digest(series)}) == len(changes)
    other = dataclasses.replace(model, refiner=RefinerInfo("nowhere", "2" * 64, 0.3))
    assert digest(series, model=other) not in found, "the cut decides too"
    renamed = dataclasses.replace(model, name="b", version="2", folder="elsewhere")
    assert digest(series, model=renamed) == digest(series)


def test_backend_precision_and_algorithm_count(series, monkeypatch):
    plain = digest(series)
    assert digest(series, ResultConfig(backend="jax")) != plain
    assert digest(series, precision="bfloat16") != plain
    # What is asked for does not count, but what comes of it.
    assert digest(series, ResultConfig(precision="float32")) == plain
    monkeypatch.setattr(plan_module, "ALGORITHM", plan_module.ALGORITHM + 1)
    assert digest(series) != plain


def test_the_place_of_the_image_its_name_and_how_it_is_run_do_not_count(series, tmp_path):
    moved = tmp_path / "elsewhere" / "b.ome.zarr"
    shutil.copytree(series, moved)
    edit_ome(moved, lambda ome: ome["multiscales"][0].update(name="renamed"))
    assert digest(moved) == digest(series)
    one = SegmentConfig(str(series), run=RunConfig(workers=1))
    two = SegmentConfig(str(series), run=RunConfig(block_shape=(8, 8, 8), workers=3, memory=10**10))
    assert digest(series, one.result) == digest(series, two.result)


@pytest.mark.parametrize("change", ["shape", "dtype", "chunks", "scale", "unit", "translation"])
def test_what_the_metadata_says_of_the_voxels_counts(tmp_path, change):
    keywords = {"chunks": (8, 16, 16), "scale": (1.0, 1.0, 1.0), "unit": "micrometer"}
    path = write_image(tmp_path / "a.ome.zarr", [NOISE], **keywords)
    data = NOISE
    if change == "shape":
        data = NOISE[:, :, 1:]
    elif change == "dtype":
        data = NOISE.astype(np.int32)
    elif change == "chunks":
        keywords["chunks"] = (8, 16, 32)
    elif change == "scale":
        keywords["scale"] = (1.0, 1.0, 1.5)
    elif change == "unit":
        keywords["unit"] = "nanometer"
    else:
        keywords["translations"] = [(0.0, 0.0, 1.0)]
    other = write_image(tmp_path / "b.ome.zarr", [data], **keywords)
    assert digest(other) != digest(path)
