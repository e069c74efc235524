from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.errors import AnyStarBatchError
from tests.support.checkout import ROOT
from trainer import feed as module
from trainer.feed import echoed, feed, make_batch


def target(config):
    return config.network.grid, config.network.n_rays


def alone(config, index):
    return make_batch(config.seed, index, config.batch, config.sample, target(config))


def assert_same(a, b):
    np.testing.assert_array_equal(a.image, b.image)
    np.testing.assert_array_equal(a.prob, b.prob)
    np.testing.assert_array_equal(a.dist, b.dist)


def test_a_batch_holds_images_targets_and_weights(tiny):
    batch = alone(tiny, 3)
    assert batch.image.shape == (2, 16, 16, 16, 1)
    assert batch.prob.shape == (2, 8, 8, 8, 1)
    assert batch.dist.shape == (2, 8, 8, 8, 17)
    np.testing.assert_array_equal(batch.dist[..., -1:], batch.prob.astype(np.float16))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_sequence(tiny, workers):
    config = dataclasses.replace(tiny, workers=workers)
    with feed(config, 4) as batches:
        for index, batch in enumerate(islice(batches, 3), start=4):
            assert_same(batch, alone(config, index))


def test_an_echo_comes_later_with_other_intensities_and_the_same_truth(tiny):
    fresh = [alone(tiny, k) for k in range(module.LAG + 3)]
    heard = list(echoed(iter(fresh), 2, 0))
    assert len(heard) == len(fresh) + 3
    assert heard[: module.LAG + 1] == fresh[: module.LAG + 1]
    echo = heard[module.LAG + 1]
    assert echo.dist is fresh[0].dist
    assert echo.prob is fresh[0].prob
    assert not np.array_equal(echo.image, fresh[0].image)
    assert 0.0 <= echo.image.min() <= echo.image.max() <= 1.0
    assert heard[module.LAG + 2] is fresh[module.LAG + 1]


def test_without_echo_every_batch_comes_once(tiny):
    fresh = [alone(tiny, k) for k in range(module.LAG + 2)]
    assert list(echoed(iter(fresh), 1, 0)) == fresh


def test_a_dead_worker_is_reported(tiny, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    impossible = dataclasses.replace(tiny.network, n_rays=3)
    with (
        feed(dataclasses.replace(tiny, network=impossible), 0) as batches,
        pytest.raises(AnyStarBatchError, match="worker 0 sent no batch"),
    ):
        next(batches)


KILLED = """
import os, signal
from itertools import islice
from pathlib import Path
from trainer import feed
from trainer.config import TrainConfig

if __name__ == "__main__":
    config = TrainConfig.from_json(Path("config.json").read_text())
    with feed.feed(config, 0) as batches:
        next(batches)
        import multiprocessing
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_outlive_a_killed_reader(tiny, tmp_path):
    (tmp_path / "config.json").write_text(tiny.to_json())
    (tmp_path / "killed.py").write_text(KILLED)
    # Not a pipe: a worker that stayed would hold it open, and the test with it.
    with (tmp_path / "out.txt").open("w") as out:
        subprocess.run(
            [sys.executable, "killed.py"],
            stdout=out,
            stderr=subprocess.DEVNULL,
            check=False,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
    worker = int((tmp_path / "out.txt").read_text())
    end = time.monotonic() + 300
    while Path(f"/proc/{worker}").exists() and time.monotonic() < end:
        time.sleep(0.2)
    assert not Path(f"/proc/{worker}").exists()
