"""What is done in registers has the bits of the loop that says what it is."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from anystar_batch.network.row_products import (
    EIGHT,
    OUTPUTS,
    STRIP,
    layer_strip,
    layer_strip_as_loop,
    mean_of_six,
    mean_of_six_as_loop,
    turn,
    turn_as_loop,
    turn_rows,
)


@numba.njit
def layer(rows, first, kernel, bias, out, at):
    for column in range(0, rows.shape[1], STRIP):
        for o in range(0, len(kernel), OUTPUTS):
            layer_strip(rows, first, kernel, bias, o, out, at + o, column)


def layer_as_loop(rows, first, kernel, bias, out, at):
    for column in range(0, rows.shape[1], STRIP):
        for o in range(0, len(kernel), OUTPUTS):
            layer_strip_as_loop(rows, first, kernel, bias, o, out, at + o, column)


@pytest.mark.parametrize("columns", [STRIP, 3 * STRIP])
@pytest.mark.parametrize(("n_out", "n_in"), [(4, 1), (12, 20), (8, 37)])
def test_a_strip_has_the_bits_of_the_loop(n_out, n_in, columns):
    rng = np.random.default_rng(n_in)
    rows = rng.normal(0, 1, (n_in + 5, columns)).astype(np.float32)
    rows[:, ::7] = -0.0
    rows[3, 5], rows[4, 9] = np.float32(1e30), np.float32(-1e-40)
    kernel = rng.normal(0, 1, (n_out, n_in)).astype(np.float32)
    bias = rng.normal(0, 1, n_out).astype(np.float32)
    ours, theirs = (np.full((n_out + 3, columns), 7.0, np.float32) for _ in range(2))
    layer(rows, 3, kernel, bias, ours, 2)
    layer_as_loop(rows, 3, kernel, bias, theirs, 2)
    assert (ours[2:-1] == 0).any()
    assert (ours[2:-1] > 0).any()
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@numba.njit
def turned(rows, first, step, column, out, at, out_step, out_column):
    turn(rows, first, step, column, out, at, out_step, out_column)


@numba.njit
def means_of_six(rows, six, out):
    for which in range(len(six)):
        for column in range(0, rows.shape[1], EIGHT):
            mean_of_six(rows, six, which, column, out)


def test_a_square_is_turned():
    rows = np.arange(40 * 24, dtype=np.float32).reshape(40, 24)
    ours, theirs = np.zeros((20, 19), np.float32), np.zeros((20, 19), np.float32)
    turned(rows, 2, 4, 7, ours, 3, 2, 6)
    turn_as_loop(rows, 2, 4, 7, theirs, 3, 2, 6)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours[3:18:2, 6:14], rows[2:34:4, 7:15].T)
    assert np.count_nonzero(ours) == 64


@pytest.mark.parametrize(("n_rows", "n_columns"), [(33, 96), (8, 8), (5, 30), (16, 7)])
def test_rows_become_columns_whatever_their_number(n_rows, n_columns):
    rng = np.random.default_rng(n_rows)
    rows = rng.normal(0, 1, (2 + 3 * n_rows, n_columns + 1)).astype(np.float32)
    out = np.full((4 + 2 * n_columns, n_rows + 2), 7.0, np.float32)
    turn_rows(rows, 2, 3, n_rows, out, 4, 2, n_columns)
    found = out[4::2, :n_rows].copy()
    np.testing.assert_array_equal(found, rows[2::3, :n_columns].T)
    out[4::2, :n_rows] = 7.0
    assert (out == 7.0).all(), "nothing else is written"


def test_means_of_six_have_the_bits_of_the_loop():
    rng = np.random.default_rng(6)
    rows = (rng.normal(0, 1, (30, 40)) * 10.0 ** rng.integers(-6, 6, (30, 40))).astype(np.float32)
    six = rng.integers(0, 30, (30, 6))
    ours, theirs = np.zeros_like(rows), np.zeros_like(rows)
    means_of_six(rows, six, ours)
    for which in range(30):
        for column in range(0, 40, EIGHT):
            mean_of_six_as_loop(rows, six, which, column, theirs)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))
    np.testing.assert_allclose(ours, rows[six].mean(axis=1), rtol=1e-3, atol=1e-3)


def test_arrays_of_another_layout_are_not_taken():
    square = np.zeros((STRIP, STRIP), np.float32)
    with pytest.raises(numba.TypingError):
        layer(square.T, 0, square, square[0], square, 0)
    with pytest.raises(numba.TypingError):
        turned(square.T, 0, 1, 0, square, 0, 1, 0)
    with pytest.raises(numba.TypingError):
        means_of_six(square.T, np.zeros((1, 6), np.int64), square)
