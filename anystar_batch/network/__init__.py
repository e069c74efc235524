"""Image to candidates: intensities, resampling, tiles, the U-Net and its weights.

In the order in which data flows: `scale` (which level, which working voxel), `tiles` (the lattice),
`intensity` (limits, and what the network sees), `resample`; `model` (a model's folder, without
TensorFlow), `weights`, `unet`, `devices`; `slabs` (the network in parts), `predictor` (a window to
candidates).
"""
