"""bfloat16 for float32 costs no accuracy on real volumes, through the command."""

from pathlib import Path

import numpy as np
import pytest

from anystar_batch.archive.images import ImageReader, read_image
from anystar_batch.config import ResultConfig, RunConfig, SegmentConfig
from anystar_batch.geometry import Box
from anystar_batch.network.predictor import KerasFactory
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline.segment import segment
from bench.quality import write_truth
from trainer.matches import Tally, match
from trainer.volumes import bbbc050, gonuclear, tgmm

pytestmark = [pytest.mark.network, pytest.mark.data]


def found(truth, folder, precision, factory):
    path = Path(folder) / f"{truth.name}.ome.zarr"
    if not path.exists():
        write_truth(path, truth)
    summary = segment(
        SegmentConfig(
            image=str(path),
            result=ResultConfig(diameter=Quantity(truth.diameter(), "um"), precision=precision),
            run=RunConfig(memory=8 * 10**9, overwrite=True),
        ),
        factory=factory,
    )
    label = read_image(summary.label)
    return ImageReader(label).read_box(0, 0, 0, Box.of_shape(label.shape_zyx(0)))


def test_accuracy_is_the_same_within_half_a_point(tmp_path):
    truths = [*bbbc050([1, 3]), *gonuclear(), *tgmm()]
    totals = {}
    for precision in ("float32", "bfloat16"):
        factory = KerasFactory(precision)
        labels = [found(truth, tmp_path, precision, factory) for truth in truths]
        pairs = zip(truths, labels, strict=True)
        totals[precision] = sum((match(t.labels, x) for t, x in pairs), Tally())
    single, half = (np.array(total.accuracy()) for total in totals.values())
    assert single[1] > 0.4
    assert np.any(single != half), "one precision was compared with itself"
    assert abs(np.mean(half - single)) < 0.005
