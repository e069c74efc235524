from __future__ import annotations

import resource
from dataclasses import replace

import numpy as np
import pytest

from anystar_batch.stages.workdir import Slice, candidate_type, load_candidates, save_candidates
from anystar_batch.stars.candidates import Candidates, quantise

RAYS = 7


def some(count, seed):
    rng = np.random.default_rng(seed)
    return Candidates(
        rng.integers(0, 10**6, (count, 3)).astype(np.int32),
        rng.uniform(size=count).astype(np.float32),
        quantise(rng.uniform(0.5, 20, (count, RAYS)), 24),
    )


def assert_equal(found, expected):
    assert found.points.tobytes() == expected.points.tobytes()
    assert found.prob.tobytes() == expected.prob.tobytes()
    assert found.dist.tobytes() == expected.dist.tobytes()


@pytest.fixture
def parts():
    sizes = {"0/0.0.0": 4, "0/0.0.1": 0, "0/0.0.2": 9, "0/0.1.0": 1}
    return [
        (key, some(n, seed), np.full(n, seed, np.int8))
        for seed, (key, n) in enumerate(sizes.items())
    ]


def test_candidates_come_back_tile_by_tile(tmp_path, parts):
    slices = save_candidates(tmp_path, "a.npy", parts)
    assert list(slices) == [key for key, _, _ in parts]
    for key, candidates, status in parts:
        found, found_status = load_candidates(tmp_path, [slices[key]], RAYS)
        assert_equal(found, candidates)
        assert found_status.dtype == np.int8
        assert found_status.tolist() == status.tolist()


def test_slices_of_several_files_come_in_the_order_asked(tmp_path, parts):
    one = save_candidates(tmp_path, "one.npy", parts[:2])
    two = save_candidates(tmp_path, "two.npy", parts[2:])
    wanted = [two["0/0.1.0"], one["0/0.0.0"], two["0/0.0.2"]]
    found, status = load_candidates(tmp_path, wanted, RAYS)
    order = [parts[3], parts[0], parts[2]]
    assert_equal(found, Candidates.concatenate([c for _, c, _ in order], RAYS))
    assert status.tolist() == [3] + [0] * 4 + [2] * 9


def test_more_files_than_a_process_may_hold_open(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    slices = []
    for number in range(96):
        part = ("k", some(2, number), np.zeros(2, np.int8))
        slices.append(save_candidates(tmp_path, f"{number}.npy", [part])["k"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        found, _ = load_candidates(tmp_path, slices, RAYS)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found) == 192


def test_nothing_found_writes_no_file(tmp_path):
    slices = save_candidates(tmp_path, "a.npy", [("k", some(0, 0), np.empty(0, np.int8))])
    assert slices == {"k": Slice("a.npy", 0, 0)}
    assert list(tmp_path.iterdir()) == []
    found, status = load_candidates(tmp_path, list(slices.values()), RAYS)
    assert (len(found), len(status)) == (0, 0)
    assert found.dist.shape == (0, RAYS)


def test_no_slices_are_no_candidates(tmp_path):
    found, status = load_candidates(tmp_path, [], RAYS)
    assert (len(found), len(status)) == (0, 0)


def test_the_same_candidates_give_the_same_file_and_leave_nothing_else(tmp_path, parts):
    save_candidates(tmp_path, "a.npy", parts)
    first = (tmp_path / "a.npy").read_bytes()
    save_candidates(tmp_path, "a.npy", parts)
    assert (tmp_path / "a.npy").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_contrasts_come_back_and_cost_four_bytes(tmp_path, parts):
    measured = [
        (k, replace(c, contrast=c.prob * 3) if len(c) else c, status) for k, c, status in parts
    ]
    slices = save_candidates(tmp_path, "a.npy", measured)
    found, status = load_candidates(tmp_path, list(slices.values()), RAYS)
    assert found.contrast.dtype == np.float32
    np.testing.assert_array_equal(found.contrast, found.prob * 3)
    assert status.tolist() == [0] * 4 + [2] * 9 + [3]
    plain, _ = load_candidates(
        tmp_path, list(save_candidates(tmp_path, "b.npy", parts).values()), RAYS
    )
    assert plain.contrast is None
    assert candidate_type(96, ["contrast"]).itemsize == candidate_type(96).itemsize + 4


def test_a_record_is_17_bytes_and_two_a_ray():
    assert candidate_type(96).itemsize == 18 + 96
