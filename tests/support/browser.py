"""A page in headless Chromium: measured in a frame of any width, or used as a person does."""

from __future__ import annotations

import html
import json
import os
import re
import select
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
)

# The page has no scripts, and its own policy forbids them: the frame around it measures.
MEASURE = """
<!doctype html><title>wait</title><body></body><script>
const widths = %s, found = [];
for (const width of widths) {
  const frame = document.createElement('iframe');
  frame.style = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = %s;
  frame.onload = () => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const pictures = [...inner.images];
    found.push({
      width,
      spread: root.scrollWidth,
      pictures: pictures.map(p => [p.naturalWidth, p.getBoundingClientRect().width]),
      charts: [...inner.querySelectorAll('svg.chart')].map(s => s.getBoundingClientRect().height),
      texts: [...inner.querySelectorAll('h1,h2,h3,p,li,td,th,dd')].filter(
        e => e.getBoundingClientRect().right > width + 1 && !e.closest('.wide')).length,
      columns: [...inner.querySelectorAll('td,th')].map(e => e.getBoundingClientRect().width),
    });
    if (found.length === widths.length) document.title = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script>
"""


def chromium() -> str:
    """Path of the browser; without one the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium: apt-get install chromium")
    return found


def measured(page: str, widths=(1280, 390)):
    """What a page is like at some widths, by width; and what the browser has logged of it."""
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder) / "outer.html"
        # A script's text must not hold the end of a script.
        text = json.dumps(page).replace("<", "\\u003c")
        outer.write_text(MEASURE % (json.dumps(widths), text), encoding="utf-8")
        done = subprocess.run(
            [
                chromium(),
                *OPTIONS,
                f"--user-data-dir={folder}/profile",
                "--dump-dom",
                outer.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert title is not None
    found = json.loads(html.unescape(title[1]))
    logged = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return {one["width"]: one for one in found}, logged


class Browser:
    """A page as a person has it: opened from a file, clicked, typed to, reloaded, downloading.

    Chromium is told by its debugging pipe: JSON messages that end with a zero byte.
    """

    def __init__(self, folder, width=1280, height=900, *, is_phone=False):
        self.downloads = Path(folder) / "downloads"
        self.downloads.mkdir()
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()
        options = [o for o in OPTIONS if "budget" not in o]
        # The shell puts the pipes where Chromium looks for them: 3 and 4.
        script = f'exec 3<&{to_browser} 4>&{to_us}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", script, "-", chromium(), *options, "--remote-debugging-pipe",
             f"--user-data-dir={folder}/profile", "about:blank"],
            pass_fds=(to_browser, to_us), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(to_us)
        self.out, self.into = os.fdopen(from_us, "wb", 0), os.fdopen(from_browser, "rb", 0)
        self.left, self.number, self.session, self.events = b"", 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log"):
            self.ask(f"{domain}.enable")
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=is_phone,
        )  # fmt: skip
        self.ask("Emulation.setTouchEmulationEnabled", enabled=is_phone)
        self.ask("Browser.setDownloadBehavior", behavior="allow",
                 downloadPath=str(self.downloads), eventsEnabled=True)  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.out.close()
        self.into.close()

    def _message(self):
        while b"\0" not in self.left:
            assert select.select([self.into], [], [], 60)[0], "the browser says nothing"
            piece = self.into.read(1 << 20)
            assert piece, "the browser has ended"
            self.left += piece
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def ask(self, method, **params):
        """The answer to a command of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self.number:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def wait(self, method):
        """The next event of a kind that was not waited for yet."""
        while True:
            for k, event in enumerate(self.events):
                if event.get("method") == method:
                    return self.events.pop(k)["params"]
            self.events.append(self._message())

    def open(self, path):
        self.events = [e for e in self.events if e.get("method") != "Page.loadEventFired"]
        self.ask("Page.navigate", url=Path(path).as_uri())
        self.wait("Page.loadEventFired")

    def run(self, script):
        """The value of a script."""
        done = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def press(self, *keys):
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def middle(self, selector):
        """Where the middle of an element is; it must be on the screen, and nothing over it."""
        place = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect();"
            "const x = r.x + r.width / 2, y = r.y + r.height / 2;"
            "return e.contains(document.elementFromPoint(x, y)) ? [x, y] : null; })()"
        )
        assert place is not None, f"{selector} is hidden"
        return {"x": place[0], "y": place[1]}

    def click(self, selector):
        at = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def tap(self, selector):
        at = self.middle(selector)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[at])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def choose(self, selector, *files):
        """Give files to an input, as a person does in the browser's own window."""
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[str(f) for f in files])

    def downloaded(self):
        """The file that the next download makes."""
        name = self.wait("Browser.downloadWillBegin")["suggestedFilename"]
        while self.wait("Browser.downloadProgress")["state"] != "completed":
            pass
        return self.downloads / name

    def faults(self):
        """What the page has logged or thrown."""
        kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in kinds]
