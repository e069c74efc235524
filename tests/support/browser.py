"""A page in headless Chromium, in a frame of any width: what it logs and how large things are."""

from __future__ import annotations

import html
import json
import re
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
