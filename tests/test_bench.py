"""The benches are commands: they must at least start."""

import importlib

import pytest


@pytest.mark.parametrize("name", ["stars", "quality", "context"])
def test_a_bench_can_be_imported_and_run(name):
    module = importlib.import_module(f"bench.{name}")
    assert callable(module.main)
