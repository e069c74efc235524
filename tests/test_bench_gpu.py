"""The bench of a GPU, without one: what its parts measure, and what becomes of parts that fail."""

import dataclasses
import json
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box
from bench.gpu import command, driver, network, page, scenes, training
from bench.gpu.device import Utilisation, repeated
from bench.gpu.sizes import FULL, QUICK, Scene
from tests.support.tiny_volume import Spheres
from trainer.feed import SyntheticSource

TINY = dataclasses.replace(
    QUICK,
    windows=(8, 16, 24),
    bytes_edge=48,
    bytes_tile=24,
    scenes=(Scene("dense", 32), Scene("dense", 40, 7.0)),
    networks=((4, 32),),
    batches=(1, 2, 4, 8),
    seconds=1.0,
    repeats=1,
)


class Ticks:
    """A clock that is half a second later whenever it is asked."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.5
        return self.now


class Desk:
    """A device that nothing is on."""

    backend = "jax"

    def bring(self, values):
        self.brought = values.shape

    def risen(self):
        return 3_000_000_000

    def forget(self):
        pass


class Network(Spheres):
    """Finds spheres; of some windows there is no memory, others it does not like."""

    def __init__(self, full=(), broken=()):
        self.full, self.broken = full, broken

    def find(self, image, window, core, prob_thresh):
        if len(image) in self.full:
            raise ModelError("network: no memory for it") from RuntimeError("RESOURCE_EXHAUSTED")
        if len(image) in self.broken:
            raise ValueError("not this one")
        return super().find(image, window, core, prob_thresh)


def ever():
    return 1000.0


def of(messages, key):
    return [m[key] for m in messages if key in m]


def test_the_first_call_is_timed_apart_and_others_until_it_is_enough():
    found = repeated(lambda: None, 1.2, Ticks())
    assert (found.first, found.seconds, found.spread, found.calls) == (0.5, 0.5, (0.5, 0.5), 3)
    assert repeated(lambda: None, 0.0, Ticks()).calls == 1
    assert repeated(lambda: None, 1e9, Ticks(), most=4).calls == 4


def test_windows_are_timed_and_what_fails_is_told_and_does_not_stop_the_others():
    found = list(network.rows(TINY, Network(full={16}, broken={8}), Desk(), ever, Ticks()))
    broken, full, good = of(found, "row")
    assert broken["error"] == "ValueError: not this one"
    assert full["out_of_memory"] is True
    assert "error" not in full
    assert good["mvoxels"] == round(24**3 / 0.5 / 1e6, 3)
    assert (good["case"], good["calls"], good["peak_device_bytes"]) == ("window 24^3", 2, 3 * 10**9)


def test_the_largest_window_comes_before_time_runs_out():
    times = iter([100.0, 90.0, 90.0, 40.0, 40.0, 30.0, 1.0])
    found = list(network.rows(TINY, Network(), Desk(), lambda: next(times), Ticks()))
    assert of(found, "begun") == ["window 8^3", "window 24^3"]
    assert of(found, "left_out") == ["window 16^3"]


def bench(tmp_path, predictor, left=ever, sizes=TINY):
    return command.Bench(sizes, tmp_path, predictor, Desk(), "float32", left, Ticks())


def test_the_command_is_measured_beside_the_bare_network(tmp_path):
    found = list(command.rows(bench(tmp_path, Network())))
    same, dense, twice = of(found, "row")
    assert same["same_bytes"] is True
    assert list(same["digests"]) == ["blocks of 24", "blocks of 48"]
    assert same["instances"] > 3
    assert dense["instances"] > 2
    # One tile, so one call of half a second; the wall also holds the clock's steps of that call.
    assert (dense["bare_seconds"], dense["wall"]) == (0.5, 1.5)
    assert (dense["ratio"], dense["device_share"]) == (round(0.5 / 1.5, 4), round(0.5 / 1.5, 4))
    assert dense["bare_mvoxels"] == round(32**3 / 0.5 / 1e6, 3)
    assert len(dense["walls"]) == 2
    assert dense["gpu_percent"] is None
    assert {"suppress", "paint"} <= set(dense["parts"])
    assert "refine" not in dense["stages"]
    assert "refine" in twice["stages"]
    assert twice["second_look_share"] > 0


class Moody(Spheres):
    """Answers otherwise each time."""

    calls = 0

    def find(self, *arguments):
        self.calls += 1
        points, prob, dist = super().find(*arguments)
        return points, prob, dist * np.float32(0.7 + 0.05 * self.calls)


def test_bytes_that_depend_on_blocks_are_told(tmp_path):
    (row,) = of(command.bytes_rows(bench(tmp_path, Moody()), (1, 2)), "row")
    assert row["same_bytes"] is False


def test_a_digest_is_that_of_names_and_bytes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0").write_bytes(b"12")
    first = command.digest(tmp_path)
    assert command.digest(tmp_path) == first
    (tmp_path / "a/0").write_bytes(b"13")
    assert command.digest(tmp_path) != first
    (tmp_path / "a/0").write_bytes(b"12")
    (tmp_path / "a/0").rename(tmp_path / "a/1")
    assert command.digest(tmp_path) != first


def test_a_command_that_fails_is_told_and_the_next_image_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measured", lambda *_: 1 / 0)
    found = list(command.rows(bench(tmp_path, Network(broken=range(99)))))
    errors = [row["error"] for row in of(found, "row")]
    assert len(errors) == 3
    assert "not this one" in errors[0]
    assert errors[1:] == ["ZeroDivisionError: division by zero"] * 2


def test_images_for_which_there_is_no_time_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measured", lambda *_: {})
    monkeypatch.setattr(command, "bytes_rows", lambda *_: [])
    found = list(command.rows(bench(tmp_path, Network(), left=lambda: -1.0)))
    assert of(found, "left_out") == ["dense 32^3 r3.5", "dense 40^3 r7"]


def test_an_image_is_made_once_and_others_wait_for_it(tmp_path, monkeypatch):
    made = []

    def write(phantom, path, workers):
        made.append(path)
        time.sleep(0.3)
        path.mkdir()

    monkeypatch.setattr(scenes, "write", write)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: scenes.make(Scene("dense", 32), tmp_path), range(3)))
    assert len(made) == 1
    assert {path for path, _, _ in found} == set(made)


def test_a_mosaic_of_samples_is_an_image_with_objects_of_a_size(tmp_path):
    path, diameter, _ = scenes.make(Scene("synthetic", 40), tmp_path)
    reader = ImageReader(read_image(str(path)))
    box = Box((0, 0, 0), (40, 40, 40))
    assert reader.source.shape_zyx(0) == (40, 40, 40)
    assert (reader.read_box(0, 0, 0, box) == scenes.mirrored(scenes.samples().image, 40)).all()
    assert 2 < diameter.value < 20


class Model:
    """Trains batches of up to two samples."""

    class optimizer:
        learning_rate = 0.0

    def train_on_batch(self, image, truth):
        prob, dist = truth
        assert len(image) == len(prob) == len(dist)
        if len(image) > 2:
            raise MemoryError
        return [3.0, 1.0, 2.0]

    def reset_metrics(self):
        pass


def test_steps_are_timed_until_a_batch_does_not_fit():
    given = []

    def build(config):
        given.append((config.batch, config.precision, config.network.unet_n_filter_base))
        return Model()

    found = list(training.rows(TINY, "bfloat16", Desk(), ever, build, Ticks()))
    one, two, four = of(found, "row")
    assert given == [(1, "bfloat16", 4)]  # one network for all batches
    assert (one["samples_per_second"], two["samples_per_second"]) == (2.0, 4.0)
    assert four["out_of_memory"] is True
    assert of(found, "why") == ["a smaller batch did not fit"]


def test_a_step_that_fails_is_told():
    class Broken(Model):
        def train_on_batch(self, *_):
            raise ValueError("no step")

    found = list(training.rows(TINY, "float32", Desk(), ever, lambda _: Broken(), Ticks()))
    assert {row["error"] for row in of(found, "row")} == {"ValueError: no step"}
    assert len(of(found, "row")) == 4
    assert of(found, "left_out") == []


def test_a_batch_holds_the_made_samples_in_turn():
    config = dataclasses.replace(training.config_of(TINY.cases("float32")[0]), batch=2)
    made = SyntheticSource(config).batch(0)
    batch = training.filled(made, 5)
    assert batch.image.shape == (5, 32, 32, 32, 1)
    assert (batch.dist[4] == made.dist[0]).all()
    assert (batch.prob[3] == made.prob[1]).all()


def test_the_busy_share_is_what_nvidia_smi_says(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!{sys.executable}\nimport time\n"
                    "for text in ('20', '[N/A]', '60'): print(text, flush=True)\n"
                    "time.sleep(60)\n")  # fmt: skip
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with Utilisation() as busy:
        for _ in range(500):
            if busy.mean(0.0, 1e12) == 40.0:
                break
            time.sleep(0.02)
        assert busy.mean(0.0, 1e12) == 40.0
        assert busy.mean(-2.0, -1.0) is None
    monkeypatch.setenv("PATH", "")
    with Utilisation() as busy:
        assert busy.mean(0.0, 1e12) is None


@pytest.mark.parametrize("is_quick", [False, True])
def test_parts_share_the_time_the_natural_precision_first(is_quick, monkeypatch):
    monkeypatch.setattr(driver, "natural_precision", lambda _: "bfloat16")
    made = driver.parts(["jax", "tensorflow"], is_quick=is_quick)
    assert [p.backend for p in made] == sorted(p.backend for p in made)
    assert made[0].title == "network-jax-bfloat16"
    assert {p.precision for p in made} == {"float32", "bfloat16"}
    ends = [p.until for p in made]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(1.0 - driver.ENDING)
    assert len({p.title for p in made}) == len(made)


def test_every_size_is_one_that_can_be_computed():
    for sizes in (FULL, QUICK):
        assert all(edge % 8 == 0 for edge in sizes.windows)
        assert [training.config_of(c).batch for c in sizes.cases("float32")] == [
            *sizes.batches
        ] * len(sizes.networks)


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """Return a function that runs the driver with scripts for parts, by their names."""

    def run(minutes=1.0, gpus=(), **scripts):
        def words(part, seconds, pipe, options):
            tell = (
                "import json, os, pathlib, time, sys\n"
                f"OUT = pathlib.Path({str(options.out)!r})\n"
                f"def tell(**m): os.write({pipe}, (json.dumps(m) + '\\n').encode())\n"
                "tell(device='cpu x', start_up_seconds=0.1)\n"
            )
            default = "tell(row={'case': 'a', 'wall': 1.0})\ntell(done=True)"
            return [sys.executable, "-c", tell + textwrap.dedent(scripts.get(part.name, default))]

        monkeypatch.setattr(driver, "words", words)
        monkeypatch.setattr(driver, "machine", lambda: machine | {"gpus": list(gpus)})
        monkeypatch.setattr(driver.signal, "signal", lambda *_: None)
        code = 0
        try:
            driver.main([str(tmp_path), "--quick", "--backends", "jax", f"--minutes={minutes}"])
        except SystemExit as ended:
            code = ended.code
        return code, json.loads((tmp_path / "gpu.json").read_text())

    machine = {"processor": "x", "cores": 2, "python": "3", "versions": {"jax": "1"}}
    return run


def test_all_that_is_measured_is_written(drive, tmp_path):
    code, found = drive()
    assert code == 0
    assert [p["name"] for p in found["parts"]] == [name for name, _, _ in driver.QUICK_SHARES]
    assert all(p["rows"] == [{"case": "a", "wall": 1.0}] for p in found["parts"])
    assert found["ended"] is True
    text = (tmp_path / "gpu.md").read_text()
    assert "No GPU was used" in text
    assert "## shell-jax-" in text
    assert "| a | 1 | - |" in text


def test_images_are_made_ahead_where_there_are_cores_and_their_failure_is_none_of_a_part(
    drive, tmp_path, monkeypatch
):
    monkeypatch.setattr(driver, "usable_cores", lambda: 16)
    wait = "while not (OUT / 'made').exists(): time.sleep(0.05)\ntell(row={'case': 'a'})\n"
    code, _ = drive(images="(OUT / 'made').touch()\nsys.exit(3)", network=wait + "tell(done=True)")
    assert code == 0
    began = time.monotonic()
    assert drive(images="time.sleep(60)")[0] == 0  # interrupted at the end
    assert time.monotonic() - began < 30
    (tmp_path / "made").unlink()
    monkeypatch.setattr(driver, "usable_cores", lambda: 2)
    drive(images="(OUT / 'made').touch()")
    assert not (tmp_path / "made").exists()


def test_a_row_is_on_disk_as_soon_as_it_is_measured(drive):
    script = """
        tell(row={'case': 'a', 'wall': 1.0})
        for _ in range(200):
            text = (OUT / 'gpu.json').read_text() if (OUT / 'gpu.json').exists() else ''
            if '"case": "a"' in text:
                break
            time.sleep(0.05)
        tell(row={'case': 'b', 'seen': '"case": "a"' in text})
        tell(done=True)
    """
    _, found = drive(network=script)
    assert found["parts"][0]["rows"][1] == {"case": "b", "seen": True}


def test_a_part_that_fails_is_recorded_and_the_others_run(drive, capsys):
    script = "tell(begun='b')\ntell(row={'case': 'a'})\ntell(begun='c')\nsys.exit('it broke')"
    code, found = drive(command=script)
    assert code == 1
    failed = found["parts"][1]
    assert failed["rows"] == [{"case": "a"}]
    assert failed["error"] == "exit 1 in c: it broke"
    assert all("error" not in p for p in found["parts"] if p is not failed)
    assert len(found["parts"]) == len(driver.QUICK_SHARES)
    assert "it broke" in capsys.readouterr().err


def test_a_case_that_fails_fails_the_command(drive):
    script = "tell(row={'case': 'a', 'error': 'no such thing'})\ntell(done=True)"
    code, found = drive(training=script)
    assert code == 1
    assert len(found["failures"]) == 1
    assert found["failures"][0].endswith("a: no such thing")
    assert drive(training=script.replace("'error': 'no such thing'", "'out_of_memory': 1"))[0] == 0


def test_a_part_that_says_nothing_or_goes_silent_has_failed(drive):
    assert drive(network="tell(done=True)")[0] == 1
    code, found = drive(network="tell(row={'case': 'a'})")
    assert code == 1
    assert found["parts"][0]["error"].startswith("exit 0 in its start")


def test_a_part_is_ended_when_its_time_is_over(drive):
    slow = "tell(row={'case': 'a'})\ntell(begun='slow')\ntime.sleep(60)"
    code, found = drive(minutes=0.25, network=slow)
    assert code == 0
    assert found["parts"][0]["ended_in"] == "slow"
    assert found["seconds"] < 14
    code, found = drive(minutes=0.25, network="tell(begun='slow')\ntime.sleep(60)")
    assert code == 1
    assert "ended in slow" in found["failures"][0]
    assert len(found["parts"]) == len(driver.QUICK_SHARES)


@pytest.mark.parametrize("word", ["same", "other"])
def test_another_process_has_to_give_the_same_bytes(drive, word):
    row = "{'case': 'bytes', 'instances': 3, 'digests': {'blocks of 24': '%s'}%s}"
    first, again = row % ("same", ", 'same_bytes': True"), row % (word, "")
    code, found = drive(
        command=f"tell(row={first})\ntell(done=True)", again=f"tell(row={again})\ntell(done=True)"
    )
    assert found["parts"][2]["rows"][0]["same_bytes"] is (word == "same")
    assert code == (0 if word == "same" else 1)


def test_a_gpu_that_is_not_used_is_a_failure(drive):
    code, found = drive(gpus=["NVIDIA H200, 580, 143771 MiB"])
    assert code == 1
    assert "computed on the processor, though there is a GPU" in found["failures"][0]


def test_lines_tell_what_tables_tell():
    row = {"case": "window 304^3", "mvoxels": 512.3, "seconds": 0.0548, "first_seconds": 12.0}
    told = page.line("network-jax-bfloat16", row)
    assert told.startswith("network-jax-bfloat16: window 304^3: Mvoxel/s 512, s a window 0.0548")
    odd = {"case": "base 16", "out_of_memory": True}
    assert page.line("training-jax-float32", odd).endswith("base 16: out of memory")
