"""Warnings: each fires on what it is made for, and keeps silent otherwise."""

from dataclasses import replace

import numpy as np
import pytest

from anystar_batch.report.seams import SeamTest
from anystar_batch.report.warnings import two_sizes, warnings_of
from tests.support.tables import digest_of, random_rows

RECORD = {
    "probe": None,
    "model": {"diameter_voxels": 7.0},
    "plan": {
        "times": [0],
        "intensity_limits": [[100.0, 400.0]],
        "prob_thresh": 0.5,
        "filters": {},
    },
}
"""What rules read of a run record."""


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """300 instances of one size, most of them certain."""
    found = digest_of(tmp_path_factory.mktemp("usual"), random_rows(300, radius=(4, 6)))
    return replace(found, touching=round(found.touching_expected))


def record(**plan):
    return RECORD | {"plan": RECORD["plan"] | plan}


def probe(diameters, evidence):
    """Five trials, from fine to coarse."""
    trials = [
        {"voxel_um": 0.5 * 2**k, "diameter_um": d, "evidence": e, "objects": 20}
        for k, (d, e) in enumerate(zip(diameters, evidence, strict=True))
    ]
    return RECORD | {"probe": {"is_certain": True, "trials": trials}}


def seam(p, strongest="cuts"):
    return SeamTest("blocks", 6, p, 0.0001, strongest, {}, 1.25, 0.5, 3.0)


def test_a_usual_result_has_none(usual):
    assert warnings_of(usual, RECORD, [seam(0.4)], "uint16") == []


def test_many_at_the_border(usual):
    many = replace(usual, touching=round(usual.touching_expected) + 60)
    (text,) = warnings_of(many, RECORD, [], "uint16")
    assert f"{many.touching} of 300 instances" in text
    assert "touch the volume's border" in text
    few = replace(usual, touching=round(usual.touching_expected) + 40)
    assert warnings_of(few, RECORD, [], "uint16") == []


def test_two_sizes(tmp_path):
    made = random_rows(200, 1, radius=(2, 2.4)) + random_rows(200, 2, radius=(5, 6))
    for k, row in enumerate(made):
        row |= {"label": k + 1, "touches_border": 0, "prob": 0.8}
    (text,) = warnings_of(digest_of(tmp_path, made), RECORD, [], "uint16")
    assert "the sizes fall into two groups: 50% of the instances around 4.4" in text
    assert "--min-volume" in text


def test_saturation(usual):
    clipped = replace(usual, at_brightest=30, brightest=4095.0)
    (text,) = warnings_of(clipped, RECORD, [], "uint16")
    assert "30 of 300 instances (10%) reach the same brightest value, 4095" in text
    assert warnings_of(replace(clipped, at_brightest=29), RECORD, [], "uint16") == []


def test_an_empty_image(usual):
    (text,) = warnings_of(usual, record(intensity_limits=[[100.0, 104.0]]), [], "uint8")
    assert "only 4 grey levels" in text
    assert warnings_of(usual, record(intensity_limits=[[0.0, 1.0]]), [], "float32") == []
    blank = record(times=[0, 1, 2], intensity_limits=[[1.0, 90.0], None, None])
    (text,) = warnings_of(usual, blank, [], "uint16")
    assert "2 of 3 time points have no contrast at all (1, 2)" in text


def test_many_near_the_threshold(usual):
    (text,) = warnings_of(replace(usual, doubtful=90), RECORD, [], "uint16")
    assert "90 of 300 instances (30%) are within 0.05 of the least probability, 0.5" in text
    assert warnings_of(replace(usual, doubtful=89), RECORD, [], "uint16") == []
    filtered = record(filters={"min_prob": 0.7})
    (text,) = warnings_of(replace(usual, doubtful=90), filtered, [], "uint16")
    assert "the least probability, 0.7" in text


@pytest.mark.parametrize(
    ("diameters", "evidence", "said"),
    [
        ((3.0, 9.0, 14.0, 30.0, 60.0), (9, 5, 4, 3, 2), "its finest trial found most"),
        ((3.0, 9.0, 14.0, 30.0, 60.0), (1, 2, 3, 4, 9), "its coarsest trial found most"),
        # At the end, but the objects ask for a scale inside the range.
        ((9.0, 9.0, 14.0, 30.0, 60.0), (9, 5, 4, 3, 2), None),
        ((3.0, 9.0, 14.0, 30.0, 40.0), (1, 2, 3, 4, 9), None),
        ((3.0, 9.0, 14.0, 30.0, 60.0), (1, 2, 9, 4, 3), None),
    ],
)
def test_a_scale_at_the_edge_of_the_probes_range(usual, diameters, evidence, said):
    found = warnings_of(usual, probe(diameters, evidence), [], "uint16")
    assert (said is None and found == []) or said in found[0]


@pytest.mark.parametrize(
    ("strongest", "said"),
    [
        ("density", "1.25 times as many instances"),
        ("size", "instances of 0.50 times the volume"),
        ("cuts", "3.00 times as many that begin or end"),
    ],
)
def test_a_seam(usual, strongest, said):
    (text,) = warnings_of(usual, RECORD, [seam(0.0002, strongest), seam(0.002)], "uint16")
    assert "the borders of blocks left a trace in the labels (p = 0.0002)" in text
    assert said in text


def test_too_few_instances_say_nothing(tmp_path):
    few = digest_of(tmp_path, random_rows(29))
    odd = replace(few, touching=29, doubtful=29, at_brightest=29)
    assert warnings_of(odd, RECORD, [], "uint16") == []


def test_one_group_of_sizes_is_not_taken_for_two():
    found = [
        two_sizes(np.random.default_rng(seed).lognormal(5, spread, 400))
        for seed in range(40)
        for spread in (0.2, 0.8)
    ]
    assert found == [None] * 80
    assert two_sizes(np.full(500, 7.0)) is None


def test_two_groups_of_sizes_are_found_with_what_parts_them():
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.lognormal(2, 0.3, 150), rng.lognormal(5, 0.3, 350)])
    found = two_sizes(sizes)
    assert found.share == pytest.approx(0.3, abs=0.01)
    assert np.exp(2) == pytest.approx(found.small, rel=0.2)
    assert np.exp(5) == pytest.approx(found.large, rel=0.2)
    assert found.small < found.valley < found.large


def test_groups_that_are_small_or_run_into_each_other_are_none():
    rng = np.random.default_rng(0)
    few, many = rng.lognormal(2, 0.2, 100), rng.lognormal(5, 0.2, 900)
    assert two_sizes(np.concatenate([few, many])) is not None
    assert two_sizes(np.concatenate([few[:80], many])) is None
    near = rng.lognormal(5 - 0.26 * 2, 0.2, 9000)
    assert two_sizes(np.concatenate([near, rng.lognormal(5, 0.2, 9000)])) is None


def test_textures_have_a_low_quality(tmp_path):
    rng = np.random.default_rng(1)
    for middle, fires in ((0.38, True), (0.68, False)):
        rows = random_rows(300, radius=(4, 6))
        for row in rows:
            row["quality"] = float(rng.uniform(middle - 0.1, middle + 0.1))
        found = digest_of(tmp_path, rows)
        found = replace(found, touching=round(found.touching_expected))
        texts = warnings_of(found, RECORD, [], "uint16")
        assert bool(texts) == fires
        assert not fires or "out of the model's range" in texts[0]
        few = replace(found, instances=20)
        assert warnings_of(few, RECORD, [], "uint16") == []


def test_the_least_certain_are_those_of_the_lowest_quality(tmp_path):
    rows = random_rows(40)
    plain = digest_of(tmp_path, rows)
    assert plain.certainty == "prob"
    for row in rows:
        row["quality"] = 1.0 - row["label"] / 100
    judged = digest_of(tmp_path, rows)
    assert judged.certainty == "quality"
    assert judged.least_certain["label"].tolist()[:3] == [40, 39, 38]
