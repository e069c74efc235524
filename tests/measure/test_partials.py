from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anystar_batch.geometry import Box, grid_box, grid_shape, iter_grid
from anystar_batch.measure.partials import (
    FLOAT,
    INTEGER,
    Partials,
    Statistics,
    concatenate,
    intensity_dtype,
    merge,
    partials,
)

SHAPE = (10, 12, 14)
CHUNK = (4, 5, 6)


def volume(seed: int, dtype: str, channels: int = 2) -> tuple[np.ndarray, list[np.ndarray]]:
    """Labels in blobs that cross chunk borders, and noise of a type's whole range."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, tuple(-(-n // 3) for n in SHAPE))
    labels = np.kron(coarse, np.ones((3, 3, 3), int))[tuple(map(slice, SHAPE))].astype(np.uint32)
    images = []
    for _ in range(channels):
        if np.dtype(dtype).kind == "f":
            image = (rng.normal(1000, 1, SHAPE)).astype(dtype)
            image[rng.random(SHAPE) < 0.1] = np.nan
        else:
            info = np.iinfo(dtype)
            image = rng.integers(info.min, info.max, SHAPE, dtype=dtype, endpoint=True)
        images.append(image)
    return labels, images


def chunks_of(labels, images, origin=(0, 0, 0)) -> list[Partials]:
    found = []
    counts = grid_shape(labels.shape, CHUNK)
    for n, index in enumerate(iter_grid(counts)):
        box = grid_box(index, CHUNK, labels.shape)
        start = tuple(o + a for o, a in zip(origin, box.start, strict=True))
        found.append(partials(labels[box.slices], [i[box.slices] for i in images], start, n))
    return found


def as_bytes(statistics: Statistics) -> tuple[bytes, bytes]:
    return statistics.shape.tobytes(), statistics.intensity.tobytes()


DTYPES = ["uint8", "uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_grouping_and_order_gives_the_same_bytes(dtype, data):
    labels, images = volume(data.draw(st.integers(0, 3)), dtype)
    parts = chunks_of(labels, images)
    expected = as_bytes(merge(parts))
    order = data.draw(st.permutations(range(len(parts))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(parts) - 1), max_size=6)))
    groups = np.split(np.array(order), cuts)
    blocks = [concatenate([parts[i] for i in group]) for group in groups]
    assert as_bytes(merge(blocks)) == expected
    assert as_bytes(merge([concatenate(blocks)])) == expected


@pytest.mark.parametrize(
    "dtype", [d for d in DTYPES if np.dtype(d).kind in "ui" and d[-2:] != "64"]
)
def test_integer_sums_are_exact_for_any_chunks(dtype):
    labels, images = volume(4, dtype)
    many, one = merge(chunks_of(labels, images)), merge([partials(labels, images, (0, 0, 0), 0)])
    assert as_bytes(many) == as_bytes(one)
    assert many.intensity.dtype == INTEGER
    for n, label in enumerate(many.shape["label"]):
        inside = labels == label
        row = many.shape[n]
        assert row["num_voxels"] == inside.sum()
        where = np.nonzero(inside)
        assert row["sums"].tolist() == [int(w.sum()) for w in where]
        pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
        assert row["moments"].tolist() == [int((where[a] * where[b]).sum()) for a, b in pairs]
        assert row["low"].tolist() == [int(w.min()) for w in where]
        assert row["high"].tolist() == [int(w.max()) + 1 for w in where]
        for channel, image in enumerate(images):
            values = [int(v) for v in image[inside]]
            found = many.intensity[n, channel]
            assert int(found["sum"]) == sum(values)
            squares = (int(found["squares_high"]) << 32) + int(found["squares_low"])
            assert squares == sum(v * v for v in values)
            assert (found["min"], found["max"]) == (min(values), max(values))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint64"])
def test_float_sums_are_close_and_leave_nan_out(dtype):
    labels, images = volume(5, dtype)
    found = merge(chunks_of(labels, images))
    assert found.intensity.dtype == FLOAT
    for n, label in enumerate(found.shape["label"]):
        for channel, image in enumerate(images):
            values = image[labels == label].astype(np.float64)
            values = values[~np.isnan(values)]
            row = found.intensity[n, channel]
            assert row["count"] == len(values)
            assert row["mean"] == pytest.approx(values.mean(), rel=1e-13)
            assert row["m2"] / len(values) == pytest.approx(values.var(), rel=1e-10)
            assert (row["min"], row["max"]) == (values.min(), values.max())


def test_float_mean_keeps_its_digits_far_from_zero():
    labels = np.ones(SHAPE, np.uint32)
    image = np.random.default_rng(0).random(SHAPE) + 1e6
    row = merge(chunks_of(labels, [image])).intensity[0, 0]
    assert row["m2"] / row["count"] == pytest.approx(image.var(), rel=1e-9)


def test_float_sum_loses_no_small_value_beside_a_large_one():
    image = np.array([1e16, 1.0, -1e16, 1.0]).reshape(1, 2, 2)
    for values in (image, image[..., ::-1]):
        row = partials(np.ones((1, 2, 2), np.uint32), [values], (0, 0, 0), 0).intensity[0, 0]
        assert row["mean"] == 0.5


def test_labels_that_are_nan_throughout_have_no_values():
    labels = np.zeros((2, 2, 4), np.uint32)
    labels[..., :2], labels[..., 2:] = 1, 2
    image = np.full((2, 2, 4), np.nan)
    image[..., 2:] = 5
    found = merge([partials(labels, [image], (0, 0, 0), 0)])
    assert found.intensity["count"].tolist() == [[0], [8]]
    assert found.intensity["mean"].tolist() == [[0.0], [5.0]]


def test_infinite_values_pass_without_warning():
    labels = np.ones((2, 2, 4), np.uint32)
    image = np.ones((2, 2, 4))
    image[0, 0, 0] = np.inf
    parts = [partials(labels, [image], (0, 0, 4 * n), n) for n in range(3)]
    row = merge(parts).intensity[0, 0]
    assert row["mean"] == np.inf
    assert row["max"] == np.inf
    assert np.isnan(row["m2"])


def test_background_gives_no_rows():
    empty = partials(np.zeros((3, 3, 3), np.uint32), [np.zeros((3, 3, 3), "u1")], (0, 0, 0), 0)
    assert empty.shape.shape == (0,)
    assert empty.intensity.shape == (0, 1)
    assert len(merge([empty, empty]).shape) == 0
    nothing = partials(np.zeros((0, 3, 3), np.uint32), [], (0, 0, 0), 0)
    assert nothing.intensity.shape == (0, 0)


def test_second_moments_wrap_but_stay_exact_modulo_two_to_the_64():
    origin = (190_000, 199_000, 150_000)
    labels = np.ones(SHAPE, np.uint32)
    part = partials(labels, [], origin, 0)
    # As many chunks as bring the sum of squares over 2^64.
    many = [Partials(part.shape.copy(), part.intensity) for _ in range(3)]
    for n, p in enumerate(many):
        p.shape["chunk"] = n
        p.shape["moments"] += np.uint64(2**63)
    z = np.arange(SHAPE[0]) + origin[0]
    exact = 3 * (int((z * z).sum()) * SHAPE[1] * SHAPE[2] + 2**63)
    assert int(merge(many).shape["moments"][0, 0]) == exact % 2**64


def test_measuring_a_chunk_twice_is_an_error():
    part = partials(np.full((2, 2, 2), 7, np.uint32), [], (0, 0, 0), 3)
    with pytest.raises(ValueError, match="label 7 was measured twice in chunk 3"):
        merge([part, part])


def test_images_of_another_shape_or_type_are_refused():
    labels = np.zeros((2, 2, 2), np.uint32)
    with pytest.raises(ValueError, match=r"got an image uint8 \(2, 2, 3\)"):
        partials(labels, [np.zeros((2, 2, 3), "u1")], (0, 0, 0), 0)
    with pytest.raises(ValueError, match="expected uint8"):
        partials(labels, [np.zeros((2, 2, 2), d) for d in ("u1", "u2")], (0, 0, 0), 0)


def test_kind_of_sums_follows_the_type():
    assert intensity_dtype(np.dtype("uint32")) == INTEGER
    assert intensity_dtype(np.dtype("bool")) == INTEGER
    assert intensity_dtype(np.dtype("int64")) == FLOAT
    assert intensity_dtype(np.dtype("float16")) == FLOAT


def test_origin_moves_boxes_and_centroids_only():
    labels, images = volume(6, "uint16")
    here, there = merge(chunks_of(labels, images)), merge(chunks_of(labels, images, (70, 80, 90)))
    assert np.array_equal(here.shape["low"] + (70, 80, 90), there.shape["low"])
    moved = here.shape["sums"] + here.shape["num_voxels"][:, None].astype("u8") * np.uint64(80)
    assert np.array_equal(moved[:, 1], there.shape["sums"][:, 1])
    assert np.array_equal(here.intensity, there.intensity)


def test_views_in_any_memory_order_give_the_same():
    labels, images = volume(7, "uint16")
    box = Box((1, 2, 3), (9, 10, 11)).slices
    plain = partials(labels[box].copy(), [i[box].copy() for i in images], (0, 0, 0), 0)
    views = partials(labels[box], [np.asfortranarray(i[box]) for i in images], (0, 0, 0), 0)
    assert as_bytes(merge([plain])) == as_bytes(merge([views]))
