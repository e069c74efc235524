"""Synthetic samples: shapes, appearance, degradation, targets; and phantoms of any size.

One sample's way: `config` (what decides it), `noise` and `shapes` (labels), `appearance`
(intensities), `corruption` (degradation), `sample` (the order of these), `targets` (what the
network shall answer). `phantom` and `phantom_zarr` make large volumes with their truth.
"""
