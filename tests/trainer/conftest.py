from __future__ import annotations

import pytest

from anystar_batch.network.unet import UNetConfig
from trainer.config import TrainConfig
from trainer.synthesis.config import SampleConfig

TINY_NETWORK = UNetConfig(
    n_rays=16,
    grid=(2, 2, 2),
    unet_n_depth=1,
    unet_n_filter_base=4,
    unet_batch_norm=True,
    net_conv_after_unet=8,
)


@pytest.fixture
def tiny():
    """A run of a few steps on samples of 16^3."""
    return TrainConfig(
        sample=SampleConfig.preset("as-mix", edge=16),
        network=TINY_NETWORK,
        batch=2,
        minutes=0.0,
        steps=6,
        precision="float32",
        average_from=0.5,
        freeze_norm_from=1.0,
        echo=1,
    )
