from __future__ import annotations

import numpy as np

from anystar_batch.network.window import Planes


def planes_of(length, chunk, stop=None):
    data = np.arange(length)[:, None, None]
    asked = []

    def read(start, end):
        asked.append((start, end))
        return data[start:end]

    return Planes(read, length if stop is None else stop, chunk), asked, data


def test_planes_are_read_in_whole_chunks_and_once():
    planes, asked, data = planes_of(100, 8, 50)
    for start, stop in [(3, 5), (4, 12), (4, 6), (10, 17), (30, 33), (40, 50)]:
        np.testing.assert_array_equal(planes.get(start, stop), data[start:stop])
    assert asked == [(3, 8), (8, 16), (16, 24), (30, 40), (40, 50)]


def test_planes_of_a_thick_chunk_are_not_all_read_ahead():
    planes, asked, data = planes_of(1000, 1000)
    for start in (0, 10, 20):
        np.testing.assert_array_equal(planes.get(start, start + 10), data[start : start + 10])
    assert asked == [(0, 10), (10, 20), (20, 30)]
    # Back again: read anew.
    np.testing.assert_array_equal(planes.get(5, 9), data[5:9])
    assert asked[-1] == (5, 9)
