"""Image to candidates: intensities, resampling, tiles, the U-Net and its weights.

In the order in which data flows: `downsampling` (does a level show what a finer one shows?),
`scale` (which level, which working voxel), `tiles` (the lattice), `intensity` (limits, mapped to 0
and 1), `limits_grid` and `limits_field` (limits that follow the image), `resample`, `window` (what
the network sees); `model` (a model's folder, without TensorFlow), `imports` (of a backend),
`weights`, `unet`, `devices`; `parts` (of the network, under Keras), `slabs` (one part after the
other), `graph_session` (TensorFlow's library without its Python), `kept_parts` (the same parts
there, from a file), `predictor` (a window to candidates).
The second look: `profiles` (intensities along the rays), `refiner`, `refiner_kernel` and
`row_products` (the networks that read them), `outline` (where along their mean a surface is
asked for).
"""
