from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from anystar_batch.errors import ModelError
from anystar_batch.geometry import Box
from anystar_batch.network import unet
from anystar_batch.network.parts import KerasParts
from anystar_batch.network.slabs import SlabNetwork, in_slabs, is_out_of_memory, stem_reach
from tests.network.test_unet import ODD, SMALL, image_of, perturbed

CONFIGS = {
    "grid 2": (SMALL, (24, 16, 32)),
    "grid 4, anisotropic": (ODD, (9, 16, 24)),
    "one grid": (dataclasses.replace(SMALL, grid=(1, 1, 1)), (12, 8, 16)),
    "deep stem": (dataclasses.replace(SMALL, grid=(4, 4, 2), unet_n_depth=1), (48, 16, 8)),
    "no stem, no U-Net": (
        dataclasses.replace(SMALL, grid=(1, 1, 1), unet_n_depth=0, net_conv_after_unet=5),
        (8, 6, 7),
    ),
}


@pytest.fixture(scope="module")
def networks():
    import keras

    keras.utils.set_random_seed(4)
    return {name: perturbed(unet.build(config)) for name, (config, _) in CONFIGS.items()}


def between(values):
    """Return a threshold near the median that no rounding error carries a value across."""
    middle = np.quantile(values, np.linspace(0.4, 0.6, 9), method="lower")
    sorted_values = np.sort(values[(values >= middle[0]) & (values <= middle[-1])])
    widest = np.argmax(np.diff(sorted_values))
    return float(sorted_values[widest : widest + 2].mean())


def expected(model, image, core, threshold):
    prob, dist = (np.asarray(t)[0] for t in model(image, training=False))
    index = np.argwhere(prob[..., 0] > threshold)
    inside = ((index >= core.start) & (index < core.stop)).all(axis=1)
    index = index[inside]
    return index, prob[tuple(index.T)][:, 0], dist[tuple(index.T)]


@pytest.mark.parametrize("name", CONFIGS)
def test_windows_of_all_shapes_need_one_trace(networks, name):
    config, shape = CONFIGS[name]
    network = SlabNetwork(KerasParts(networks[name], config), config)
    for factor in (1, 2, 3):
        image = image_of(tuple(n * factor for n in shape))[0, ..., 0]
        out = tuple(n // g for n, g in zip(image.shape, config.grid, strict=True))
        network.find(image, Box.of_shape(out), 0.5)
    parts = network._parts
    parts = (parts.stem, parts.down, parts.body, parts.up, parts.features, parts.prob)
    traces = [part.experimental_get_tracing_count() for part in parts if part is not None]
    assert traces == [1] * len(traces)


@pytest.mark.parametrize("slab_bytes", [1, 4000, 10**9])
@pytest.mark.parametrize("name", CONFIGS)
def test_slabs_say_what_the_whole_network_says(networks, name, slab_bytes):
    config, shape = CONFIGS[name]
    image = image_of(shape)
    out = tuple(n // g for n, g in zip(shape, config.grid, strict=True))
    network = SlabNetwork(KerasParts(networks[name], config), config, slab_bytes)
    everywhere = np.asarray(networks[name](image, training=False)[0])[0, ..., 0]
    for core in (Box.of_shape(out), Box((1, 1, 2), tuple(n - 1 for n in out))):
        threshold = between(everywhere[core.slices].ravel())
        found = network.find(image[0, ..., 0], core, threshold)
        index, prob, dist = expected(networks[name], image, core, threshold)
        assert 0 < len(index) < np.prod(core.shape)
        np.testing.assert_array_equal(found[0], index)
        np.testing.assert_allclose(found[1], prob, atol=1e-6)
        np.testing.assert_allclose(found[2], dist, atol=1e-5)
        assert [a.dtype for a in found] == [np.int64, np.float32, np.float32]


def test_nothing_above_the_threshold_is_nothing(networks):
    config, shape = CONFIGS["grid 2"]
    network = SlabNetwork(KerasParts(networks["grid 2"], config), config)
    found = network.find(image_of(shape)[0, ..., 0], Box((0, 0, 0), (12, 8, 16)), 1.0)
    assert [a.shape for a in found] == [(0, 3), (0,), (0, 12)]


def test_bits_do_not_depend_on_the_slabs(networks):
    config, shape = CONFIGS["grid 2"]
    image, core = image_of(shape)[0, ..., 0], Box((2, 2, 2), (10, 7, 14))
    whole, thin = (
        SlabNetwork(KerasParts(networks["grid 2"], config), config, room).find(image, core, 0.3)
        for room in (10**9, 1)
    )
    for a, b in zip(whole, thin, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["grid 2", "no stem, no U-Net"])
def test_bits_do_not_depend_on_the_threshold(networks, name):
    """So what is kept above a low one holds what a higher one would have found."""
    config, shape = CONFIGS[name]
    image = image_of(shape)[0, ..., 0]
    core = Box.of_shape(tuple(n // g for n, g in zip(shape, config.grid, strict=True)))
    network = SlabNetwork(KerasParts(networks[name], config), config)
    index, prob, dist = network.find(image, core, 0.0)
    for count in (0, 1, 2, 3, 5, 16, 17, 33, 100):
        threshold = float(np.sort(prob)[::-1][count])
        above = prob > threshold
        assert above.sum() <= count
        found = network.find(image, core, threshold)
        for kept, alone in zip((index, prob, dist), found, strict=True):
            np.testing.assert_array_equal(kept[above], alone)


class Short:
    """A device on which a slab thicker than `most` has no room."""

    def __init__(self, most):
        self.most, self.done, self.failed = most, [], 0

    def __call__(self, start, stop):
        if stop - start > self.most:
            self.failed += 1
            message = "OOM when allocating tensor with shape[1,160,160,160,16]"
            raise RuntimeError(message)
        self.done.append((start, stop))
        return start, stop


@pytest.mark.parametrize("halo", [0, 2, 6])
@pytest.mark.parametrize(("most", "step"), [(24, 2), (7, 2), (2, 2), (3, 1), (1, 1)])
def test_where_memory_runs_out_slabs_are_halved(most, step, halo):
    device = Short(most)
    made = list(in_slabs(48, 48, step, halo, device))
    assert device.failed >= 1
    assert made == device.done
    assert [a for a, _ in device.done] == [0, *(b for _, b in device.done[:-1])]
    assert device.done[-1][1] == 48
    assert all(a % step == 0 for a, _ in device.done)


def test_slabs_are_even_and_no_larger_than_allowed():
    device = Short(99)
    list(in_slabs(50, 20, 2, 0, device))
    assert device.done == [(0, 18), (18, 36), (36, 50)]
    device = Short(99)
    list(in_slabs(6, 0, 2, 0, device))
    assert device.done == [(0, 2), (2, 4), (4, 6)]


@pytest.mark.parametrize("halo", [0, 1, 2, 4, 9])
@pytest.mark.parametrize("step", [1, 2])
def test_slabs_with_their_halos_are_even(step, halo):
    """What one frees the next can take: only the last may be thinner."""
    margin = halo * step
    for length, most in itertools.product((2, 8, 18, 64), (0, 5, 17, 24, 50, 63, 64, 99)):
        device = Short(99)
        list(in_slabs(length, most, step, margin, device))
        assert [a for a, _ in device.done] == [0, *(b for _, b in device.done[:-1])]
        assert device.done[-1][1] == length
        assert all(a % step == 0 for a, _ in device.done)
        spans = [min(length, b + margin) - max(0, a - margin) for a, b in device.done]
        assert all(span == spans[0] for span in spans[:-1]) or most <= 2 * margin
        assert max(spans) <= max(most, 2 * margin + step)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(start, stop):
        message = "shapes differ"
        raise ValueError(message)

    with pytest.raises(ValueError, match="shapes differ"):
        list(in_slabs(8, 8, 1, 0, broken))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"))


def test_a_window_that_does_not_fit_is_answered_with_a_smaller_tile(networks, monkeypatch):
    config, shape = CONFIGS["grid 2"]
    network = SlabNetwork(KerasParts(networks["grid 2"], config), config)

    def full(_tensor):
        message = "OOM when allocating tensor"
        raise RuntimeError(message)

    monkeypatch.setattr(network._parts, "body", full)
    message = r"no memory for a window of \(24, 16, 32\) voxels; give a smaller --tile"
    with pytest.raises(ModelError, match=message):
        network.find(image_of(shape)[0, ..., 0], Box((0, 0, 0), (2, 2, 2)), 0.5)


@pytest.mark.parametrize(
    ("config", "reach"),
    [(SMALL, 2), (ODD, 0), (dataclasses.replace(SMALL, grid=(4, 4, 2)), 2 + 2 * 2)],
)
def test_the_stem_sees_as_far_as_its_convolutions(config, reach):
    assert stem_reach(config) == reach
