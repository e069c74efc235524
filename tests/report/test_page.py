"""The page: what it shows, that it needs nothing else, and what happens where it fails."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from anystar_batch.archive.images import read_image
from anystar_batch.archive.storage.atomic_write import write_json_atomic
from anystar_batch.config import Inside
from anystar_batch.errors import LostLockError
from anystar_batch.events import Note
from anystar_batch.parsing import Quantity
from anystar_batch.pipeline import prepare, publish
from anystar_batch.report import findings
from anystar_batch.report.limits_figure import limits_svg
from anystar_batch.report.page import _longer, page
from anystar_batch.report.seams import BorderGrid, SeamTest
from tests.support import tiny_volume
from tests.support.browser import measured
from tests.support.fakes import TruthPredictor, write_image

SIZE = ["--diameter", "5um"]


def with_page(image, listen=lambda _: None, **options):
    """Segment with a page; return it."""
    run = {"report": True, "block_shape": None} | options.pop("run", {})
    summary = tiny_volume.segment(image, listen, run=run, **options)
    return Path(summary.report).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A page of a name that would be markup."""
    folder = tmp_path_factory.mktemp("page")
    return with_page(tiny_volume.small_image(folder / "<b>a&'\"b.zarr", levels=3))


def without_times(text):
    text = re.sub(r"<time .*?</time>", "", text)
    return re.sub(r'<section id="times">.*?</section>', "", text, flags=re.DOTALL)


def test_it_has_all_its_parts(shown):
    ids = re.findall(r'<section id="(\w+)"', shown)
    assert ids == ["looks", "gallery", "sizes", "space", "seams", "run", "times"]
    assert shown.count('class="ortho"') == 2
    kinds = re.findall(r"<h3>(Typical|Least certain|Smallest|Largest)</h3>", shown)
    assert kinds == ["Typical", "Least certain", "Smallest", "Largest"]
    assert shown.count('class="crop"') >= 15
    assert "Too few instances, 5, to judge more than the image and the scale." in shown
    for said in ("Objects of 5 µm, as given", "numpy 2.", "fake 1", "painting labels"):
        assert said in shown, said


def test_it_needs_nothing_but_itself(shown):
    assert "<script" not in shown
    written = re.sub(r"base64,[\w+/=]+", "", shown)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", written)
    assert set(re.findall(r'(?:src|href)="(\w+):', shown)) == {"data"}
    assert "default-src 'none'" in shown


def test_of_a_region_its_part_of_the_image_is_told_and_density_is_of_it(tmp_path, shown):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    half = np.zeros(tiny_volume.SHAPE, np.uint8)
    half[:10] = 1
    half[10:, :, :22] = 7
    write_image(f"{image}/labels/organoids", [half], scale=(0.5, 0.5, 0.5))
    inside = with_page(image, inside=Inside("organoids", ((7, 9),)))
    assert "organoids, regions 7 to 9: 25 % of the image; " in inside
    assert " of the region</" in inside
    assert "of the region" not in shown


def boxes(count, length, cut=0):
    """Columns of so many instances 6 um across and so many times as long; further ones are cut."""
    n = count + cut
    high = {"z": 6.0 * length / 2.0, "y": 12.0, "x": 12.0}
    rows = {f"bbox_{a}_{side}": np.full(n, high[a] * (side == "max")) for a in "zyx" for side in
            ("min", "max")}  # fmt: skip
    return rows | {"touches_border": np.arange(n) >= count}


@pytest.mark.parametrize(
    ("count", "length", "plan", "probe", "is_told"),
    [
        (20, 1.5, {}, None, True),
        (19, 1.5, {}, None, False),
        (20, 1.15, {}, None, False),
        (20, 1.5, {"elongation": 1.4}, None, False),
        (20, 1.5, {"diameter_um": None}, None, False),
        (20, 1.5, {}, {"is_certain": True}, False),
    ],
)
def test_objects_longer_than_looked_for_are_told(count, length, plan, probe, is_told):
    record = {"probe": probe}
    record["plan"] = {"diameter_um": 6.0, "voxel_size_um": [2.0, 0.5, 0.5]} | plan
    digest = SimpleNamespace(sample=boxes(count, length, cut=40))
    told = _longer(SimpleNamespace(record=record, digest=digest))
    assert ("<code>--elongation 1.5</code>" in told) == is_told
    assert bool(told) == is_told


def test_names_are_text_and_never_markup(shown):
    assert "<b>a" not in shown
    assert "&lt;b&gt;a&amp;&#x27;&quot;b" in shown


def test_an_image_without_objects_has_a_page(tmp_path):
    class Nothing:
        def __call__(self, *_):
            return self

        def find(self, *_):
            return np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, 96), "f4")

    text = with_page(tiny_volume.small_image(tmp_path / "a.zarr"), factory=Nothing())
    assert '<dd class="value">0</dd>' in text
    assert "Nothing to show for volume, µm³." in text
    assert 'id="gallery"' not in text


def test_a_series_has_a_page_of_its_fullest_time(tmp_path):
    text = with_page(tiny_volume.small_series(tmp_path / "a.zarr"), channel="1")
    assert "time 0, which has most instances; channel 1" in text
    assert "Over time" in text
    assert "in 3 time points" in text


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A page with all that a page can have: warnings, seams, a probe."""
    image = tiny_volume.small_image(tmp_path_factory.mktemp("full") / "a.zarr")
    summary = tiny_volume.segment(image, run={"report": False, "block_shape": None})
    record = json.loads(Path(summary.stats).with_suffix(".run.json").read_text())
    trials = [
        {"voxel_um": 0.5 * 2**k, "diameter_um": 5.0, "evidence": 0.001 * k, "objects": 9 * k}
        for k in range(5)
    ]
    record["probe"] = {"diameter_um": 5.0, "is_certain": True, "trials": trials}
    record["summary"]["warnings"] = ["the borders left a trace; see /a/very/long/" + "path" * 30]
    found = findings.gather(record, Path(summary.stats))
    grid = BorderGrid("blocks of the label", (10.0, 20.0, 22.0), (10.0, 20.0, 22.0))
    seams = (
        SeamTest(grid.name, 12, 0.0001, 0.0001, "cuts", {}, 1.31, 0.52, 14.8),
        SeamTest("tiles", 0, None, 1.0, "", {}, np.nan, np.nan, np.nan, "only 5 instances"),
    )
    return page(replace(found, grids=(grid,), seams=seams))


def test_a_trace_is_said_in_words_and_numbers(full):
    assert "The borders of blocks of the label left a trace in the labels." in full
    assert "≤ 0.0001, trace" in full
    assert "tiles: only 5 instances" in full
    assert "Density near borders" in full
    assert "proposed by the probe" in full


def test_the_browser_shows_it_at_both_widths_without_a_word(full):
    found, logged = measured(full)
    assert logged == []
    for width, one in found.items():
        assert one["spread"] <= width
        assert one["texts"] == 0
        assert len(one["pictures"]) == full.count("<img ")
        assert all(natural > 0 and wide > 20 for natural, wide in one["pictures"])
        assert len(one["charts"]) == full.count('class="chart"') >= 8
        assert min(one["charts"]) > 90
        # A column of single letters is as wide as one.
        assert min(one["columns"]) > 20


def test_the_command_writes_it_and_says_where(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *SIZE)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"report {tmp_path}/a.anystar.html"
    assert (tmp_path / "a.anystar.html").read_text().startswith("<!doctype html>")
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert record["checks"]["warnings"] == []
    assert record["checks"]["touching_border"] <= 5


def test_runs_differ_in_times_only_and_no_report_takes_the_page_away(tmp_path, command):
    image, page = tiny_volume.small_image(tmp_path / "a.zarr"), tmp_path / "a.anystar.html"
    found = []
    for options in ([], ["--overwrite"], ["--overwrite", "--no-report"]):
        done = command("segment", image, *SIZE, *options)
        assert done.exit_code == 0, done.stderr
        result = tiny_volume.contents(f"{image}/labels"), (tmp_path / "a.anystar.csv").read_bytes()
        found.append((result, page.read_text() if page.exists() else None))
    (first, second, third), pages = zip(*found, strict=True)
    assert first == second == third
    assert without_times(pages[0]) == without_times(pages[1])
    assert pages[2] is None
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert first_words == ["labels", "channel", "table"]


def test_it_lies_beside_the_table_and_is_named_like_it(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    (tmp_path / "t").mkdir()
    done = command("segment", image, *SIZE, "--stats", tmp_path / "t" / "mine.csv", "--json")
    assert json.loads(done.stdout)["report"] == f"{tmp_path}/t/mine.html"
    assert (tmp_path / "t" / "mine.html").exists()


def test_a_page_that_is_missing_is_written_by_the_next_command(tmp_path, command):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    command("segment", image, *SIZE)
    (tmp_path / "a.anystar.html").unlink()
    before = tiny_volume.contents(f"{image}/labels")
    again = command("segment", image, *SIZE)
    assert "nothing to do" in again.stdout
    assert (tmp_path / "a.anystar.html").exists()
    kept = (tmp_path / "a.anystar.html").stat().st_mtime_ns
    command("segment", image, *SIZE)
    assert (tmp_path / "a.anystar.html").stat().st_mtime_ns == kept
    assert tiny_volume.contents(f"{image}/labels") == before


def broken(_):
    message = "no paint left"
    raise OSError(message)


def test_a_page_that_fails_spoils_nothing(tmp_path, command, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    monkeypatch.setattr(publish, "page", broken)
    done = command("segment", image, *SIZE)
    assert done.exit_code == 0
    assert "the report could not be made (OSError: no paint left); label and table" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines() == [
        f"labels {image}/labels/anystar: 5 instances",
        "channel 0 (0)",
        f"table  {tmp_path}/a.anystar.csv",
    ]
    assert not list(tmp_path.glob("*.work"))
    assert (tmp_path / "a.anystar.run.json").exists()
    again = command("segment", image, *SIZE, "--overwrite", "--fail-on-warning")
    assert again.exit_code == 3
    assert Path(image, "labels", "anystar").is_dir()
    monkeypatch.undo()


def test_a_lost_lock_keeps_the_report_from_writing(tmp_path, monkeypatch):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    summary = tiny_volume.segment(image, run={"report": True, "block_shape": None})
    Path(summary.report).unlink()
    record = tmp_path / "a.anystar.run.json"
    before, notes = record.stat().st_mtime_ns, []

    class Lost:
        def check(self):
            message = "somebody else's"
            raise LostLockError(message)

    config = tiny_volume.config(image, run={"report": True, "block_shape": None})
    places = prepare.request(
        config, tiny_volume.model(), TruthPredictor(tiny_volume.truth())
    ).outputs
    publish.write_report(config, places, Lost(), notes.append)
    assert "LostLockError" in next(n.text for n in notes if isinstance(n, Note))
    assert record.stat().st_mtime_ns == before
    assert not Path(summary.report).exists()


@pytest.fixture
def warned(monkeypatch):
    """Make every result look doubtful."""
    monkeypatch.setattr(findings, "warnings_of", lambda *_: ["look <twice>"])


def test_warnings_come_first_in_words(tmp_path, warned):
    notes = []
    text = with_page(tiny_volume.small_image(tmp_path / "a.zarr"), notes.append)
    assert "<strong>⚠ One warning</strong><ul><li>Look &lt;twice&gt;.</li></ul>" in text
    assert text.index("One warning") < text.index("<section")
    assert [n.text for n in notes if isinstance(n, Note) and n.is_warning] == ["look <twice>"]


def test_fail_on_warning_publishes_and_exits_3(tmp_path, command, warned):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    done = command("segment", image, *SIZE, "--fail-on-warning", "--no-report", "-q")
    assert done.exit_code == 3
    assert done.stderr == "warning: look <twice>\n"
    assert Path(image, "labels", "anystar").is_dir()
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert record["summary"]["warnings"] == record["checks"]["warnings"] == ["look <twice>"]


def test_what_was_judged_before_is_judged_anew(tmp_path, warned):
    image = tiny_volume.small_image(tmp_path / "a.zarr")
    tiny_volume.segment(image, run={"report": True, "block_shape": None})
    path = tmp_path / "a.anystar.run.json"
    record = json.loads(path.read_text())
    record["checks"]["warnings"] = ["old"]
    record["summary"]["warnings"] = ["of the run", "old"]
    write_json_atomic(path, record)
    (tmp_path / "a.anystar.html").unlink()
    tiny_volume.segment(image, run={"report": True, "block_shape": None})
    assert json.loads(path.read_text())["summary"]["warnings"] == ["of the run", "look <twice>"]


def test_a_sweep_fails_on_warnings_too(tmp_path, command, warned):
    tiny_volume.small_image(tmp_path / "x" / "a.ome.zarr", levels=1)
    options = ["sweep", tmp_path / "x", *SIZE, "--settle", "0", "--fail-on-warning", "--json"]
    done = command(*options, "--no-report")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.exit_code, last["exit"]) == (3, 3)
    assert not list((tmp_path / "x").glob("*.html"))
    assert command(*options).exit_code == 0, "nothing was published"


@pytest.mark.parametrize(("diameter", "scale"), [(5.0, (1, 1, 1)), (10.0, (2, 2, 2))])
def test_the_record_says_where_work_was_cut(tmp_path, diameter, scale):
    image = tiny_volume.small_image(tmp_path / "a.zarr", chunks=(8, 16, 20))
    run = {"report": False, "block_shape": (8, 16, 20)}
    tiny_volume.segment(image, run=run, diameter=Quantity(diameter, "um"))
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    tiles = next(g for g in record["borders"]["grids"] if g["name"] == "tiles")
    # The edges of tiles are edges of level-0 voxels, from the very first.
    tile = record["plan"]["tile"]
    assert tiles["step"] == pytest.approx([n * s for n, s in zip(tile, scale, strict=True)])
    assert tiles["first"] == pytest.approx(tiles["step"])
    assert record["borders"]["period"] == pytest.approx([2 * s for s in scale])
    label = next(g for g in record["borders"]["grids"] if g["name"] == "blocks of the label")
    assert label["first"] == label["step"]
    shards = read_image(image + "/labels/anystar").chunks_zyx(0)
    assert all(step % n == 0 for step, n in zip(label["step"], shards, strict=True))


def test_limits_that_follow_the_image_are_drawn(tmp_path):
    plain = tiny_volume.segment(tiny_volume.small_image(tmp_path / "a.zarr"), limits="local")
    record = json.loads((tmp_path / "a.anystar.run.json").read_text())
    assert record["limits_grids"] == [None]
    assert "no part is so dim" in page(findings.gather(record, Path(plain.stats)))
    low, width = [100.0] * 7 + [3.0], [1000.0] * 7 + [20.5]
    grid = {"shape": [20, 40, 44], "cells": [2, 1, 4], "low": low, "width": width}
    text = page(findings.gather(record | {"limits_grids": [grid]}, Path(plain.stats)))
    assert "2 × 1 × 4 cells" in text
    assert "becomes 0: 3 to 100" in text
    assert "becomes 1: 23.5 to 1100" in text
    drawn = ElementTree.fromstring(limits_svg(grid))
    shades = [r.get("fill") for r in drawn.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert len(shades) == 2 * (4 + 2)
    assert len(set(shades)) > 2
    huge = {
        "shape": [9, 9, 9000],
        "cells": [1, 1, 4000],
        "low": [0.0] * 4000,
        "width": [1.0] * 4000,
    }
    assert limits_svg(huge).count("<rect") < 100
