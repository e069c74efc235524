"""`review`: a page, an error rate, what is kept beside the label, what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from anystar_batch.archive.storage.lock import hold
from anystar_batch.pipeline import review
from anystar_batch.pipeline.review import ReviewConfig, take_answers, write_page
from tests.laws.test_times import container
from tests.pipeline.test_plate_table import make_plate
from tests.report.test_review_page import data
from tests.support import tiny_volume

RUN = ["--diameter", "5um", "-q"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with an image of five instances and its results."""
    folder = tmp_path_factory.mktemp("made")
    tiny_volume.segment(tiny_volume.small_image(folder / "a.ome.zarr"), run={"report": False})
    return folder


@pytest.fixture
def image(made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a.ome.zarr"


def answer(page, path, *kinds, missed=()):
    """Answer the first instances of a page as a person would."""
    shown = data(Path(page).read_text(encoding="utf-8"))
    said = [
        {"label": item["label"], "list": item["list"], "answer": kind, "missed": k in missed}
        for k, (item, kind) in enumerate(zip(shown["items"], kinds, strict=False))
    ]
    keys = ("format", "version", "fingerprint", "image", "label", "seed", "count", "worst")
    document = {key: shown[key] for key in keys} | {"saved": "today", "answers": said}
    Path(path).write_text(json.dumps(document))
    return path


def refused(done, *words, code=2):
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in errors[0], errors[0]


def test_from_page_to_rate(image, command, tmp_path):
    before = tiny_volume.snapshot(image)
    done = command("review", image, "--count", "4", "--worst", "1", "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith(f"page   {tmp_path}/a.anystar.review.html: 4 of 5 instances")
    said = answer(tmp_path / "a.anystar.review.html", tmp_path / "said.json",
                  "right", "merged", "right", "right", "false", missed=[2])  # fmt: skip
    done = command("review", image, "--answers", said, "-q")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("error rate  25.0 % (4.6 to 69.9) of 4, 95 % interval; a random")
    assert lines[1:] == [
        "  right         75.0 % (30.1 to 95.4) of 4",
        "  merged        25.0 % (4.6 to 69.9) of 4",
        "  missed beside 25.0 % (4.6 to 69.9) of 4",
        "worst first 1 answered, not in the rate: 1 false",
        f"review      {tmp_path}/a.anystar.review.json",
        f"learn from  {tmp_path}/a.anystar.reviewed: 3 right instances",
        f"            python -m trainer finetune --pair {image} "
        f"{tmp_path}/a.anystar.reviewed -o models/mine",
    ]
    kept = json.loads((tmp_path / "a.anystar.review.json").read_text())
    assert kept["error_rate"]["text"] == "25.0 % (4.6 to 69.9) of 4"
    assert (
        kept["fingerprint"] == data((tmp_path / "a.anystar.review.html").read_text())["fingerprint"]
    )
    assert len(kept["answers"]) == 5
    as_json = json.loads(command("review", image, "--answers", said, "-q", "--json").stdout)
    assert as_json["error_rate"] == kept["error_rate"]
    assert as_json["training_set"]["instances"] == 3
    assert tiny_volume.snapshot(image) == before  # the image is left alone


def test_the_page_is_always_the_same_and_a_seed_is_another(image, tmp_path):
    def page(name, **more):
        path = tmp_path / name
        write_page(ReviewConfig(str(image), count=3, worst=2, page=str(path), **more))
        return path.read_bytes()

    assert page("1.html") == page("2.html")
    assert page("1.html") != page("3.html", seed=1)


def test_the_report_of_the_run_has_the_rate(image, tmp_path, command, monkeypatch):
    page = write_page(ReviewConfig(str(image))).page
    said = answer(page, tmp_path / "said.json", "right", "split", "right")
    take_answers(ReviewConfig(str(image)), str(said))
    report = tmp_path / "a.anystar.html"
    assert not report.exists()  # there was none to put it into
    report.write_text("an older page")
    take_answers(ReviewConfig(str(image)), str(said))
    text = report.read_text()
    assert 'id="review"' in text
    assert "Error rate 33.3 % (6.1 to 79.2) of 3" in text
    assert "2 of those drawn were not answered" in text
    # A run that makes the page anew shows it as well, and another label's does not.
    monkeypatch.setattr("anystar_batch.pipeline.publish.page", lambda f: f"{f.review is not None}")
    report.unlink()
    tiny_volume.segment(image, run={"report": True})
    assert report.read_text() == "True"
    tiny_volume.segment(image, run={"report": True, "overwrite": True}, prob_thresh=0.6)
    assert report.read_text() == "False"
    assert (tmp_path / "a.anystar.review.json").exists()


def test_a_copied_result_is_reviewed_and_the_original_is_left_alone(made, image, tmp_path):
    before = tiny_volume.contents(made)
    (tmp_path / "a.anystar.html").write_text("an older page")
    page = write_page(ReviewConfig(str(image))).page
    take_answers(ReviewConfig(str(image)), str(answer(page, tmp_path / "said.json", "right")))
    text = (tmp_path / "a.anystar.html").read_text()
    assert 'id="review"' in text
    assert str(image) in text
    assert f"{made}/" not in text
    assert tiny_volume.contents(made) == before


def test_a_page_that_cannot_be_made_anew_is_a_warning(image, tmp_path, command, monkeypatch):
    page = write_page(ReviewConfig(str(image))).page
    said = answer(page, tmp_path / "said.json", "right")
    (tmp_path / "a.anystar.html").write_text("an older page")

    def fail(_):
        raise RuntimeError("no")

    monkeypatch.setattr(review, "page", fail)
    done = command("review", image, "--answers", said)
    assert done.exit_code == 0
    assert "warning: " in done.stderr
    assert "could not be made anew (RuntimeError: no)" in done.stderr
    assert (tmp_path / "a.anystar.html").read_text() == "an older page"


def test_answers_to_another_label_are_refused_and_older_reviews_are_kept(image, tmp_path, command):
    page = write_page(ReviewConfig(str(image))).page
    said = answer(page, tmp_path / "said.json", "right", "right")
    take_answers(ReviewConfig(str(image)), str(said))
    old = (tmp_path / "a.anystar.review.json").read_text()
    tiny_volume.segment(image, run={"report": False, "overwrite": True}, prob_thresh=0.6)
    refused(command("review", image, "--answers", said), "has answers to another label",
            "make a page of this label")  # fmt: skip
    assert (tmp_path / "a.anystar.review.json").read_text() == old
    page = write_page(ReviewConfig(str(image))).page
    take_answers(ReviewConfig(str(image)), str(answer(page, tmp_path / "new.json", "right")))
    aside = tmp_path / f"a.anystar.review.{json.loads(old)['fingerprint'][:12]}.json"
    assert aside.read_text() == old
    assert (tmp_path / "a.anystar.review.json").read_text() != old


def test_what_cannot_be_reviewed_is_named(image, tmp_path, command):
    refused(command("review", image, "--count", "0"), "--count: got 0; expected 1 to 2000")
    refused(command("review", image, "--worst", "2001"), "--worst: got 2001; expected 0 to 2000")
    refused(command("review", image, "--seed", "-1"), "--seed: got -1")
    refused(command("review", image, "--label", "anystat"), "did you mean 'anystar'?")
    refused(command("review", image, "--answers", tmp_path / "no.json"), "no.json is not there")
    (tmp_path / "bad.json").write_text("{")
    refused(command("review", image, "--answers", tmp_path / "bad.json"), "it is no JSON")
    refused(command("review", image, "--answers", tmp_path), "cannot be read (Is a directory)")
    said = answer(write_page(ReviewConfig(str(image), count=2, worst=0)).page,
                  tmp_path / "said.json", "right")  # fmt: skip
    tiny_volume.edit_json(said, lambda d: d["answers"].append(
        {"label": 99, "answer": "right", "missed": False}))  # fmt: skip
    refused(command("review", image, "--answers", said), "instance 99, which the page of seed 0")
    refused(command("review", image, "--page", tmp_path / "no" / "a.html"), "no/a.html")
    table = (tmp_path / "a.anystar.csv").read_text().splitlines(keepends=True)
    (tmp_path / "a.anystar.csv").write_text("".join(table[:-1]))
    refused(command("review", image), "the table has 4 rows", "5 instances")
    (tmp_path / "a.anystar.csv").unlink()
    (tmp_path / "a.anystar.run.json").unlink()  # it names the table of the folder copied from
    refused(command("review", image), "its table is not there", "a.anystar.csv")
    other = tmp_path / "b.ome.zarr"
    tiny_volume.small_image(other)
    refused(command("review", other), "has no label anystar; there is none")
    shutil.copytree(image / "labels", other / "labels")
    tiny_volume.edit_json(other / "labels/anystar/zarr.json",
                          lambda d: d["attributes"].pop("anystar-batch"))  # fmt: skip
    refused(command("review", other), "was not made by anystar-batch segment")


def test_plates_and_containers_are_reviewed_image_by_image(tmp_path, command):
    make_plate(tmp_path / "p.ome.zarr", {"A/1": ["0", "1"]})
    plate = tmp_path / "p.ome.zarr"
    assert command("segment", plate, *RUN, factory=tiny_volume.Spheres()).exit_code == 0
    refused(command("review", plate), "a plate or a well of 2 images", f"e.g. {plate}/A/1/0")
    done = command("review", f"{plate}/A/1/0", "-q")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "p.A.1.0.anystar.review.html").exists()
    series = container(tmp_path / "c.zarr", 2)
    refused(command("review", series), "a container of 2 images", "give one")


def test_results_that_lie_elsewhere_are_found(made, tmp_path, command):
    image = tmp_path / "in/a.ome.zarr"
    shutil.copytree(made / "a.ome.zarr", image, ignore=shutil.ignore_patterns("labels"))
    out = tmp_path / "out"
    stats = tmp_path / "t.csv"
    tiny_volume.segment(image, output=out, stats=stats, run={"report": True})
    done = command("review", image, "--output", out, "-q")
    assert done.exit_code == 0, done.stderr
    said = answer(out / "a.anystar.review.html", tmp_path / "said.json", "right", "false", "right")
    done = command("review", image, "--output", out, "--answers", said, "-q")
    assert done.exit_code == 0, done.stderr
    assert (out / "a.anystar.review.json").exists()
    assert (out / "a.anystar.reviewed").exists()
    assert 'id="review"' in (tmp_path / "t.html").read_text()
    assert [p.name for p in image.parent.iterdir()] == ["a.ome.zarr"]


def test_while_a_run_holds_the_results_nothing_is_written(image, tmp_path, command):
    page = write_page(ReviewConfig(str(image))).page
    said = answer(page, tmp_path / "said.json", "right")
    before = tiny_volume.contents(tmp_path)
    with hold(tmp_path / "a.anystar.lock"):
        refused(command("review", image, "--answers", said), "lock", code=75)
    assert tiny_volume.contents(tmp_path) == before


def test_a_label_without_instances_is_said(tmp_path, command):
    class Nothing(tiny_volume.Spheres):
        def find(self, image, *_):
            return super().find(0 * image, *_)

    image = tiny_volume.small_image(tmp_path / "a.ome.zarr")
    tiny_volume.segment(image, factory=Nothing(), run={"report": False})
    refused(command("review", image), "the label has no instances")
