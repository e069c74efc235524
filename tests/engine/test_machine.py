"""Limits of containers and batch systems."""

import pytest

from anystar_batch.engine import engines, machine

GB = 10**9


def tree(root, own, files):
    """Lay out `proc` and `sys` as a kernel shows them."""
    for name, text in {"proc/self/cgroup": own, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert machine.memory_left(tmp_path) is None
    assert machine.cores(tmp_path) is None
    tree(tmp_path, "0::/\n", {"sys/fs/cgroup/cgroup.procs": ""})
    assert machine.memory_left(tmp_path) is None
    assert machine.cores(tmp_path) is None


def test_a_container_of_version_2(tmp_path):
    files = {
        "memory.max": f"{8 * GB}\n",
        "memory.current": f"{3 * GB}\n",
        "memory.stat": f"anon 5\ninactive_file {2 * GB}\nactive_file 7\n",
        "cpu.max": "250000 100000\n",
    }
    root = tree(tmp_path, "0::/\n", {f"sys/fs/cgroup/{k}": v for k, v in files.items()})
    assert machine.memory_left(root) == 7 * GB
    assert machine.cores(root) == 2


def test_the_tightest_of_all_groups_above_counts(tmp_path):
    top, job = "sys/fs/cgroup/slurm", "sys/fs/cgroup/slurm/job_7"
    files = {
        f"{top}/memory.max": f"{6 * GB}",
        f"{top}/memory.current": f"{5 * GB}",
        f"{top}/cpu.max": "50000 100000",
        f"{job}/memory.max": f"{8 * GB}",
        f"{job}/memory.current": "17",
        f"{job}/cpu.max": "max 100000",
    }
    root = tree(tmp_path, "0::/slurm/job_7\n", files)
    assert machine.memory_left(root) == GB
    assert machine.cores(root) == 1, "half a core is one"


def test_version_1_and_what_it_says_without_a_limit(tmp_path):
    own = "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n0::/\n"
    unseen = "sys/fs/cgroup"  # a container sees its own group as the root
    files = {
        f"{unseen}/memory/memory.limit_in_bytes": f"{4 * GB}",
        f"{unseen}/memory/memory.usage_in_bytes": f"{GB}",
        f"{unseen}/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GB // 2}\n",
        f"{unseen}/cpu/cpu.cfs_quota_us": "400000",
        f"{unseen}/cpu/cpu.cfs_period_us": "100000",
    }
    root = tree(tmp_path / "a", own, files)
    assert machine.memory_left(root) == 4 * GB - GB // 2
    assert machine.cores(root) == 4
    free = {
        f"{unseen}/memory/memory.limit_in_bytes": str(2**63 - 4096),
        f"{unseen}/cpu/cpu.cfs_quota_us": "-1",
        f"{unseen}/cpu/cpu.cfs_period_us": "100000",
    }
    root = tree(tmp_path / "b", own, files | free)
    assert machine.memory_left(root) is None
    assert machine.cores(root) is None


@pytest.mark.parametrize("torn", ["", "many\n", "-5", "\xff"])
def test_torn_files_are_no_limit(tmp_path, torn):
    files = dict.fromkeys(("memory.max", "memory.current", "memory.stat", "cpu.max"), torn)
    root = tree(tmp_path, "0::/\n", {f"sys/fs/cgroup/{k}": v for k, v in files.items()})
    assert machine.memory_left(root) is None
    assert machine.cores(root) is None


def test_a_run_keeps_to_them(monkeypatch):
    free = machine.available_memory()
    monkeypatch.setattr(machine, "memory_left", lambda: 2 * GB)
    assert machine.available_memory() == min(free, int(2 * GB * machine.FREE_SHARE))
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert engines.threads_per_worker(1) == engines.natural_workers(10**12, 0) == 1
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(machine, "cores", lambda: 8)
    assert engines.natural_workers(10**12, 0) == 2
    monkeypatch.setattr(machine, "cores", lambda: None)
    assert engines.natural_workers(10**12, 0) == 16
