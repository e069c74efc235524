"""Compiled kernels: kept where they can be, never stale, and no run ends for want of a place."""

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from anystar_batch import kernel_cache
from tests.support.checkout import ROOT

ROOM = """
from anystar_batch.kernel_cache import compiled, news
from numba.core import caching
from pathlib import Path
import tempfile, os

usual = caching._CacheLocator.ensure_cache_path
if WRITABLE == "nowhere":
    tempfile.tempdir = "/nonexistent"

def ensure(self):
    path = Path(self.get_cache_path())
    if not str(path).startswith(WRITABLE):
        raise PermissionError(13, "Permission denied", str(path))
    usual(self)

caching._CacheLocator.ensure_cache_path = ensure

@compiled()
def twice(n):
    return n + n

assert twice(21) == 42
print(sum(twice.stats.cache_hits.values()) if twice._cache.cache_path else -1)
print(news())
assert news() is None
"""


def run(tmp_path, writable, **environment):
    """A process whose package and user's cache cannot be written; what it says."""
    script = tmp_path / "room" / "script.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"WRITABLE = {str(writable)!r}\n{textwrap.dedent(ROOM)}")
    base = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    base["PYTHONPATH"] = str(ROOT)
    done = subprocess.run([sys.executable, script], env={**base, **environment},
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout.splitlines()


def test_without_a_home_kernels_are_kept_in_a_temporary_place_of_the_users_own(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    first = run(tmp_path, folder, TMPDIR=str(folder))
    (made,) = folder.iterdir()
    assert first[0] == "0"
    assert f"compiled kernels are kept in {made}" in first[1]
    assert "NUMBA_CACHE_DIR" in first[1]
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert run(tmp_path, folder, TMPDIR=str(folder))[0] == "1", "the second run compiles nothing"


def test_a_temporary_place_that_others_can_write_is_not_used(tmp_path):
    folder = tmp_path / "tmp"
    taken = folder / f"anystar-batch-kernels-{os.getuid()}"
    taken.mkdir(parents=True)
    taken.chmod(0o777)
    said = run(tmp_path, folder, TMPDIR=str(folder))[1]
    assert not list(taken.iterdir())
    assert f"kept in {folder}/anystar-batch-kernels-" in said
    assert f"kept in {taken} " not in said


def test_without_any_place_every_process_compiles(tmp_path):
    said = run(tmp_path, "nowhere")
    assert said[0] == "-1"
    assert "every process compiles" in said[1]


def test_where_the_usual_place_can_be_written_nothing_is_said(tmp_path):
    assert run(tmp_path, tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache")) == ["0", "None"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), EOFError("torn")])
def test_a_cache_that_fails_later_ends_no_run(error, tmp_path, monkeypatch):
    from numba.core import caching, config

    def fails(*_):
        raise error

    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    for name in ("save", "load"):
        monkeypatch.setattr(caching.IndexDataCacheFile, name, fails)

    @kernel_cache.compiled()
    def thrice(n):
        return 3 * n

    assert thrice(2) == 6


@pytest.mark.parametrize("room", ["network", "measure", "stars"])
def test_a_kernel_is_stale_once_any_file_of_its_room_has_changed(room, tmp_path):
    folder = Path(kernel_cache.__file__).parent / room
    copied = tmp_path / room
    copied.mkdir()
    for file in folder.glob("*.py"):
        (copied / file.name).write_bytes(file.read_bytes())
    before = kernel_cache.sources_of(str(copied))
    assert before == kernel_cache.sources_of(str(folder))
    (copied / "__init__.py").write_text("changed")
    kernel_cache.sources_of.cache_clear()
    assert kernel_cache.sources_of(str(copied)) != before


def test_every_kernel_goes_through_the_one_door():
    package = Path(kernel_cache.__file__).parent
    users = {p.name: p.read_text() for p in package.rglob("*.py") if "numba" in imported(p)}
    # `row_products` says which instructions a kernel has, and compiles none.
    assert sorted(users) == ["kernel_cache.py", "row_products.py"]
    assert "jit(" not in users["row_products.py"]


def imported(path):
    return {line.split()[1].split(".")[0] for line in path.read_text().splitlines()
            if line.startswith(("import ", "from "))}  # fmt: skip
