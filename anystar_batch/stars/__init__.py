"""Star-convex geometry, exactly: NumPy, numba (`kernel_cache`), and of ours `geometry`, `errors`.

`rays` (directions), `candidates` (points, distances, probabilities), `gauge` (how deep in a star a
voxel lies), `zones` and `polyhedra` (bounds and volumes of stars), `neighbours` (who is near),
`overlap` (do two share too much), `verdicts` (the greedy pass), `suppress` (who survives), `raster`
(labels), `expand` (what surfaces gain when they move outward), `measures` (contrast and shape),
`sections` (outlines in planes); `jit` compiles. The rule of suppression and its proof: `DESIGN.md`.
"""
