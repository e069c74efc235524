"""Networks so small that they are built in no time."""

from anystar_batch.network.unet import UNetConfig

TINY = UNetConfig(
    n_rays=16,
    grid=(2, 2, 2),
    unet_n_depth=1,
    unet_n_filter_base=4,
    unet_batch_norm=True,
    net_conv_after_unet=8,
)
"""For runs of a few steps on 16^3 voxels."""

SMALL = UNetConfig(
    n_rays=12,
    grid=(2, 2, 2),
    unet_n_depth=2,
    unet_n_filter_base=4,
    unet_batch_norm=True,
    net_conv_after_unet=8,
)
"""Two levels deep."""

ODD = UNetConfig(
    n_rays=8,
    grid=(1, 2, 4),
    unet_n_depth=1,
    unet_n_filter_base=3,
    unet_kernel_size=(1, 3, 3),
    unet_pool=(1, 2, 2),
    unet_n_conv_per_depth=3,
    unet_last_activation="linear",
    unet_activation="elu",
    net_conv_after_unet=0,
)
"""Unlike in everything: kernels, pools, activations, no layer before the heads."""

EXPANDING = UNetConfig(
    n_rays=8,
    grid=(2, 2, 2),
    unet_n_filter_base=4,
    unet_expansion=3.0,
    unet_batch_norm=True,
    net_conv_after_unet=6,
)
"""As the released one, with channels that triple a level."""
