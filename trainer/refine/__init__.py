"""The second look's training: what the first look finds on synthetic scenes, and what is there.

::

    scene -> finds -> data -> fit -> export
    (image, labels)  (first look)  (shards)  (network)  (refiner.npz)
"""
