"""Real volumes, and the command in this process with a predictor that knows the truth."""

import functools
import os

import pytest
from typer.testing import CliRunner

from anystar_batch import cli
from anystar_batch.network.imports import declare_own
from anystar_batch.pipeline import dry_run, publish, sweep, tune
from anystar_batch.pipeline import segment as pipeline
from tests.support import tiny_volume
from tests.support.fakes import TruthPredictor
from tests.support.servers import s3_store

declare_own()  # the processes of the suite, and those that they start, load as the command does

LONG = (
    "test_fit",
    "test_main",
    "test_model",
    "test_law",
    "test_storage",
    "test_sweep",
    "test_chaos",
    "test_kept_parts",
    "test_parts_in_a_bucket",
    "test_part_units",
)
"""Files that take longest: they begin first, so that nobody waits for the last one alone."""


def pytest_collection_modifyitems(items):
    """Put the files that take longest first, the longest at the very beginning."""
    rank = {name: n for n, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="module")
def bucket():
    """Run an S3 store on loopback; give the address of its bucket."""
    with s3_store() as address:
        yield address


def pytest_runtest_setup(item):
    """Skip what needs the real volumes where there are none."""
    if item.get_closest_marker("data") and not os.environ.get("ANYSTAR_BATCH_DATA"):
        pytest.skip("needs the real volumes: set ANYSTAR_BATCH_DATA to their folder")


@pytest.fixture(autouse=True)
def short_page(request, monkeypatch):
    """A page costs more than a small run: it is drawn in the tests of the report only."""
    if request.path.parent.name != "report":
        monkeypatch.setattr(publish, "page", lambda _: "<!doctype html>")


@pytest.fixture
def command(monkeypatch):
    """Return a function that runs `anystar-batch ARGUMENTS` and returns what it printed."""

    def use(factory):
        options = {"factory": factory, "model": tiny_volume.model()}
        monkeypatch.setattr(pipeline, "segment", functools.partial(segment, **options))
        monkeypatch.setattr(dry_run, "preview", functools.partial(preview, **options))
        monkeypatch.setattr(sweep, "sweep", functools.partial(sweep_all, **options))
        monkeypatch.setattr(tune, "tune", functools.partial(tune_one, model=options["model"]))
        monkeypatch.setattr(
            sweep, "preview", functools.partial(sweep_preview, model=tiny_volume.model())
        )

    def run(*arguments, factory=None):
        use(TruthPredictor(tiny_volume.truth()) if factory is None else factory)
        return CliRunner().invoke(cli.app, [str(a) for a in arguments])

    segment, preview = pipeline.segment, dry_run.preview
    sweep_all, sweep_preview, tune_one = sweep.sweep, sweep.preview, tune.tune
    return run
