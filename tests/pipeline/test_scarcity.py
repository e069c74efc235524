"""Nothing found, or next to nothing: what was looked at is said, in a warning."""

import json

import numpy as np
import pytest

from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor

RUN = ["--diameter", "5um", "-q", "--no-report"]


class Faint:
    """Finds everything, but less surely than the threshold asks for."""

    def __init__(self, most=0.49):
        self.most, self.inner = most, TruthPredictor(tiny_volume.truth())

    def __call__(self, *_):
        return self

    def find(self, image, window, core, prob_thresh):
        points, prob, dist = self.inner.find(image, window, core, 0.0)
        prob = (prob * self.most).astype(np.float32)
        keep = prob > prob_thresh
        return points[keep], prob[keep], dist[keep]


def warning(folder):
    record = json.loads((folder / "a.anystar.run.json").read_text())
    return record["summary"]["warnings"][-1]


def test_candidates_just_below_the_threshold_are_counted(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *RUN, "--fail-on-warning", factory=Faint())
    assert done.exit_code == 3, done.stderr
    text = warning(tmp_path)
    assert text.startswith("no objects were found. Looked at: level 0, working voxel 0.5 x 0.5")
    assert "working shape (20, 40, 44); looked for: objects of 5 um" in text
    assert "intensities from 100 (black) to 1174 (white)" in text
    count = int(text.partition("textured tiles have ")[2].split()[0])
    assert 1 <= count <= 5
    assert "between 0.25 and the threshold, 0.5, the best 0.4" in text


def test_what_the_probe_found_elsewhere_is_said(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, "-q", "--no-report", factory=Faint())
    assert done.exit_code == 0, done.stderr
    assert "the probe found nothing at any scale" in warning(tmp_path)


def test_what_the_filters_removed_is_said(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *RUN, "--min-volume", "9000")
    assert done.exit_code == 0, done.stderr
    assert warning(tmp_path).startswith("no objects are left. Looked at: ")
    assert "the filters removed 5" in warning(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 3, 4])
def test_a_few_are_next_to_nothing_where_there_is_room_for_thousands(count):
    from types import SimpleNamespace

    from anystar_batch.pipeline.scarcity import is_next_to_nothing

    def work(shape, diameter=10.0):
        plan = SimpleNamespace(
            model=SimpleNamespace(diameter=diameter),
            working=SimpleNamespace(shape=shape),
            times=(0,),
            region=None,
        )
        return SimpleNamespace(plan=plan)

    assert is_next_to_nothing(work((200, 200, 400)), count, 0) is (count < 4)
    assert is_next_to_nothing(work((40, 40, 40)), count, 0) is (count == 0)
    assert is_next_to_nothing(work((200, 200, 400)), count, 9) is (count == 0)
    assert is_next_to_nothing(work((200, 200, 400), None), count, 0) is (count == 0)
