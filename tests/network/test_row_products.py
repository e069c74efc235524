"""A strip in registers has the bits of the loop that says what it is."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from anystar_batch.network.row_products import (
    OUTPUTS,
    STRIP,
    layer_strip,
    layer_strip_as_loop,
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


def test_arrays_of_another_layout_are_not_taken():
    square = np.zeros((STRIP, STRIP), np.float32)
    with pytest.raises(numba.TypingError):
        layer(square.T, 0, square, square[0], square, 0)
