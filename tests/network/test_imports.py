"""What a backend need not load is hidden while it loads, in processes that are ours alone."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from anystar_batch.network.imports import OWN, declare_own, lean_imports


@pytest.fixture
def unused(monkeypatch, tmp_path):
    """A package that could be imported, and counts as one that is not used."""
    (tmp_path / "heavyweight").mkdir()
    (tmp_path / "heavyweight" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("anystar_batch.network.imports.UNUSED", ("heavyweight",))
    yield "heavyweight"
    sys.modules.pop("heavyweight", None)


@pytest.mark.usefixtures("unused")
def test_in_a_process_of_ours_it_is_hidden_meanwhile(monkeypatch):
    monkeypatch.setenv(OWN, "1")
    with lean_imports(), pytest.raises(ImportError):
        import heavyweight
    import heavyweight  # noqa: F401


@pytest.mark.usefixtures("unused")
def test_in_someone_elses_process_nothing_is_hidden(monkeypatch):
    monkeypatch.delenv(OWN, raising=False)
    with lean_imports():
        import heavyweight  # noqa: F401


@pytest.mark.usefixtures("unused")
def test_what_is_needed_or_there_already_stays(monkeypatch):
    monkeypatch.setenv(OWN, "1")
    with lean_imports("heavyweight"):
        import heavyweight as first
    with lean_imports():
        import heavyweight as second
    assert first is second


def test_a_failing_import_leaves_nothing_hidden(monkeypatch, unused):
    monkeypatch.setenv(OWN, "1")
    with pytest.raises(ModuleNotFoundError), lean_imports():
        importlib.import_module("there_is_none_of_this_name")
    assert unused not in sys.modules


@pytest.mark.parametrize(("asked", "machine", "told"), [
    (None, "x86_64", "1"), ("0", "x86_64", "0"), (None, "aarch64", None),
])  # fmt: skip
def test_kernels_whose_bits_threads_do_not_change_are_asked_for(monkeypatch, asked, machine, told):
    """Seen without: on a processor with AVX2 alone, one and two threads gave other bits."""
    name = "TF_ENABLE_ONEDNN_OPTS"
    monkeypatch.setenv(name, asked or "")
    if asked is None:
        monkeypatch.delenv(name)
    monkeypatch.setattr("platform.machine", lambda: machine)
    declare_own()
    assert os.environ.get(name) == told


def test_tensorflow_loads_without_pandas_in_a_process_of_ours():
    code = """
import json, sys
from anystar_batch.network.imports import UNUSED, declare_own, quiet_imports
declare_own()
with quiet_imports():
    import keras
loaded = [n for n in UNUSED if n in sys.modules]
import pandas
print(json.dumps([keras.backend.backend(), loaded, pandas.__name__]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["tensorflow", [], "pandas"]
