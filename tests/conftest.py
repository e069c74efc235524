"""The command in this process, with the predictor that knows the truth instead of the network."""

import functools

import pytest
from typer.testing import CliRunner

from anystar_batch import cli, pipeline
from tests import small
from tests.fakes import TruthPredictor


@pytest.fixture
def command(monkeypatch):
    """Return a function that runs `anystar-batch ARGUMENTS` and returns what it printed."""

    def use(factory):
        options = {"factory": factory, "model": small.model()}
        monkeypatch.setattr(pipeline, "segment", functools.partial(segment, **options))
        monkeypatch.setattr(pipeline, "preview", functools.partial(preview, **options))

    def run(*arguments, factory=None):
        use(TruthPredictor(small.truth()) if factory is None else factory)
        return CliRunner().invoke(cli.app, [str(a) for a in arguments])

    segment, preview = pipeline.segment, pipeline.preview
    return run
