"""Work on a Dask cluster that was there before: same bytes, and refusals before work starts."""

import os

import pytest
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster, get_worker

from anystar_batch.config import RunConfig
from anystar_batch.engine import external_cluster
from anystar_batch.engine.engines import InlineEngine, open_engine
from anystar_batch.errors import ConfigError
from anystar_batch.pipeline.segment import segment
from tests.support.law_phantom import (
    SHAPE,
    digests,
    law_config,
    law_factory,
    law_model,
    write_law_image,
)


@pytest.fixture(scope="module")
def cluster():
    """One worker with a GPU, as it says, and one of two threads without."""
    workers = {
        0: {"cls": Nanny, "options": {"nthreads": 1, "resources": {"GPU": 1}}},
        1: {"cls": Nanny, "options": {"nthreads": 2}},
    }
    for worker in workers.values():
        worker["options"] |= {"memory_limit": 4 * 10**9, "dashboard": False}
    options = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "port": 0}
    with SpecCluster(workers, {"cls": Scheduler, "options": options}, silence_logs=50) as cluster:
        yield cluster


def has_gpu(_task):
    return "GPU" in get_worker().state.total_resources


def test_bytes_are_those_of_one_process(cluster, tmp_path):
    found = []
    for name, address in (("here", None), ("there", cluster.scheduler_address)):
        image = write_law_image(tmp_path / name / "phantom.ome.zarr")
        config = law_config(image, SHAPE if address is None else (32, 32, 32))
        with open_engine(1, 10**9, scheduler=address) as engine:
            segment(config, engine=engine, factory=law_factory(), model=law_model())
        found.append(digests(image))
    assert found[0] == found[1]


def test_the_network_runs_where_the_gpu_is(cluster):
    with open_engine(1, 10**9, scheduler=cluster.scheduler_address) as engine:
        assert all(r for _, r in engine.run(has_gpu, range(12), needs_network=True))
        assert not all(r for _, r in engine.run(has_gpu, range(12)))


def test_what_the_workers_are_together(cluster):
    with external_cluster.connected(cluster.scheduler_address) as client:
        pool = external_cluster.survey(client, "here")
    assert pool.slots == 3
    assert pool.memory == 3 * 2 * 10**9
    assert pool.network_threads == max(1, len(os.sched_getaffinity(0)) // 3)
    assert pool.gpus == 1


def test_a_scheduler_file_is_as_good_as_an_address(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(f'{{"address": "{cluster.scheduler_address}"}}')
    with open_engine(1, 10**9, scheduler=str(file)) as engine:
        assert engine.workers == 3


def test_workers_that_do_not_see_the_storage_are_named(cluster, tmp_path):
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.mkdir()
    with open_engine(1, 10**9, scheduler=cluster.scheduler_address) as engine:
        engine.check_paths((str(there),))
        with pytest.raises(ConfigError, match=r"2 of 2 workers do not see .*gone"):
            engine.check_paths((str(there), str(gone)))


def test_another_version_in_a_worker_is_refused(cluster, monkeypatch):
    monkeypatch.setattr(external_cluster, "__version__", "0.0.0")
    message = r"worker tcp://.* has anystar-batch .*; expected 0\.0\.0, as here"
    with pytest.raises(ConfigError, match=message):
        open_engine(1, 10**9, scheduler=cluster.scheduler_address).__enter__()


def test_a_cluster_without_workers_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(external_cluster, "WORKER_SECONDS", 0.2)
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty,
        pytest.raises(ConfigError, match=r"has no worker after 0 s"),
        open_engine(1, 10**9, scheduler=empty.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("tcp://127.0.0.1:1", r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
        ("nowhere.json", r"nowhere\.json cannot be read .*FileNotFoundError.*expected the address"),
        ("{}", r"scheduler\.json cannot be read as a scheduler file \(KeyError\)"),
        ("odd://host", r"no Dask scheduler answers at odd://host"),
    ],
)
def test_no_scheduler_there(tmp_path, monkeypatch, where, message):
    monkeypatch.setattr(external_cluster, "CONNECT_SECONDS", 0.5)
    if where == "{}":
        where = str(tmp_path / "scheduler.json")
        (tmp_path / "scheduler.json").write_text("{}")
    with pytest.raises(ConfigError, match=message), open_engine(1, 10**9, scheduler=where):
        pass


class Dying:
    """A client of two workers, the second of which dies when it is asked; `info` lists `known`."""

    def __init__(self, known):
        self.workers = {"nthreads": 2, "memory_limit": 10**9, "host": "h"}
        self.known = known

    def wait_for_workers(self, *_, **__):
        pass

    def scheduler_info(self, **_):
        return {"workers": dict.fromkeys(self.known, self.workers)}

    def run(self, function, *arguments, on_error="raise"):
        if on_error == "raise":
            raise OSError("Address removed.")
        dead = {"b": OSError("Address removed.")} if on_error == "return" else {}
        return {"a": function(*arguments)} | dead


def test_a_worker_that_dies_while_it_is_asked_stops_nobody(tmp_path):
    client = Dying(("a", "b"))
    external_cluster.check_paths(client, (str(tmp_path),))
    with pytest.raises(ConfigError, match="1 of 1 workers do not see"):
        external_cluster.check_paths(client, (str(tmp_path / "gone"),))
    assert external_cluster.survey(client, "here").slots == 2
    with pytest.raises(ConfigError, match="here lost its workers while they were asked"):
        external_cluster.survey(Dying(("b",)), "here")


def test_workers_and_scheduler_contradict_each_other():
    with pytest.raises(ConfigError, match="contradict each other"):
        RunConfig(workers=2, scheduler="tcp://127.0.0.1:1")


def test_this_process_needs_no_check():
    InlineEngine().check_paths(("/no/such/place",))


class Noting(InlineEngine):
    """Notes which functions ask for the network."""

    def __init__(self):
        super().__init__()
        self.asked = {}

    def run(self, function, tasks, *, needs_network=False):
        self.asked[function.__name__] = needs_network
        return super().run(function, tasks)


def test_only_the_network_asks_for_a_gpu(tmp_path):
    image = write_law_image(tmp_path / "phantom.ome.zarr")
    engine = Noting()
    segment(law_config(image, SHAPE), engine=engine, factory=law_factory(), model=law_model())
    assert len(engine.asked) > 3
    assert [name for name, asked in engine.asked.items() if asked] == ["predict_block"]
