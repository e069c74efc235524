"""The generator of the frozen test set, version 1. NEVER EDIT a module of this package.

The trainer's own sample code improves; a score must not move with it. So this is a self-contained
copy of the published recipe (METHOD.md sections 2 to 4) that imports nothing of the trainer and
draws every number from an integer hash: NumPy's random streams may change between releases.
`trainer/testset.json` holds the SHA-256 of what it makes. A better test set is a new package beside
this one, with a manifest of its own.

What another machine may change: labels come from additions, products and square roots of numbers
rounded to nine decimals, and are the same everywhere. Intensities pass through logarithms, powers
and Fourier transforms, whose last bit differs between processors; after quantisation to 16 bits a
few voxels may then differ by one grey level, and the image's hash with them.
"""
