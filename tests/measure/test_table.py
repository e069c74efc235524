from __future__ import annotations

import csv
import errno
import os

import numpy as np
import pytest
from skimage.measure import regionprops_table

from anystar_batch.errors import OutputError
from anystar_batch.measure import table
from anystar_batch.measure.partials import Partials, merge, partials
from anystar_batch.measure.table import Frame, batches, column_names, columns
from anystar_batch.measure.table_files import open_table

SCALE = (2.0, 0.5, 0.25)
MOVED = (100.0, -3.0, 7.5)


def scene(shape=(24, 40, 44), dtype="uint16", seed=0):
    """Overlapping ellipsoids of many sizes, a flat one, a line and a single voxel."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    for label in range(1, 12):
        centre, radii = rng.random(3) * shape, 1.5 + 8 * rng.random(3)
        labels[(((grid - centre) / radii) ** 2).sum(-1) <= 1] = label
    labels[3, 4:9, 5:13] = 12
    labels[20, 30, 5:19] = 13
    labels[10, 20, 22] = 14
    image = rng.normal(300, 40, (*shape, 2))
    return labels, [image[..., c].astype(dtype) for c in range(2)]


def measured(labels, images, origin=(0, 0, 0), step=16):
    parts = []
    for n, start in enumerate(range(0, labels.shape[0], step)):
        cut = slice(start, start + step)
        first = (origin[0] + start, origin[1], origin[2])
        parts.append(partials(labels[cut], [i[cut] for i in images], first, n))
    return merge(parts)


def write(path, statistics, frame, prob, times, scores=None):
    with open_table(path) as table:
        for batch in batches(statistics, frame, prob, times, scores):
            table.write(batch)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("origin", [(0, 0, 0), (199_000, 180_001, 163_007)])
def test_columns_are_those_of_scikit_image(dtype, origin):
    labels, images = scene(dtype=dtype)
    volume = tuple(o + n for o, n in zip(origin, labels.shape, strict=True))
    found = columns(measured(labels, images, origin), Frame(volume, SCALE, MOVED, ("a", "b")))
    voxels = regionprops_table(
        labels,
        np.stack(images, -1).astype(np.float64),  # scikit-image sums float32 in float32
        properties=(
            "label",
            "num_pixels",
            "centroid",
            "bbox",
            "intensity_mean",
            "intensity_std",
            "intensity_min",
            "intensity_max",
        ),
    )
    physical = regionprops_table(
        labels,
        spacing=SCALE,
        properties=(
            "area",
            "centroid",
            "equivalent_diameter_area",
            "inertia_tensor_eigvals",
            "axis_major_length",
            "axis_minor_length",
        ),
    )

    def same(name, expected, **more):
        assert np.allclose(found[name], expected, **({"rtol": 1e-9, "atol": 0} | more)), name

    same("label", voxels["label"])
    same("num_voxels", voxels["num_pixels"])
    same("volume_um3", physical["area"])
    same("equivalent_diameter_um", physical["equivalent_diameter_area"])
    for i, a in enumerate("zyx"):
        same(f"centroid_{a}", voxels[f"centroid-{i}"] + origin[i])
        moved = physical[f"centroid-{i}"] + MOVED[i] + SCALE[i] * origin[i]
        same(f"centroid_{a}_um", moved)
        same(f"bbox_{a}_min", voxels[f"bbox-{i}"] + origin[i])
        same(f"bbox_{a}_max", voxels[f"bbox-{i + 3}"] + origin[i])
    # Exactly flat objects: scikit-image's own rounding, at most 1e-7 of the long axis.
    flat = {"atol": 1e-6}
    same("axis_major_um", physical["axis_major_length"])
    same("axis_minor_um", physical["axis_minor_length"], **flat)
    e = [physical[f"inertia_tensor_eigvals-{i}"] for i in range(3)]
    middle = np.sqrt(10 * np.maximum(e[0] - e[1] + e[2], 0))
    same("axis_middle_um", middle, **flat)
    solid = found["bbox_z_max"] - found["bbox_z_min"] > 1
    assert solid.sum() >= 8
    for name, expected in (("middle", middle), ("minor", physical["axis_minor_length"])):
        assert np.allclose(found[f"axis_{name}_um"][solid], expected[solid], rtol=1e-9, atol=0)
    for i, channel in enumerate("ab"):
        for what in ("mean", "min", "max"):
            same(f"intensity_{what}_{channel}", voxels[f"intensity_{what}-{i}"])
            exact = [getattr(images[i][labels == n].astype(float), what)() for n in found["label"]]
            same(f"intensity_{what}_{channel}", exact)
        std = [images[i][labels == n].astype(float).std() for n in found["label"]]
        same(f"intensity_std_{channel}", std)
        same(f"intensity_std_{channel}", voxels[f"intensity_std-{i}"])
        total = [images[i][labels == n].astype(float).sum() for n in found["label"]]
        same(f"intensity_sum_{channel}", total)


def test_objects_at_any_face_touch_the_border():
    labels = np.zeros((6, 7, 8), np.uint32)
    for n, where in enumerate(
        [(0, 3, 3), (5, 3, 3), (3, 0, 3), (3, 6, 3), (3, 3, 0), (3, 3, 7), (3, 3, 3)], 1
    ):
        labels[where] = n
    found = columns(measured(labels, []), Frame(labels.shape, SCALE, MOVED, ()))
    assert found["touches_border"].tolist() == [True] * 6 + [False]


def test_lines_in_any_direction_have_no_width():
    labels = np.zeros((40, 40, 600), np.uint32)
    for n, (z, y, x) in enumerate(np.random.default_rng(0).integers(-4, 5, (50, 3)), 1):
        steps = np.arange(5)
        labels[20 + z * steps, 20 + y * steps, 12 * n - 6 + np.sign(x) * steps] = n
    found = columns(measured(labels, []), Frame(labels.shape, (0.3, 0.1, 0.7), MOVED, ()))
    for a in ("minor", "middle"):
        assert np.isfinite(found[f"axis_{a}_um"]).all()
        assert found[f"axis_{a}_um"].max() < 1e-6


def test_integer_variance_has_no_rounding_error_at_all():
    labels = np.ones((4, 4, 4), np.uint32)
    image = np.full((4, 4, 4), 2**32 - 2, np.uint32)
    image[:2] += 1
    found = columns(measured(labels, [image], step=1), Frame((4, 4, 4), SCALE, MOVED, ("a",)))
    assert found["intensity_std_a"].tolist() == [0.5]
    assert found["intensity_sum_a"].tolist() == [int(image.astype(np.int64).sum())]
    assert found["intensity_max_a"].tolist() == [2**32 - 1]


def test_labels_without_a_value_are_nan_with_sum_zero():
    labels = np.ones((2, 2, 2), np.uint32)
    image = np.full((2, 2, 2), np.nan, np.float32)
    found = columns(measured(labels, [image]), Frame((2, 2, 2), SCALE, MOVED, ("a",)))
    for what in ("mean", "std", "min", "max"):
        assert np.isnan(found[f"intensity_{what}_a"]).all()
    assert found["intensity_sum_a"].tolist() == [0.0]


def test_objects_too_large_for_exact_moments_are_refused():
    part = partials(np.ones((2, 2, 2), np.uint32), [], (0, 0, 0), 0)
    shape = part.shape.copy()
    shape["high"], shape["num_voxels"] = 200_000, 10**9
    with pytest.raises(ValueError, match="too large for exact second moments"):
        columns(merge([Partials(shape, part.intensity)]), Frame((9, 9, 9), SCALE, MOVED, ()))


def test_names_of_the_columns_are_fixed():
    assert column_names(("DAPI", "GFP"), has_time=True) == [
        *("label", "t", "prob", "centroid_z", "centroid_y", "centroid_x"),
        *("centroid_z_um", "centroid_y_um", "centroid_x_um"),
        *("bbox_z_min", "bbox_z_max", "bbox_y_min", "bbox_y_max", "bbox_x_min", "bbox_x_max"),
        *("num_voxels", "volume_um3", "equivalent_diameter_um"),
        *("axis_major_um", "axis_middle_um", "axis_minor_um", "touches_border"),
        *("intensity_mean_DAPI", "intensity_std_DAPI", "intensity_min_DAPI"),
        *("intensity_max_DAPI", "intensity_sum_DAPI"),
        *("intensity_mean_GFP", "intensity_std_GFP", "intensity_min_GFP"),
        *("intensity_max_GFP", "intensity_sum_GFP"),
    ]
    assert "t" not in column_names((), has_time=False)


def test_file_reads_back_to_nine_digits_and_has_fixed_bytes(tmp_path, monkeypatch):
    labels, images = scene(dtype="float32")
    statistics = measured(labels, images)
    frame = Frame(labels.shape, SCALE, MOVED, ("DAPI, nuclei", "1"))
    count = int(labels.max())
    prob = np.linspace(0.1, 0.95, count, dtype=np.float32)
    times = np.arange(count) % 3
    path = tmp_path / "a.csv"
    write(path, statistics, frame, prob, times)
    content = path.read_bytes()
    assert b"\r" not in content
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == column_names(frame.channels, has_time=True)
    assert [int(r["label"]) for r in found] == list(range(1, count + 1))
    assert [int(r["t"]) for r in found] == times.tolist()
    np.testing.assert_allclose([float(r["prob"]) for r in found], prob, rtol=1e-6)
    assert found[0]["prob"] == "0.1"
    assert {r["touches_border"] for r in found} == {"0", "1"}
    expected = columns(statistics, frame)
    for name, values in expected.items():
        exact = values.dtype.kind in "biu"
        read = [float(r[name]) for r in found]
        np.testing.assert_allclose(read, values, rtol=0 if exact else 5e-9, err_msg=name)
    written = {number.partition("e")[0] for r in found for number in r.values()}
    assert max(len(number.lstrip("-0.").replace(".", "")) for number in written) == 9
    monkeypatch.setattr(table, "ROWS", 3)
    write(path, statistics, frame, prob, times)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_further_scores_stand_beside_prob(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "ROWS", 1)
    labels = np.zeros((4, 4, 4), np.uint32)
    labels[0], labels[2] = 2, 1
    statistics = measured(labels, [labels.astype("u1")])
    path = tmp_path / "a.csv"
    frame = Frame((4, 4, 4), SCALE, MOVED, ("0",))
    scores = {"contrast": np.array([np.nan, 0.25], np.float32)}
    prob = np.array([0.5, 0.75], np.float32)
    write(path, statistics, frame, prob, None, scores)
    header, *found = [line.split(",")[:4] for line in path.read_text().splitlines()]
    assert header == ["label", "prob", "contrast", "centroid_z"]
    assert [row[:3] for row in found] == [["1", "0.5", "nan"], ["2", "0.75", "0.25"]]


def test_table_of_nothing_is_a_header(tmp_path):
    statistics = measured(np.zeros((4, 4, 4), np.uint32), [np.zeros((4, 4, 4), "u1")])
    path = tmp_path / "a.csv"
    frame = Frame((4, 4, 4), SCALE, MOVED, ("0",))
    write(path, statistics, frame, np.empty(0, np.float32), None)
    assert path.read_text() == ",".join(column_names(("0",), has_time=False)) + "\n"
    assert len(columns(statistics, frame)["label"]) == 0


def test_rows_take_prob_and_time_in_their_order(tmp_path):
    labels = np.zeros((4, 4, 4), np.uint32)
    labels[0], labels[2] = 3, 1
    statistics = measured(labels, [])
    frame = Frame((4, 4, 4), SCALE, MOVED, ())
    path = tmp_path / "a.csv"
    write(path, statistics, frame, np.array([0.1, 0.3]), np.array([5, 7]))
    lines = path.read_text().splitlines()[1:]
    assert [line.split(",")[:3] for line in lines] == [["1", "5", "0.1"], ["3", "7", "0.3"]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("step", [1, 4, 100])
def test_pieces_are_the_whole(tmp_path, monkeypatch, suffix, step):
    pytest.importorskip("pyarrow") if suffix == ".parquet" else None
    labels, images = scene()
    statistics = measured(labels, images)
    count = len(statistics.shape)
    prob = np.linspace(0.1, 0.95, count, dtype=np.float32)
    frame = Frame(labels.shape, SCALE, MOVED, ('two\nlines, "quoted"', "1"))
    monkeypatch.setattr(table, "ROWS", step)
    write(tmp_path / f"whole{suffix}", statistics, frame, prob, None)
    pieces = [tmp_path / f"{start}{suffix}" for start in range(0, count, step)]
    for at, piece in enumerate(pieces):
        rows = slice(at * step, (at + 1) * step)
        with open_table(piece, goes_on=at > 0) as part:
            for batch in batches(statistics.select(rows), frame, prob[rows], None):
                part.write(batch)
    with open_table(tmp_path / f"joined{suffix}") as joined:
        for piece in pieces:
            joined.append(piece)
    found, expected = (tmp_path / f"{name}{suffix}" for name in ("joined", "whole"))
    assert found.read_bytes() == expected.read_bytes()


def test_full_disk_leaves_the_older_table(tmp_path, monkeypatch):
    statistics = measured(np.ones((4, 4, 4), np.uint32), [])
    frame = Frame((4, 4, 4), SCALE, MOVED, ())
    path = tmp_path / "a.csv"
    path.write_text("older")

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\)"):
        write(path, statistics, frame, np.ones(1), None)
    assert path.read_text() == "older"
    assert len(list(tmp_path.iterdir())) == 1
