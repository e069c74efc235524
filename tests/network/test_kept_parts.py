"""A network without Keras: its graphs from a file say, bit for bit, what Keras says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box, as_zyx
from anystar_batch.network import graph_session, kept_parts, unet
from anystar_batch.network.graph_session import GraphError, GraphSession, Part, library_files
from anystar_batch.network.model import WEIGHTS, Model, load_model
from anystar_batch.network.parts import KerasParts
from anystar_batch.network.slabs import SlabNetwork
from anystar_batch.network.weights import save_weights
from tests.network.test_slabs import CONFIGS
from tests.network.test_unet import perturbed
from tests.support.checkout import ROOT
from tests.support.fakes import make_model
from trainer.synthesis.phantom import Phantom
from trainer.synthesis.phantom_zarr import write

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(library_files() is None, reason="TensorFlow keeps its library elsewhere"),
]


@dataclasses.dataclass(frozen=True)
class Kept:
    """A small model whose graphs are kept, and the same under Keras."""

    model: Model
    precision: str
    parts: KerasParts
    place: Path
    file: Path


def made(name, precision, folder):
    """Keep the graphs of one of the small networks in a folder of its own."""
    import keras

    keras.utils.set_random_seed(4)
    config = CONFIGS[name][0]
    network = perturbed(unet.build(config, precision))
    save_weights(network, folder / WEIGHTS)
    model = dataclasses.replace(make_model(), unet=config, folder=str(folder))
    parts = KerasParts(network, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_parts, "kept_in", lambda: folder)
        file = kept_parts.keep(parts, model, precision, 2)
    assert file is not None
    return Kept(model, precision, parts, folder, file)


@pytest.fixture(scope="module", params=[(n, p) for n in CONFIGS for p in unet.PRECISIONS], ids=str)
def each(request, tmp_path_factory):
    return made(*request.param, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return made("grid 2", "float32", tmp_path_factory.mktemp("kept"))


@pytest.fixture
def kept(small, tmp_path, monkeypatch):
    """As `small`, in a place whose files a test may spoil."""
    file = tmp_path / small.file.name
    file.write_bytes(small.file.read_bytes())
    file.chmod(0o644)
    monkeypatch.setattr(kept_parts, "kept_in", lambda: tmp_path)
    return dataclasses.replace(small, place=tmp_path, file=file)


def taken(kept):
    return kept_parts.kept_network(kept.model, kept.precision, 2)


def cores(shape):
    """All outputs, all but the outermost, a corner, one plane."""
    whole = Box.of_shape(shape)
    inner = Box(as_zyx(int(n > 2) for n in shape), as_zyx(n - (n > 2) for n in shape))
    corner = Box((0, 0, 0), as_zyx(-(-n // 2) for n in shape))
    return whole, inner, corner, Box((shape[0] // 2, 0, 0), (shape[0] // 2 + 1, *shape[1:]))


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("slab_bytes", [1, 4000, 10**9])
def test_every_bit_is_that_of_keras(each, slab_bytes, monkeypatch):
    monkeypatch.setattr(kept_parts, "kept_in", lambda: each.place)
    ours, config = taken(each), each.model.unet
    assert ours is not None
    ours._slab_bytes = slab_bytes
    theirs = SlabNetwork(each.parts, config, slab_bytes)
    rng = np.random.default_rng(8)
    # Of one voxel at the bottom, oneDNN's bfloat16 says now this, now that, under Keras as well.
    for factors in ((2, 2, 2), (2, 3, 2), (3, 2, 4)):
        shape = tuple(n * f for n, f in zip(config.divisor(), factors, strict=True))
        image = rng.normal(0.4, 0.5, shape).astype(np.float32)
        image[:1] = 0
        for core in cores(as_zyx(n // g for n, g in zip(shape, config.grid, strict=True))):
            everything = theirs.find(image, core, -1.0)
            assert_same(ours.find(image, core, -1.0), everything)
            for rank in (1, 2, 3, 5, 17):  # few rows: another product of matrices
                threshold = float(np.sort(everything[1])[::-1][min(rank, len(everything[1]) - 1)])
                expected = theirs.find(image, core, threshold)
                assert_same(ours.find(image, core, threshold), expected)


FIND = """
import sys
import numpy as np
from tests.network.test_kept_parts import released
np.savez(sys.argv[1], *released(sys.argv[2]))
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""


def released(precision):
    """What the released network says of noise and of blobs, windows of several shapes."""
    from anystar_batch.network.predictor import KerasPredictor

    predictor = KerasPredictor(load_model("anystar-mix"), 2, precision)
    rng, arrays = np.random.default_rng(2), []
    windows = [((16, 16, 16), 0), ((64, 48, 80), 5), ((112, 96, 128), -3), ((96, 16, 24), 0)]
    if precision != "float32":  # many processors only imitate it, twelve times slower
        windows = [((16, 16, 16), 0), ((32, 48, 64), 5)]
    for shape, place in windows:
        image = rng.random(shape, np.float32) ** 2
        axes = np.ogrid[tuple(slice(n) for n in shape)]
        image += sum(np.sin(axis / 6.0) for axis in axes) > 1.5
        window = Box((place,) * 3, as_zyx(n + place for n in shape))
        inner = as_zyx(n + place - 1 for n in shape)
        for core in (window, Box((place + 2, place + 1, place + 3), inner)):
            for threshold in (-1.0, 0.3):
                arrays += predictor.find(image.astype(np.float32), window, core, threshold)
    return arrays


def process(script, *arguments, **environment):
    base = {"PYTHONPATH": str(ROOT), "ANYSTAR_BATCH_OWN_PROCESS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, **base, **environment}, cwd=ROOT, capture_output=True, text=True,
        check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Return a place where two processes at once have kept the released network, and answers."""
    folder = tmp_path_factory.mktemp("kernels")
    paths = [folder / f"{n}.npz" for n in range(2)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NUMBA_CACHE_DIR": str(folder / "numba"),
        "ANYSTAR_BATCH_OWN_PROCESS": "1",
    }
    running = [
        subprocess.Popen([sys.executable, "-c", FIND, path, "float32"], env=environment, cwd=ROOT)
        for path in paths
    ]
    assert [one.wait() for one in running] == [0, 0]
    return folder / "numba", [list(np.load(path).values()) for path in paths]


def test_processes_that_keep_at_once_leave_one_whole_file_of_the_same_bits(kernels, tmp_path):
    folder, (one, two) = kernels
    (file,) = folder.rglob("network-*")
    assert list(folder.rglob(".network-*")) == []
    facts, _ = kept_parts._unpacked(file.read_bytes())
    assert set(facts["parts"]) == set(kept_parts.NAMES)
    path = tmp_path / "found.npz"
    loaded, said = process(FIND, path, "float32", NUMBA_CACHE_DIR=str(folder))
    assert loaded == ["False", "False"]
    assert said == ""
    assert sum(map(len, one)) > 10_000
    assert_same(one, two)
    assert_same(list(np.load(path).values()), one)


def test_another_way_to_compute_is_kept_too(tmp_path):
    places = {"NUMBA_CACHE_DIR": str(tmp_path / "kernels")}
    paths = [tmp_path / f"{n}.npz" for n in range(2)]
    first, _ = process(FIND, paths[0], "bfloat16", **places)
    second, _ = process(FIND, paths[1], "bfloat16", **places)
    assert [first, second] == [["True", "True"], ["False", "False"]]
    one, two = (list(np.load(path).values()) for path in paths)
    assert_same(two, one)


def repacked(file, change):
    """Write a file anew, its hash in order, after a change of its head and arrays."""
    facts, arrays = kept_parts._unpacked(file.read_bytes())
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(facts, arrays)
    parts = facts.pop("parts")
    facts = {name: value for name, value in facts.items() if name not in ("arrays", "tensorflow")}
    file.write_bytes(kept_parts._packed(parts, arrays, facts))


@pytest.mark.parametrize("place", [3, 40, 90, 0.5, -1])
def test_a_damaged_file_is_not_used_and_made_anew(kept, place):
    assert taken(kept) is not None
    data = bytearray(kept.file.read_bytes())
    data[int(place * len(data)) if isinstance(place, float) else place] ^= 1
    kept.file.write_bytes(data)
    assert taken(kept) is None
    if place == 3:
        assert kept_parts.keep(kept.parts, kept.model, kept.precision, 2) == kept.file
        assert taken(kept) is not None


@pytest.mark.parametrize("length", [0, 10, 60, 1000])
def test_a_torn_file_is_not_used(kept, length):
    kept.file.write_bytes(kept.file.read_bytes()[:length])
    assert taken(kept) is None


def other_key(facts, _):
    facts["key"] += "0"


def other_weight(_, arrays):
    arrays["weight 1"] *= np.float32(1.0001)


def no_graph(_, arrays):
    arrays["graph body"] = np.zeros(99, np.uint8)


def other_input(facts, _):
    facts["parts"]["up"]["inputs"][1] = "nothing"


def no_answer(facts, _):
    del facts["answer"]


def no_part(facts, _):
    del facts["parts"]["prob"]


@pytest.mark.parametrize(
    "change", [other_key, other_weight, no_answer, no_graph, other_input, no_part]
)
def test_a_file_that_says_something_else_is_not_used(kept, change):
    repacked(kept.file, lambda *_: None)
    assert taken(kept) is not None
    repacked(kept.file, change)
    assert taken(kept) is None


def test_an_operation_that_may_do_more_than_compute_is_not_run(kept, monkeypatch):
    assert "ReadFile" not in graph_session.HARMLESS
    monkeypatch.setattr(graph_session, "HARMLESS", graph_session.HARMLESS - {"Sigmoid"})
    assert taken(kept) is None


def test_a_file_that_others_can_write_is_not_used(kept):
    kept.file.chmod(0o666)
    assert taken(kept) is None


def test_weights_decide_not_what_a_model_says_of_itself(kept, tmp_path):
    """A folder whose weights were exchanged, its description the same."""
    other = tmp_path / "other"
    other.mkdir()
    data = bytearray((Path(kept.model.folder) / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (other / WEIGHTS).write_bytes(data)
    assert (
        taken(dataclasses.replace(kept, model=dataclasses.replace(kept.model, folder=other)))
        is None
    )


@pytest.mark.parametrize("name", ["TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS"])
def test_graphs_are_kept_for_each_setting_that_may_change_bits(kept, name, monkeypatch):
    monkeypatch.setenv(name, "7")
    assert taken(kept) is None


def test_where_there_may_be_a_gpu_keras_is_used(kept, monkeypatch):
    monkeypatch.setattr(kept_parts, "may_have_accelerator", lambda: True)
    assert taken(kept) is None
    assert kept_parts.keep(kept.parts, kept.model, kept.precision, 2) is None


def test_a_place_that_cannot_be_written_keeps_nothing(kept, monkeypatch):
    monkeypatch.setattr(kept_parts, "kept_in", lambda: kept.place / "missing")
    assert kept_parts.keep(kept.parts, kept.model, kept.precision, 2) is None
    monkeypatch.setattr(kept_parts, "kept_in", lambda: None)
    assert kept_parts.keep(kept.parts, kept.model, kept.precision, 2) is None
    assert taken(kept) is None


def test_nothing_is_kept_that_says_something_else(kept, monkeypatch):
    kept.file.unlink()
    answers = iter(["one", "another"])
    monkeypatch.setattr(kept_parts, "_answer", lambda *_: next(answers))
    assert kept_parts.keep(kept.parts, kept.model, kept.precision, 2) is None
    assert list(kept.place.iterdir()) == []


def test_graphs_of_earlier_versions_make_room(kept):
    stem = kept.file.stem.rpartition("-")[0]
    old, other = kept.place / f"{stem}-0123.graph", kept.place / "network-0-float32-0-0.graph"
    old.touch()
    other.touch()
    kept_parts.keep(kept.parts, kept.model, kept.precision, 2)
    assert sorted(kept.place.iterdir()) == sorted([kept.file, other])


@pytest.mark.parametrize("lack", ["library", "function", "file"])
def test_without_the_library_keras_is_used(kept, lack, monkeypatch, tmp_path):
    graph_session.load_library.cache_clear()
    if lack == "function":
        monkeypatch.setitem(graph_session._SIGNATURES, "TF_NothingOfTheKind", (None, ()))
    elif lack == "library":
        monkeypatch.setattr(kept_parts, "library_files", lambda: None)
        monkeypatch.setattr(graph_session, "library_files", lambda: None)
    else:
        broken = tmp_path / "libtensorflow_cc.so.2"
        broken.write_bytes(b"\x7fELF")
        monkeypatch.setattr(graph_session, "library_files", lambda: (broken, broken))
    try:
        assert taken(kept) is None
    finally:
        monkeypatch.undo()
        graph_session.load_library.cache_clear()


THREADS = """
import sys, threading
from pathlib import Path
import numpy as np
from anystar_batch.geometry import Box
from anystar_batch.network.model import load_model
from anystar_batch.network.predictor import KerasPredictor

def count():
    names = [p.read_text() for p in Path("/proc/self/task").glob("*/comm")]
    return len(names)

before = count()
predictor = KerasPredictor(load_model("anystar-mix"), int(sys.argv[1]))
box = Box.of_shape((48, 48, 48))
predictor.find(np.zeros(box.shape, np.float32), box, box, 0.5)
assert "tensorflow" not in sys.modules
print(count() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in /proc")
def test_an_operation_uses_no_more_threads_than_it_may(kernels):
    places = {"NUMBA_CACHE_DIR": str(kernels[0])}
    one, seven = (int(process(THREADS, n, **places)[0][0]) for n in (1, 7))
    assert seven - one == 6


def test_memory_that_runs_out_is_told_as_ever(kept, monkeypatch):
    network = taken(kept)
    library = graph_session.load_library()
    assert library is not None

    def full(*_):
        message = "OOM when allocating tensor with shape[1,160,160,160,16]"
        raise MemoryError(message)

    monkeypatch.setattr(graph_session, "with_status", full)
    with pytest.raises(ModelError, match="give a smaller --tile"):
        network.find(np.zeros((16, 16, 16), np.float32), Box.of_shape((8, 8, 8)), 0.5)


def test_what_tensorflow_says_is_an_error(kept):
    session = taken(kept)._parts._session
    with pytest.raises(GraphError, match="stem: got float64"):
        session.run("stem", np.zeros((1, 8, 8, 8, 1)))
    with pytest.raises(GraphError, match=r"channels|depth|dim"):
        session.run("stem", np.zeros((1, 8, 8, 8, 2), np.float32))
    with pytest.raises(GraphError, match="no operation"):
        GraphSession({"a": Part(b"", ("x",), "y", {})}, {}, 1)


def test_a_head_is_plain_json_and_the_file_holds_no_code(kept):
    data = kept.file.read_bytes()
    assert (
        data[len(kept_parts.MAGIC) :][:32]
        == hashlib.sha256(data[len(kept_parts.MAGIC) + 32 :]).digest()
    )
    facts, arrays = kept_parts._unpacked(data)
    assert json.loads(json.dumps(facts)) == facts
    assert {array.dtype.str for array in arrays.values()} == {"|u1", "<f4"}


COMMAND = """
import sys
from anystar_batch.cli import main
sys.argv[0] = "anystar-batch"
given, sys.argv[1:] = " ".join(sys.argv[1:]), []
for words in given.split(" / "):
    sys.argv[1:] = words.split()
    try:
        main()
    except SystemExit as end:
        assert not end.code, end.code
    loaded = [m for m in ("tensorflow", "keras", "h5py") if m in sys.modules]
    assert not loaded, (words, loaded)
print("no more", file=sys.stderr)
"""


def test_commands_load_nothing_of_tensorflows_python(tmp_path):
    image = tmp_path / "a.ome.zarr"
    write(Phantom((32,) * 3, 3.5, "sparse", 1), image)
    given = f"segment {image} --diameter 7px --precision float32"
    commands = f"info {image} / {given} --dry-run / {given} --no-report --quiet"
    # Where the kernels of all tests are compiled: kept there by whoever comes first.
    process(FIND, tmp_path / "found.npz", "float32")
    _, said = process(COMMAND, *commands.split(), COLUMNS="100")
    assert said.endswith("no more\n")
    assert (image / "labels" / "anystar").is_dir()
