"""Objects longer along z than across: looked at squeezed, and labelled as long as they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.errors import BlockError
from anystar_batch.geometry import Box
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.info import describe, describe_text
from anystar_batch.pipeline.segment import segment
from anystar_batch.pipeline.tune import TuneConfig, tune, tuned_text
from tests.support.blobs import Blobs, soft_image
from tests.support.fakes import NoNetwork, make_model, random_ellipsoids, write_image
from tests.support.law_phantom import copy_of, digests, law_refiner
from trainer.matches import match

SHAPE = (48, 96, 96)
LONGER = 1.6
MODEL = make_model(diameter=12.0, tile=32, context=16)


@pytest.fixture(scope="module")
def truth():
    return random_ellipsoids(SHAPE, 14, 3, radius=(5.9, 6.1), gap=3.0)


@pytest.fixture(scope="module")
def image(tmp_path_factory, truth):
    """Balls in voxels that are longer along z."""
    path = tmp_path_factory.mktemp("long") / "a.ome.zarr"
    pixels = soft_image(truth, (1.0, 1.0, 1.0))
    return write_image(path, [pixels], chunks=(32, 32, 32), scale=(LONGER, 1.0, 1.0))


def run(image, block_shape=None, model=MODEL, factory=None, keep=False, **result):
    config = SegmentConfig(
        image=str(image),
        result=ResultConfig(**result),
        run=RunConfig(
            memory=6 * 10**9, block_shape=block_shape, overwrite=True, keep_candidates=keep
        ),
    )
    factory = Blobs((2, 2, 2), reach=24.0) if factory is None else factory
    segment(config, factory=factory, model=model)
    record = json.loads(Path(image).with_name("a.anystar.run.json").read_text())
    label = read_image(str(Path(image) / "labels" / "anystar"))
    return record, ImageReader(label).read_box(0, 0, 0, Box.of_shape(SHAPE))


def test_without_options_they_are_squeezed_and_labelled_as_they_are(image, truth, tmp_path):
    record, labels = run(copy_of(image, tmp_path))
    plan = record["plan"]
    assert plan["elongation"] == record["probe"]["elongation"] == pytest.approx(LONGER, rel=0.08)
    z, y, x = plan["working_voxel_um"]
    assert z / y == pytest.approx(plan["elongation"], rel=0.1), "near the image's own it is that"
    assert x == y
    assert record["summary"]["instances"] == 14
    assert match(truth.labels(), labels).accuracy()[-1] == 1.0, "at IoU 0.7"


@pytest.mark.parametrize("is_refined", [False, True])
def test_blocks_change_no_byte(image, tmp_path, is_refined):
    model = replace(MODEL, refiner=law_refiner(tmp_path / "refiner")) if is_refined else MODEL
    options = {"elongation": 1.5, "diameter": Quantity(14.0, "um"), "expand": Quantity(1.5, "um")}
    found = []
    for k, block_shape in enumerate([SHAPE, (32, 32, 32), (20, 50, 40)]):
        mine = copy_of(image, tmp_path / str(k))
        run(mine, block_shape, model, refine="on" if is_refined else "off", **options)
        found.append(digests(mine))
    assert found[0] == found[1] == found[2]


def test_kept_candidates_and_tune_go_by_it_too(image, tmp_path):
    kept, nothing = copy_of(image, tmp_path / "kept"), copy_of(image, tmp_path / "nothing")
    record, _ = run(kept, keep=True)
    found = tune(TuneConfig(str(kept)), model=MODEL)
    assert found["elongation"] == record["plan"]["elongation"]
    assert found["tiles_usable"] == found["tiles"]
    assert "times as long along z" in tuned_text(found)
    run(kept, factory=NoNetwork(), nms_thresh=0.5)
    run(nothing, nms_thresh=0.5)
    assert digests(kept) == digests(nothing)


def test_candidates_of_another_elongation_are_not_taken(image, tmp_path):
    mine = copy_of(image, tmp_path)
    size = {"diameter": Quantity(14.0, "um")}
    run(mine, keep=True, elongation=1.5, **size)
    with pytest.raises(BlockError):
        run(mine, factory=NoNetwork(), elongation=1.2, **size)


def test_info_says_it(image, tmp_path):
    mine = copy_of(image, tmp_path)
    run(mine, keep=True, elongation=1.5, diameter=Quantity(14.0, "um"))
    _, images = describe(str(mine))
    documents = list(images)
    (kept,) = documents[0]["candidates"]
    assert kept["elongation"] == 1.5
    text = "".join(map(describe_text, documents))
    assert text.count("objects of 14 um, 1.5 times as long along z") == 2
