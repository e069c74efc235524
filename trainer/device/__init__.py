"""Appearance and degradation where the network trains; shapes and targets come from the workers.

::

    workers:  seed, n -> shapes, turn, holes -> targets       numpy, `batch`
    device:   a batch of those -> `appearance` -> `corruption` -> `intensities` -> images

The second line is one function of fixed shapes in `keras.ops`, compiled whole: no value comes back
to the host while it runs. Whatever differs between samples is a vector [b] or a matrix [b, i, j]:
a step that is off, a blur of width 0 and a blur of width 2 take the same way. The numbers are those
of `SampleConfig`; the draws are not those of `synthesis.sample`, but their distributions are.

`batch` (what workers send), `stream` (batches in, painted batches out), `painter` (the compiled
function), `appearance` and `corruption` in it, `draws` (random numbers), `spectrum` (steps
in k-space), `matrices` (linear steps along an axis).
"""
