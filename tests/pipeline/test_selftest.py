"""The self-test, with the real network, and with things broken that it is there to notice."""

import json
import tempfile

import numpy as np
import pytest
from typer.testing import CliRunner

from anystar_batch.cli import app
from anystar_batch.errors import OutputError
from anystar_batch.events import ignore
from anystar_batch.pipeline import selftest
from anystar_batch.pipeline.demo import phantom
from anystar_batch.pipeline.selftest import Check, Selftest, run_selftest

pytestmark = pytest.mark.network


def passed(found):
    return {check.name: check.is_passed for check in found.checks}


@pytest.fixture(scope="module", autouse=True)
def small():
    """A quarter of the phantom: the same objects in less time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selftest, "phantom", lambda: phantom((64, 128, 128)))
        yield


def test_everything_passes_with_the_bundled_model(tmp_path):
    found = run_selftest(tmp_path, ignore)
    assert passed(found) == dict.fromkeys(("count", "outlines", "seams", "table"), True)
    assert found.is_passed
    assert found.voxels_per_second > 0
    assert found.devices
    assert found.precision in {"float32", "bfloat16"}


class Nothing:
    """A network that finds nothing."""

    def __call__(self, *_):
        return self

    def find(self, *_):
        return np.zeros((0, 3), "i4"), np.zeros(0, "f4"), np.zeros((0, 96), "f4")


def test_a_network_that_finds_nothing_fails(tmp_path):
    found = run_selftest(tmp_path, ignore, factory=Nothing())
    assert passed(found) == {"count": False, "outlines": False, "seams": True, "table": True}
    assert not found.is_passed
    assert found.to_json()["is_passed"] is False


def test_other_voxels_behind_a_seam_and_a_wrong_table_fail(tmp_path, monkeypatch):
    honest = selftest._read

    def broken(summary):
        labels = honest(summary)
        if summary.label.endswith("blocks"):
            labels[:, :, 64:] *= 2
        else:
            labels[labels == 3] = 0
        return labels

    monkeypatch.setattr(selftest, "_read", broken)
    found = run_selftest(tmp_path, ignore)
    assert passed(found) == {"count": True, "outlines": True, "seams": False, "table": False}


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty; give a new folder"):
        run_selftest(tmp_path, ignore)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_phantoms_objects_do_not_touch():
    made = phantom((48, 96, 96))
    labels = made.labels
    count = int(labels.max())
    assert count > 10
    assert set(np.unique(labels)) == set(range(count + 1))
    for axis in range(3):
        a = np.moveaxis(labels, axis, 0)
        both = (a[1:] > 0) & (a[:-1] > 0)
        assert np.all(a[1:][both] == a[:-1][both])
    np.testing.assert_array_equal(made.image, phantom((48, 96, 96)).image)


def test_the_command_says_what_it_found_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = CliRunner().invoke(app, ["selftest", "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["is_passed"]
    assert not list(tmp_path.iterdir())


def test_the_command_fails_where_a_check_fails(tmp_path, monkeypatch):
    checks = (Check("count", False, "3 instances of 5 objects"), Check("seams", True, "0 voxels"))
    failed = Selftest(checks, ("cpu x",), "tensorflow", "float32", 2e6, 10**9, {"python": "3"})
    monkeypatch.setattr(selftest, "run_selftest", lambda *_, **__: failed)
    done = CliRunner().invoke(app, ["selftest", "--keep", str(tmp_path / "kept")])
    assert done.exit_code == 1
    assert "FAILED  count: 3 instances of 5 objects" in done.stdout
    assert "ok      seams" in done.stdout
    assert "2.00 million voxels a second" in done.stdout
