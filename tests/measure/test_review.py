"""Error rates against SciPy; what is no file of answers; only the random sample counts."""

import json

import pytest
from scipy.stats import binomtest

from anystar_batch.errors import ConfigError
from anystar_batch.measure.review import KINDS, Answer, Proportion, judge, parse_answers


@pytest.mark.parametrize(("count", "of"), [(3, 100), (0, 7), (7, 7), (1, 2), (1234, 5000)])
def test_the_interval_is_wilsons(count, of):
    expected = binomtest(count, of).proportion_ci(0.95, "wilson")
    assert Proportion(count, of).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_rate_is_said_as_one_quotes_it():
    assert str(Proportion(3, 100)) == "3.0 % (1.0 to 8.5) of 100"
    assert str(Proportion(0, 100)) == "0.0 % (0.0 to 3.7) of 100"
    assert str(Proportion(0, 0)) == "not known: nothing was answered"
    found = Proportion(0, 0).to_json()
    assert (found["share"], found["interval_95"]) == (None, [0.0, 1.0])


def test_only_the_random_sample_enters_the_rate():
    said = [Answer(n, "right", missed=n == 3) for n in range(1, 9)]
    said += [Answer(9, "false", missed=False), Answer(10, "merged", missed=True)]
    said += [Answer(11, None, missed=True)]  # not said what it is itself
    worst = [Answer(n, "split", missed=False) for n in range(50, 70)]
    found = judge(range(1, 13), {one.label: one for one in said + worst})
    assert found["error_rate"] == Proportion(2, 10).to_json()
    assert {k: v["count"] for k, v in found["kinds"].items()} == {
        "right": 8, "false": 1, "merged": 1, "split": 0, "outline": 0,
    }  # fmt: skip
    assert found["missed_next_to_it"] == Proportion(2, 10).to_json()
    assert found["not_answered"] == 2
    assert found["worst_first"] == {"answered": 20, **dict.fromkeys(KINDS, 0), "split": 20}
    json.dumps(found)


GOOD = {
    "format": "anystar-batch review",
    "version": 1,
    "fingerprint": "abc",
    "seed": 4,
    "count": 100,
    "worst": 0,
    "answers": [
        {"label": 7, "list": "sample", "answer": "outline", "missed": True},
        {"label": 9, "list": "sample", "answer": None, "missed": True},
    ],
}


def test_what_a_page_saves_is_read():
    found = parse_answers(GOOD, "a.json")
    assert (found.fingerprint, found.seed, found.count, found.worst) == ("abc", 4, 100, 0)
    assert found.answers == {7: Answer(7, "outline", True), 9: Answer(9, None, True)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ([], "the format 'list'"),
        ({"format": "else"}, "the format 'else'"),
        ({"version": 2}, "version 2"),
        ({"fingerprint": None}, "no fingerprint"),
        ({"answers": {}}, "no answers"),
        ({"seed": -1}, "seed -1"),
        ({"seed": True}, "seed True"),
        ({"count": 0}, "count 0"),
        ({"worst": 1.5}, "worst 1.5"),
        ({"answers": [7]}, "the answer 7"),
        ({"answers": [{"label": 7, "answer": "good", "missed": False}]}, "'good'"),
        ({"answers": [{"label": 7, "answer": ["right"], "missed": False}]}, "the answer"),
        ({"answers": [{"label": 0, "answer": "right", "missed": False}]}, "the answer"),
        ({"answers": [{"label": 7, "answer": "right", "missed": 0}]}, "the answer"),
        ({"answers": GOOD["answers"] * 2}, "one a label"),
    ],
)
def test_what_is_no_file_of_answers_is_named(change, said):
    document = {**GOOD, **change} if isinstance(change, dict) else change
    with pytest.raises(
        ConfigError, match=r"--answers: a\.json: found .*expected .*give the JSON"
    ) as e:
        parse_answers(document, "a.json")
    assert said in str(e.value)
