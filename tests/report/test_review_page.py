"""The page of a review in a real browser: keys, buttons, a phone, files, what is kept."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anystar_batch.measure.review import KINDS, parse_answers
from anystar_batch.pipeline.review import ReviewConfig, write_page
from tests.support import tiny_volume
from tests.support.browser import Browser

NAME = "<b>a&'\"b"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page of a tiny volume of five instances, three by chance, two worst first."""
    folder = tmp_path_factory.mktemp("review")
    image = tiny_volume.small_image(folder / f"{NAME}.zarr")
    tiny_volume.segment(image)
    return write_page(ReviewConfig(str(image), count=3, worst=2))


@pytest.fixture
def text(written):
    return Path(written.page).read_text(encoding="utf-8")


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path) as one:
        yield one
        assert one.faults() == []


def data(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def saved(path):
    return parse_answers(json.loads(path.read_text()), path.name)


def words(browser, selector):
    return browser.run(f"document.querySelector({json.dumps(selector)}).textContent")


def status(browser):
    return words(browser, "#status")


def shown(browser):
    return int(re.search(r"\d+", words(browser, "#what"))[0])


def test_it_needs_nothing_but_itself(text):
    assert len(re.findall(r"<script", text)) == 2
    plain = re.sub(r"base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch|XMLHttp|import ", plain)
    assert "default-src 'none'" in text
    assert "<b>a" not in text
    assert "\\u003cb>a" in text  # as text, in the data


def test_a_page_of_one_item_more_is_a_few_kilobytes_larger(text):
    items = data(text)["items"]
    size = max(len(json.dumps(item)) for item in items)
    assert size < 40_000
    assert len(text) < 30_000 + size * len(items)


def test_an_instance_is_outlined_thick_in_three_planes_and_its_neighbours_thin(text, written):
    cut = data(text)["items"]
    assert [item["list"] for item in cut] == ["sample"] * 3 + ["worst"] * 2
    assert len({item["label"] for item in cut}) == 5
    assert all(len(item["planes"]) == 3 for item in cut)
    # What judges otherwise is not said of the sample.
    assert ["probability" in item["said"] for item in cut] == [False] * 3 + [True] * 2
    own = others = 0
    for item in cut:
        for grey, over in item["planes"]:
            pictures = [Image.open(io.BytesIO(base64.b64decode(p.partition(",")[2]))) for p in
                        (grey, over)]  # fmt: skip
            rgba = np.asarray(pictures[1].convert("RGBA"))
            is_own = (rgba == (255, 210, 0, 255)).all(-1)
            is_other = (rgba == (90, 200, 255, 255)).all(-1)
            assert (rgba[~is_own & ~is_other, 3] == 0).all()
            # About the middle, and closed: the instance is in every plane.
            rows, columns = np.nonzero(is_own)
            assert rows.min() < 128 < rows.max()
            assert columns.min() < 128 < columns.max()
            own += is_own.sum()
            others += is_other.any()
    assert own
    assert others


def test_by_keyboard_alone_and_what_was_said_is_in_the_file(browser, written, text):
    items = [item["label"] for item in data(text)["items"]]
    browser.open(written.page)
    assert shown(browser) == items[0]
    browser.press("1")
    assert shown(browser) == items[1]
    browser.press("n", "m")  # missed next to it, and merged
    browser.press("ArrowLeft")
    assert shown(browser) == items[1]
    assert browser.run("document.querySelector('[data-answer=merged]').ariaPressed") == "true"
    assert browser.run("document.getElementById('missed').ariaPressed") == "true"
    browser.press("ArrowRight", "5")
    assert "The random sample is done" in status(browser)
    browser.press("f", "4", "u", "u")  # the last two are taken back
    assert shown(browser) == items[3]
    browser.press("s")
    browser.press("o")
    assert browser.run("getComputedStyle(document.querySelector('.over')).visibility") == "hidden"
    browser.press("d")
    path = browser.downloaded()
    assert path.name.endswith(".anystar.answers.json")
    found = saved(path)
    assert (found.seed, found.count, found.worst) == (0, 3, 2)
    assert {n: (a.kind, a.missed) for n, a in found.answers.items()} == {
        items[0]: ("right", False),
        items[1]: ("merged", True),
        items[2]: ("outline", False),
        items[3]: ("split", False),
    }
    assert written.then in status(browser)


def test_every_control_is_reached_by_tab_and_pressed_by_enter(browser, written):
    browser.open(written.page)
    browser.run("document.querySelector('summary').focus()")
    reached = []
    for _ in range(14):
        browser.ask("Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", windowsVirtualKeyCode=9)
        browser.ask("Input.dispatchKeyEvent", type="keyUp", key="Tab", windowsVirtualKeyCode=9)
        reached.append(
            browser.run("document.activeElement.id || document.activeElement.dataset.answer")
        )
    assert set(reached) >= {"sample", "worst", *KINDS, "missed", "next", "outlines", "save", "load"}
    browser.run("document.querySelector('[data-answer=right]').focus()")
    browser.ask("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r",
                windowsVirtualKeyCode=13)  # fmt: skip
    assert ": right." in status(browser)


def test_clicked_through_kept_by_the_browser_and_read_back_from_a_file(written, text, tmp_path):
    items = [item["label"] for item in data(text)["items"]]
    (tmp_path / "a").mkdir()
    with Browser(tmp_path / "a") as browser:
        browser.open(written.page)
        for kind in ("right", "false"):
            browser.click(f"[data-answer={kind}]")
        browser.click("#missed")
        browser.click("#worst")
        assert shown(browser) == items[3]
        browser.click("[data-answer=split]")
        # Closed and opened again: where the sample goes on, with all that was said.
        browser.open(written.page)
        assert shown(browser) == items[2]
        assert words(browser, "#sample .count") == "2 of 3"
        assert browser.run("document.querySelector('#bar').value") == 2
        assert words(browser, "[data-answer=false] .count") == "1"
        assert browser.run("document.getElementById('lost').hidden")
        browser.click("#save")
        first = browser.downloaded()
        assert browser.faults() == []
    (tmp_path / "b").mkdir()
    with Browser(tmp_path / "b") as browser:  # another machine
        browser.open(written.page)
        assert words(browser, "#sample .count") == "0 of 3"
        other = json.loads(first.read_text())
        for change, said in (
            ({"fingerprint": "0" * 64}, "has answers to another label"),
            ({"format": "else"}, "is no file of answers"),
        ):
            wrong = tmp_path / "wrong.json"
            wrong.write_text(json.dumps({**other, **change}))
            browser.choose("#load", wrong)
            wait(browser, said)
            assert words(browser, "#sample .count") == "0 of 3"
        wrong.write_text("{")
        browser.choose("#load", wrong)
        wait(browser, "is no file of answers")
        browser.choose("#load", first)
        wait(browser, "4 answers loaded.")
        browser.click("#save")
        assert saved(browser.downloaded()).answers == saved(first).answers


def wait(browser, said):
    """Until the page has read a file and says something."""
    for _ in range(200):
        if said in status(browser):
            return
        browser.run("new Promise((done) => setTimeout(done, 20))")
    raise AssertionError(status(browser))


def test_a_browser_that_keeps_nothing_says_so(written, tmp_path):
    with Browser(tmp_path) as browser:
        broken = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})"
        browser.ask("Page.addScriptToEvaluateOnNewDocument", source=broken)
        browser.open(written.page)
        assert not browser.run("document.getElementById('lost').hidden")
        browser.press("1")
        browser.click("#save")
        assert len(saved(browser.downloaded()).answers) == 1


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 664), (820, 1180)])
def test_on_a_phone_all_is_within_reach_of_a_thumb(written, tmp_path, width, height):
    with Browser(tmp_path, width, height, is_phone=True) as browser:
        browser.open(written.page)
        assert browser.run("document.documentElement.scrollWidth") <= width
        sizes = browser.run(
            "[...document.querySelectorAll('button, .button')].map(e => e.getBoundingClientRect())"
            ".map(r => [r.width, r.height, r.right])"
        )
        assert all(w >= 44 and h >= 44 and right <= width for w, h, right in sizes)
        cut = "[...document.querySelectorAll('button')].filter(e => e.scrollWidth > e.clientWidth)"
        assert browser.run(f"{cut}.map(e => e.textContent)") == []  # no word is cut
        columns = "new Set([...document.querySelectorAll('[data-answer]')].map(e => e.offsetLeft))"
        assert browser.run(f"({columns}).size") == (3 if width < 700 else 5)
        bottom = browser.run(
            "Math.max(...[...document.querySelectorAll('[data-answer]')]"
            ".map(e => e.getBoundingClientRect().bottom))"
        )
        assert bottom <= height  # pictures and answers at once, without scrolling
        browser.tap("[data-answer=right]")
        browser.tap("#missed")
        browser.tap("[data-answer=outline]")
        browser.tap("#save")
        found = saved(browser.downloaded())
        assert [(a.kind, a.missed) for a in found.answers.values()] == [
            ("right", False),
            ("outline", True),
        ]
        assert browser.faults() == []
