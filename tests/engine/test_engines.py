"""Work in this process and on a cluster: failures, retries, lost workers, and no noise."""

import logging
import os
import pickle
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from anystar_batch.engine import cluster
from anystar_batch.engine.attempts import Failure, Left, attempt, failure_of
from anystar_batch.engine.engines import (
    RETRIES,
    WINDOW,
    InlineEngine,
    natural_workers,
    open_engine,
    threads_per_worker,
)
from anystar_batch.engine.stop import Stop
from anystar_batch.errors import ConfigError, DataError, ImageError, OutputError, WorkersError


@pytest.fixture(scope="module")
def two_workers():
    before = own_environment()
    with open_engine(2, 4 * 10**9) as engine:
        yield engine
    assert own_environment() == before, "Dask's settings for workers are gone from this process"


def own_environment():
    return {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}


def double(n):
    return 2 * n


def refuse(folder):
    _count(folder)
    raise ImageError("on purpose")


def stumble(folder):
    """A file server that answers the third time."""
    if _count(folder) <= RETRIES:
        try:
            raise OSError(116, "Stale file handle")
        except OSError as error:
            raise DataError("cannot be read") from error
    return "read"


def no_space(folder):
    _count(folder)
    try:
        raise OSError(28, "No space left on device")
    except OSError as error:
        raise OutputError(28, "no space left") from error


def bug(folder):
    _count(folder)
    raise ZeroDivisionError("a bug\nin two lines")


def die_once(folder):
    if _count(folder) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done after all"


def die(folder):
    _count(folder)
    os.kill(os.getpid(), signal.SIGKILL)


def environment(_):
    return os.environ["OMP_NUM_THREADS"]


def nap(n):
    time.sleep(0.2)
    return n


def press(_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return os.getpid()


def _count(folder):
    """Note a call in a file of its own; return how many there were."""
    Path(folder, f"{time.time_ns()}-{os.getpid()}").touch()
    return len(list(Path(folder).iterdir()))


def calls(folder):
    return len(list(Path(folder).iterdir()))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_inline_yields_in_order_and_goes_on_after_a_failure(threads):
    found = list(InlineEngine(threads).run(lambda n: 12 // n, [3, 0, 4]))
    assert [task for task, _ in found] == [3, 0, 4]
    assert [found[0][1], found[2][1]] == [4, 3]
    assert found[1][1] == Failure("unexpected ZeroDivisionError: " + _division(), False)


def _division():
    try:
        return str(1 // 0)
    except ZeroDivisionError as error:
        return str(error)


@pytest.mark.parametrize("threads", [1, 2])
def test_inline_lets_an_interrupt_through(threads):
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(InlineEngine(threads).run(interrupted, [1]))


def test_inline_threads_work_side_by_side_and_not_far_ahead():
    together = threading.Barrier(2, timeout=300)
    begun = []

    def meet(n):
        begun.append(n)
        if n < 6:
            together.wait()
        return n

    results = InlineEngine(2).run(meet, range(50))
    assert [next(results) for _ in range(6)] == [(n, n) for n in range(6)]
    assert max(begun) < 6 + 2 * 2
    # Who stops listening stops the work.
    results.close()
    count = len(begun)
    time.sleep(0.05)
    assert len(begun) == count < 20


@pytest.mark.parametrize("threads", [1, 2])
def test_inline_begins_nothing_more_once_it_is_time_to_stop(threads):
    stop, begun, asked = Stop(), [], threading.Event()

    def work(n):
        begun.append(n)
        if n == 3:
            stop.ask("by a test")
            asked.set()
        if n > 3:
            assert asked.wait(300)
        return n

    pulled = []
    found = list(InlineEngine(threads, stop).run(work, (pulled.append(n) or n for n in range(50))))
    assert sorted(begun) == [n for n, _ in found], "what was begun is not lost"
    assert 4 <= len(found) <= 3 + threads
    assert len(pulled) <= 4 + 2 * threads
    assert (stop.is_due, stop.why) == (True, "by a test")
    assert list(InlineEngine(threads, Stop(0)).run(work, range(5))) == []


def test_a_cluster_begins_nothing_more_once_it_is_time_to_stop(two_workers, monkeypatch):
    monkeypatch.setattr(two_workers, "stop", Stop())
    found = []
    for task, result in two_workers.run(double, range(100)):
        found.append((task, result))
        two_workers.stop.ask("by a test")
    assert all(result == 2 * task for task, result in found)
    assert 1 <= len(found) <= 2 * WINDOW
    monkeypatch.setattr(two_workers, "stop", Stop(0.3))
    found = list(two_workers.run(nap, range(100)))
    assert all(isinstance(result, int) for _, result in found), "the workers left the others"
    assert len(found) < 2 * WINDOW
    monkeypatch.setattr(two_workers, "stop", Stop(0))
    assert list(two_workers.run(double, range(5))) == []


def test_a_worker_knows_the_time_at_which_to_stop():
    assert attempt(double, 4, pickle.loads(pickle.dumps(Stop(60)))) == 8
    assert isinstance(attempt(double, 4, pickle.loads(pickle.dumps(Stop(0)))), Left)
    assert isinstance(attempt(double, 4, Stop(0)), Left)
    asked = Stop()
    asked.ask("by a test")
    assert not pickle.loads(pickle.dumps(asked)).is_due


def test_one_worker_needs_no_cluster():
    with open_engine(1, 10**9) as engine:
        assert isinstance(engine, InlineEngine)


def test_too_little_memory_for_so_many_workers():
    message = r"--workers: 8 share 1\.0 GB; expected at least 0\.6 GB for each"
    with pytest.raises(ConfigError, match=message), open_engine(8, 10**9):
        pass


def test_more_tasks_than_the_window_and_fewer_than_workers(two_workers):
    assert sorted(r for _, r in two_workers.run(double, list(range(30)))) == list(range(0, 60, 2))
    assert list(two_workers.run(double, [4])) == [(4, 8)]
    assert list(two_workers.run(double, [])) == []


@pytest.mark.parametrize(
    ("function", "times", "expected"),
    [
        (refuse, 1, Failure("on purpose", True)),
        (no_space, 1, Failure("no space left", True)),
        (stumble, 1 + RETRIES, "read"),
        (bug, 1 + RETRIES, Failure("unexpected ZeroDivisionError: a bug in two lines", False)),
    ],
)
def test_only_what_may_pass_is_tried_again(two_workers, tmp_path, function, times, expected):
    assert list(two_workers.run(function, [str(tmp_path)])) == [(str(tmp_path), expected)]
    assert calls(tmp_path) == times


def double_most(n):
    if n in {70, 71}:
        raise ValueError(f"not {n}")
    return 2 * n


def test_short_tasks_travel_together_and_each_answers_for_itself(two_workers, monkeypatch):
    sent = []
    submit = two_workers._client.submit
    monkeypatch.setattr(
        two_workers._client, "submit", lambda *a, **k: sent.append(len(a[2])) or submit(*a, **k)
    )
    found = list(two_workers.run(double_most, range(100)))
    assert sorted(task for task, _ in found) == list(range(100))
    failed = {task: r.reason for task, r in found if isinstance(r, Failure)}
    assert failed == {n: f"unexpected ValueError: not {n}" for n in (70, 71)}
    assert all(r == 2 * task for task, r in found if task not in failed)
    assert max(sent) > 10
    assert len(sent) < 90


def test_workers_that_die_while_they_start_are_started_again(monkeypatch):
    import distributed

    real, starts = distributed.SpecCluster, []

    def dying(*arguments, **options):
        starts.append(1)
        if len(starts) < 3:
            raise RuntimeError("Nanny failed to start.") from ValueError("killed")
        return real(*arguments, **options)

    monkeypatch.setattr(distributed, "SpecCluster", dying)
    with open_engine(2, 3 * 10**9) as engine:
        assert [result for _, result in engine.run(abs, [-3])] == [3]
    assert len(starts) == 3
    starts.clear()
    monkeypatch.setattr(cluster, "STARTS", 2)
    told = r"could not be started \(killed\).*fewer --workers"
    with pytest.raises(WorkersError, match=told), open_engine(2, 3 * 10**9):
        pass


def test_a_killed_worker_is_replaced_and_its_task_redone(two_workers, tmp_path, capfd):
    assert list(two_workers.run(die_once, [str(tmp_path)])) == [(str(tmp_path), "done after all")]
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def test_ctrl_c_is_left_to_the_runs_own_process(two_workers, capfd):
    assert all(r != os.getpid() for _, r in two_workers.run(press, [1, 2, 3]))
    assert capfd.readouterr().err == ""


def test_a_task_that_kills_every_worker_is_named_and_the_others_are_done(tmp_path, capfd):
    with open_engine(2, 4 * 10**9) as engine:
        ((task, result),) = engine.run(die, [str(tmp_path)])
        assert task == str(tmp_path)
        assert result.is_expected
        assert "killed repeatedly" in result.reason
        assert "fewer --workers" in result.reason
        assert [r for _, r in engine.run(double, [1, 2])] in ([2, 4], [4, 2])
    assert capfd.readouterr().err == ""


def test_workers_that_take_long_to_start_again_are_waited_for(tmp_path, monkeypatch):
    import dask

    monkeypatch.setattr(cluster, "LOST_SECONDS", 300.0)  # to fail, not to hang
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "10ms"}),
        open_engine(2, 4 * 10**9) as engine,
    ):
        ((_, result),) = engine.run(die, [str(tmp_path)])
        assert "killed repeatedly" in result.reason
        assert [r for _, r in engine.run(double, [1, 2])] in ([2, 4], [4, 2])


def test_a_run_without_any_worker_ends_and_says_so(monkeypatch):
    monkeypatch.setattr(cluster, "LOST_SECONDS", 1.0)
    with open_engine(2, 4 * 10**9) as engine:
        assert [r for _, r in engine.run(double, [1])] == [2]
        engine._client.cluster.scale(0)
        with pytest.raises(WorkersError, match=r"no worker process for 1 s.*repeat the command"):
            list(engine.run(double, range(100)))


def test_a_time_limit_holds_where_there_is_no_worker():
    with open_engine(2, 4 * 10**9) as engine:
        engine._client.cluster.scale(0)
        engine.stop = Stop(2.0)
        assert list(engine.run(double, range(100))) == []
        assert engine.stop.is_due


def test_workers_get_their_share_of_the_threads(two_workers):
    assert list(two_workers.run(environment, [1])) == [(1, str(threads_per_worker(2)))]


def visible_gpus(folder, others, _):
    """A task that waits until workers that see this many different GPUs have got one."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    Path(folder, str(seen)).touch()
    until = time.monotonic() + 300
    while len(list(Path(folder).iterdir())) < others and time.monotonic() < until:
        time.sleep(0.01)
    return seen


def test_the_network_runs_in_the_process_that_has_the_gpu_to_itself(capfd, tmp_path):
    for name in ("networks", "others"):
        (tmp_path / name).mkdir()
    alone = partial(visible_gpus, tmp_path / "networks", 1)
    together = partial(visible_gpus, tmp_path / "others", 2)
    with open_engine(2, 8 * 10**9, gpus=("5", "7")[1:]) as engine:
        assert engine.workers == 1 + InlineEngine().network_threads  # blocks of the one, the other
        networks = [r for _, r in engine.run(alone, range(12), needs_network=True)]
        others = [r for _, r in engine.run(together, range(40))]
    assert networks == ["7"] * 12
    assert set(others) == {"7", "-1"}


@pytest.mark.parametrize(
    ("cores", "gigabytes", "gpus", "workers"),
    [(2, 16, 0, 1), (16, 64, 0, 4), (16, 8, 0, 2), (16, 1, 0, 1), (16, 64, 8, 8), (64, 256, 4, 16)],
)
def test_workers_by_cores_memory_and_gpus(monkeypatch, cores, gigabytes, gpus, workers):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert natural_workers(gigabytes * 10**9, gpus) == workers


def test_a_cause_that_passes_is_raised_to_be_tried_again(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        attempt(stumble, str(tmp_path))
    assert attempt(refuse, str(tmp_path)) == Failure("on purpose", True)


def test_an_unexpected_failure_is_in_the_log_whole(caplog):
    with caplog.at_level(logging.ERROR, logger="anystar_batch"):
        logging.getLogger("anystar_batch").propagate = True
        assert failure_of(RuntimeError()) == Failure("unexpected RuntimeError: RuntimeError", False)
    assert "RuntimeError" in caplog.text
