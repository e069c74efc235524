from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box, iter_grid
from anystar_batch.network import predictor
from anystar_batch.network.imports import quiet_imports
from anystar_batch.network.predictor import MIN_DIST, KerasFactory, KerasPredictor
from anystar_batch.network.tiles import plan_tiles
from tests.support.fakes import make_model


class Field:
    """A network that answers with the place it was asked about: voxel numbers as distances."""

    def __init__(self, grid, prob=None):
        self.grid, self.prob, self.seen = grid, prob, []

    def find(self, image, core, prob_thresh):
        self.seen.append(image.shape)
        image = image[tuple(slice(None, None, g) for g in self.grid)][core.slices]
        prob = np.full(image.shape, 0.9) if self.prob is None else self.prob(image)
        index = np.argwhere(prob > prob_thresh)
        chosen = tuple(index.T)
        dist = np.repeat(image[chosen][:, None], 96, axis=-1)
        return index + core.start, prob[chosen].astype(np.float32), dist


@pytest.fixture
def make(monkeypatch):
    """Return a function that makes a predictor around a network that needs no Keras."""
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))
    monkeypatch.setattr(predictor, "load_weights", lambda *_: None)
    monkeypatch.setattr(predictor, "KerasParts", lambda network, _: network)
    monkeypatch.setattr(predictor, "SlabNetwork", lambda network, _: network)
    monkeypatch.setattr(predictor, "keep", lambda *_: None)

    def make(network, grid=(2, 2, 2), backend="jax"):
        monkeypatch.setattr(predictor, "build", lambda *_: network)
        return KerasPredictor(make_model(grid=grid), 1, backend=backend)

    return make


def numbers(window, shape):
    """Every voxel of a window holds 1 + its number in the volume, mirrored beyond it."""
    axes = [np.arange(a, b) for a, b in zip(window.start, window.stop, strict=True)]
    z, y, x = (np.clip(axis, 0, n - 1) for axis, n in zip(axes, shape, strict=True))
    return 1 + (z[:, None, None] * shape[1] + y[:, None]) * shape[2] + x


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 2, 2), (1, 2, 2), (4, 4, 4)])
@pytest.mark.parametrize("shape", [(40, 37, 51), (5, 70, 33)])
def test_every_grid_point_is_found_once_by_the_tile_that_owns_it(make, grid, shape):
    network = Field(grid)
    keras = make(network, grid)
    lattice = plan_tiles(shape, 16, 8, (8, 8, 8))
    found = []
    for index in iter_grid(lattice.counts):
        window = lattice.window_box(index)
        image = numbers(window, shape).astype(np.float32)
        points, prob, dist = keras.find(image, window, lattice.core_box(index), 0.5)
        # What the network said at a point is what the image shows there.
        z, y, x = points.T
        assert (dist[:, 0] == 1 + (z * shape[1] + y) * shape[2] + x).all()
        assert (prob == np.float32(0.9)).all()
        found.append(points)
    windows = [lattice.window_box(index).shape for index in iter_grid(lattice.counts)]
    assert network.seen == windows
    points = np.concatenate(found)
    expected = np.argwhere(np.ones([-(-n // g) for n, g in zip(shape, grid, strict=True)])) * grid
    order = np.lexsort(points.T[::-1])
    np.testing.assert_array_equal(points[order], expected)


def test_only_what_exceeds_the_threshold_is_found(make):
    image = np.linspace(0, 1, 16**3, dtype=np.float32).reshape(16, 16, 16)
    box = Box.of_shape(image.shape)
    keras = make(Field((2, 2, 2), prob=lambda seen: seen))
    threshold = float(image[8, 8, 8])
    points, prob, _ = keras.find(image, box, box, threshold)
    assert (prob > threshold).all()
    assert len(points) == np.sum(image[::2, ::2, ::2] > threshold)
    assert not (points == 8).all(axis=1).any()


def test_types_are_fixed_and_distances_positive(make):
    image = np.zeros((8, 8, 8), np.float32)
    box = Box.of_shape(image.shape)
    points, prob, dist = make(Field((2, 2, 2))).find(image, box, box, 0.5)
    assert (points.dtype, prob.dtype, dist.dtype) == (np.int32, np.float32, np.float32)
    assert (dist == np.float32(MIN_DIST)).all()
    assert dist.shape == (len(points), 96)
    empty = make(Field((2, 2, 2))).find(image, box, box, 0.95)
    assert [a.shape for a in empty] == [(0, 3), (0,), (0, 96)]


def test_a_missing_backend_names_the_extra(make, monkeypatch):
    def build(config, precision):
        raise ModuleNotFoundError(name="jaxlib")

    keras = make(Field((2, 2, 2)))
    assert keras is not None
    monkeypatch.setattr(predictor, "build", build)
    with pytest.raises(ModelError, match=r"network: jaxlib is not installed.*anystar-batch\[jax\]"):
        KerasPredictor(make_model(), 1, backend="jax")


def test_a_factory_hands_on_precision_and_backend(monkeypatch):
    asked = []
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(predictor, "build", lambda _, precision: asked.append(precision))
    monkeypatch.setattr(predictor, "load_weights", lambda *_: None)
    monkeypatch.setattr(predictor, "KerasParts", lambda *_: None)
    monkeypatch.setattr(predictor, "SlabNetwork", lambda *_: None)
    factory = KerasFactory("bfloat16", "jax")
    assert isinstance(factory(make_model(), 1), KerasPredictor)
    assert asked == ["bfloat16"]
    assert os.environ["KERAS_BACKEND"] == "jax"
    assert hash(factory) == hash(KerasFactory("bfloat16", "jax")) != hash(KerasFactory())


def test_weights_that_do_not_fit_are_the_models_error(make, monkeypatch):
    def load_weights(network, path):
        message = f"model: {path.name} does not fit"
        raise ModelError(message)

    monkeypatch.setattr(predictor, "load_weights", load_weights)
    with pytest.raises(ModelError, match=r"weights_best.h5 does not fit"):
        make(Field((2, 2, 2)))


def test_threads_are_bounded_before_the_network_is_built(make, monkeypatch):
    calls = []

    def refuse(count):
        calls.append(("inter", count))
        raise RuntimeError

    threading = SimpleNamespace(
        set_intra_op_parallelism_threads=lambda count: calls.append(("intra", count)),
        set_inter_op_parallelism_threads=refuse,
    )
    fake = SimpleNamespace(config=SimpleNamespace(threading=threading))
    monkeypatch.setitem(sys.modules, "tensorflow", fake)
    make(Field((2, 2, 2)), backend="tensorflow")
    assert calls == [("intra", 1), ("inter", 1)]


def test_what_libraries_print_while_loading_goes_to_the_log(capfd, caplog, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with caplog.at_level(logging.DEBUG, "anystar_batch.network.imports"), quiet_imports():
        sys.stdout.write("base_model.py: WARNING\n\n")
        os.write(2, b"from C++\n")
    assert caplog.messages == ["base_model.py: WARNING"]
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("", "after\n")


@pytest.mark.parametrize("given", [None, "/somewhere"])
def test_keras_does_not_look_for_settings_of_the_users(monkeypatch, given):
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("KERAS_HOME", given)
    with quiet_imports():
        home = os.environ["KERAS_HOME"]
        assert not os.path.exists(home)  # noqa: PTH110
        with pytest.raises(NotADirectoryError):
            os.makedirs(home)  # noqa: PTH103
    assert os.environ.get("KERAS_HOME") == given


def test_the_error_stream_comes_back_after_a_failure(capfd, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "tensorflow"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    with pytest.raises(ValueError, match="broken"), quiet_imports():
        raise ValueError("broken")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
