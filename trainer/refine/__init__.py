"""The second look's training: what the first look finds on synthetic scenes, and what is there.

::

    scene -> finds -> data -> fit -> export
    (image, labels)  (first look)  (shards)  (network)  (refiner.npz)

`config`, `scene` with `negatives`, `finds`, `data`, `network`, `fit`, `measure` and `scores`,
`export`; `texture` (a frozen test), `commands` (`python -m trainer refine`).
"""
