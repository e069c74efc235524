"""The bundled model in the real pipeline: real TensorFlow, the law, StarDist as the oracle."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from anystar_batch.engine.engines import open_engine
from anystar_batch.geometry import Box
from anystar_batch.network.model import load_model
from anystar_batch.network.predictor import KerasFactory, KerasPredictor
from anystar_batch.pipeline.segment import segment
from anystar_batch.stars.candidates import Candidates, quantise
from anystar_batch.stars.rays import rays_from_config
from anystar_batch.stars.suppress import suppress
from tests.support.checkout import ROOT
from tests.support.fakes import NoNetwork
from tests.support.law_phantom import copy_of, digests
from tests.support.real_model import real_config, write_real_image

pytestmark = pytest.mark.network

SHAPE = (31, 104, 101)
BLOCKS = [(64, 128, 64), (32, 32, 32), (31, 40, 101), (16, 96, 33)]
STAGES = [("predict", 2)]
"""Where the network works; `test_law.py` kills in every stage."""


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write_real_image(tmp_path_factory.mktemp("real") / "phantom.ome.zarr")


@pytest.fixture(scope="module")
def reference(image):
    summary = segment(real_config(image, SHAPE, keep_candidates=True))
    assert summary.instances > 50
    return digests(image)


@pytest.fixture(scope="module")
def two_workers():
    with open_engine(2, 8 * 10**9) as engine:
        yield engine


@pytest.mark.parametrize("block_shape", BLOCKS)
def test_block_shape_changes_no_byte(image, reference, tmp_path, block_shape):
    mine = copy_of(image, tmp_path)
    segment(real_config(mine, block_shape))
    assert digests(mine) == reference


@pytest.mark.parametrize("block_shape", BLOCKS[1:2])
def test_two_workers_change_no_byte(image, reference, tmp_path, block_shape, two_workers):
    mine = copy_of(image, tmp_path)
    segment(real_config(mine, block_shape, workers=2), engine=two_workers)
    assert digests(mine) == reference


def test_kept_candidates_give_the_bytes_of_a_run_from_nothing(image, reference, tmp_path):
    nothing = copy_of(image, tmp_path)
    other = {"prob_thresh": 0.55, "nms_thresh": 0.45, "outline": 0.4}
    config = real_config(nothing, (32, 32, 32))
    assert segment(replace(config, result=replace(config.result, **other))).instances > 20
    config = real_config(image, SHAPE)
    config = replace(config, run=replace(config.run, overwrite=True))
    segment(replace(config, result=replace(config.result, **other)), factory=NoNetwork())
    assert digests(image) == digests(nothing)
    segment(config)  # as the others expect it


@pytest.mark.parametrize(("stage", "after"), STAGES)
def test_kill_and_rerun_changes_no_byte(image, reference, tmp_path, stage, after):
    mine = copy_of(image, tmp_path)
    script = ROOT / "tests" / "support" / "killed_run.py"
    killed = subprocess.run(
        [sys.executable, str(script), str(mine), stage, str(after), "real"],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    segment(real_config(mine, (32, 64, 96)))
    assert digests(mine) == reference


def test_stardist_loads_the_bundled_folder_and_gives_the_same_output():
    from stardist.models import StarDist3D

    model = load_model("anystar-mix")
    folder = Path(model.folder)
    theirs = StarDist3D(None, name=folder.name, basedir=str(folder.parent))
    image = np.random.default_rng(0).random((32, 48, 64)).astype(np.float32)
    prob, dist = theirs.predict(image, normalizer=None)[:2]
    ours = KerasPredictor(model, threads=2)
    box = Box.of_shape(image.shape)
    points, our_prob, our_dist = ours.find(image, box, box, -1.0)
    at = tuple((points // np.asarray(model.grid)).T)
    assert len(points) == prob.size
    np.testing.assert_allclose(our_prob, prob[at], atol=1e-5)
    np.testing.assert_allclose(our_dist, dist[at], atol=1e-5 * max(1.0, float(dist.max())))


FIND = """
import sys
import numpy as np
from tests.laws.test_model import answers
points, prob, dist = answers("jax")
assert "tensorflow" not in sys.modules
np.savez(sys.argv[1], points=points, prob=prob, dist=dist)
"""


def answers(backend):
    image = np.random.default_rng(0).random((32, 48, 64), np.float32)
    box = Box.of_shape(image.shape)
    predictor = KerasFactory("float32", backend)(load_model("anystar-mix"), 1)
    return predictor.find(image, box, box, -1.0)


def test_under_jax_the_network_says_the_same_without_tensorflow(tmp_path):
    path = tmp_path / "jax.npz"
    subprocess.run([sys.executable, "-c", FIND, str(path)], check=True, cwd=ROOT)
    points, prob, dist = answers("tensorflow")
    theirs = np.load(path)
    np.testing.assert_array_equal(points, theirs["points"])
    np.testing.assert_allclose(prob, theirs["prob"], atol=1e-5)
    scale = max(1.0, float(dist.max()))
    np.testing.assert_allclose(dist, theirs["dist"], atol=1e-5 * scale)


def test_bfloat16_finds_the_same_objects():
    image, labels = blobs_of_light()
    box = Box.of_shape(image.shape)
    model = load_model("anystar-mix")
    centres = {}
    for precision in ("float32", "bfloat16"):
        found = KerasPredictor(model, 2, precision).find(image, box, box, model.prob_thresh)
        candidates = Candidates(*found[:2], quantise(found[2], model.max_radius))
        kept = suppress(candidates, rays_from_config(json.loads(model.rays_json)), model.nms_thresh)
        centres[precision] = labels[tuple(candidates.points[kept].T)]
    # Each sphere once; in the padding, 0, there may be something at one precision.
    for inside in centres.values():
        assert sorted(inside[inside > 0]) == list(range(1, 28))


def blobs_of_light():
    from trainer.export import phantom

    image, labels = phantom(7.0)
    edges = [(0, -(-n // 16) * 16 - n) for n in image.shape]
    return np.pad(image, edges, mode="edge"), np.pad(labels, edges)


def test_the_network_finds_the_nuclei_of_stardists_test_volume(tmp_path):
    """A floor far below what the card claims: it fails when weights, scale or painting break."""
    import stardist
    import tifffile
    from stardist.matching import matching

    from tests.support.fakes import write_image

    data = Path(stardist.__file__).parent / "data"
    volume = tifffile.imread(data / "images" / "img3d.tif")
    truth = tifffile.imread(data / "images" / "mask3d.tif")
    path = write_image(tmp_path / "a.ome.zarr", [volume], chunks=(31, 61, 57))
    config = real_config(path)
    config = type(config)(image=path, result=type(config.result)(diameter=config.result.diameter))
    segment(config)
    labels = zarr.open_array(f"{path}/labels/anystar/0", mode="r")[...]
    assert matching(truth, labels.astype(np.int32), thresh=0.3).accuracy > 0.6
