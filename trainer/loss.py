"""What a network is trained on: cross-entropy, mean error of the distances, IoU of the bodies.

The loss is the cross-entropy of the probability, plus the mean absolute error of the distances (the
paper's), plus minus the logarithm of the IoU of the true and the found body, each point weighted by
its true probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer.config import TrainConfig

if TYPE_CHECKING:
    import keras


def compile_model(model: keras.Model, config: TrainConfig) -> None:
    """Attach losses and optimiser.

    Parameters
    ----------
    model : keras.Model
        From `unet.build`.
    config : TrainConfig
    """
    import keras  # noqa: PLC0415

    def dist_loss(truth: Any, dist: Any) -> Any:  # noqa: ANN401  (a tensor of any backend)
        ops = keras.ops
        weight = truth[..., -1]
        target = dist_target(truth[..., :-1], dist)
        error = config.dist_weight * ops.mean(ops.abs(target - dist), axis=-1)
        if config.iou_weight > 0.0:
            error = error + config.iou_weight * minus_log_iou(target, dist)
        # A batch without objects must not divide by nothing.
        total = ops.maximum(ops.mean(weight), 0.01)
        background = 2e-5 * ops.mean(ops.abs(dist) * (1.0 - weight[..., None]))
        return ops.mean(error * weight) / total + background

    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=[prob_loss, dist_loss],
        # XLA compiles convolutions badly for CPUs; JAX knows no other way.
        jit_compile=keras.backend.backend() == "jax",
    )
    model.optimizer.build(model.trainable_variables)


def prob_loss(truth: Any, prob: Any) -> Any:  # noqa: ANN401  (tensors of any backend)
    """Return the mean cross-entropy, 0 at points whose truth is not known (negative).

    Parameters
    ----------
    truth, prob : (b, z, y, x, 1)
    """
    import keras  # noqa: PLC0415

    ops = keras.ops
    each = ops.binary_crossentropy(ops.maximum(truth, 0.0), prob)
    return ops.mean(ops.where(truth < 0.0, 0.0, each))


def dist_target(target: Any, dist: Any) -> Any:  # noqa: ANN401  (tensors of any backend)
    """Return the true distances, and where only a lower bound is known what best agrees with it.

    Parameters
    ----------
    target : (..., n_rays)
        Voxels; minus the lower bound where a ray leaves the sample (`targets.targets`).
    dist : (..., n_rays)
        What the network answers.
    """
    import keras  # noqa: PLC0415

    ops = keras.ops
    at_least = ops.maximum(-target, ops.stop_gradient(dist))
    return ops.where(target < 0.0, at_least, target)


def minus_log_iou(target: Any, dist: Any) -> Any:  # noqa: ANN401  (tensors of any backend)
    """Return minus the logarithm of the IoU of two bodies that are star-shaped about one point.

    Parameters
    ----------
    target, dist : (..., n_rays)
        Distances along rays spread evenly over the sphere; `target` positive.

    Returns
    -------
    (...)

    Notes
    -----
    A body with surface r(u) has the volume 1/3 times the integral of r^3 over the directions u; of
    intersection and union of two, r is the smaller and the larger one. PolarMask takes r to the
    power 1.

    References
    ----------
    Xie et al., PolarMask: Single Shot Instance Segmentation with Polar Representation, CVPR 2020,
    arXiv:1909.13226.
    """
    import keras  # noqa: PLC0415

    ops = keras.ops
    dist = ops.maximum(dist, 1e-2)
    small = ops.mean(ops.minimum(target, dist) ** 3, axis=-1)
    large = ops.mean(ops.maximum(target, dist) ** 3, axis=-1)
    return ops.log(large + 1e-3) - ops.log(small + 1e-3)
