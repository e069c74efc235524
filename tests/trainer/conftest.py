from __future__ import annotations

import pytest

from tests.support.tiny_networks import TINY
from trainer.config import TrainConfig
from trainer.synthesis.config import SampleConfig


@pytest.fixture
def tiny():
    """A run of a few steps on samples of 16^3."""
    return TrainConfig(
        sample=SampleConfig.preset("as-mix", edge=16),
        network=TINY,
        batch=2,
        minutes=0.0,
        steps=6,
        precision="float32",
        average_from=0.5,
        freeze_norm_from=1.0,
        echo=1,
    )
