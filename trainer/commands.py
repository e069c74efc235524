"""Commands that need no run folder: `test`, `finetune` or `resize` a model, write a `phantom`."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from anystar_batch.errors import ConfigError
from anystar_batch.geometry import as_zyx
from trainer.refine.commands import add_refine

logger = logging.getLogger("trainer")


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parsers; each sets `call`."""
    _add_test(commands)
    _add_finetune(commands)
    _add_resize(commands)
    _add_phantom(commands)
    add_refine(commands)


def test(options: argparse.Namespace) -> None:
    """Score a released model on the frozen test set."""
    from trainer.testset import frozen, score_model, table  # noqa: PLC0415

    document = score_model(options.model, frozen())
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    print(table(document))  # noqa: T201


def finetune(options: argparse.Namespace) -> None:
    """Train a model further on labelled images."""
    from trainer.finetune.config import FinetuneConfig, Labelled  # noqa: PLC0415
    from trainer.finetune.finetune import finetune as run  # noqa: PLC0415

    listed = [Labelled(path, None) for path in options.images]
    listed += [Labelled(image, labels) for image, labels in options.pair]
    config = FinetuneConfig(
        images=tuple(listed),
        model=options.start,
        label=options.label,
        channel=options.channel,
        times=tuple(options.time),
        diameter=options.diameter,
        ignore=options.ignore,
        background=options.background,
        synthetic=options.synthetic,
        held_out=options.held_out,
        minutes=options.minutes,
        steps=options.steps,
        rate=options.rate,
        scratch=options.scratch,
        seed=options.seed,
        workers=options.workers,
    )
    before, after = run(config, options.output)
    for name, accuracy in (("before", before), ("after", after)):
        if accuracy is not None:
            logger.info("held-out part, %s: accuracy at IoU .1/.3/.5/.7 %s", name, accuracy)
    print(options.output)  # noqa: T201


def resize(options: argparse.Namespace) -> None:
    """Write the weights of a model with other numbers of channels, to go on training from."""
    from dataclasses import replace  # noqa: PLC0415

    from anystar_batch.network.model import load_model  # noqa: PLC0415
    from anystar_batch.network.unet import build  # noqa: PLC0415
    from anystar_batch.network.weights import save_weights  # noqa: PLC0415
    from trainer.export import load  # noqa: PLC0415
    from trainer.widths import resize as fill  # noqa: PLC0415

    old, unet = load(Path(load_model(options.model).folder))
    changes = {
        "unet_n_filter_base": options.base,
        "unet_expansion": options.growth,
        "net_conv_after_unet": options.features,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    new = build(replace(unet, **given))
    fill(old, new, options.seed)
    save_weights(new, options.output)
    logger.info("%d parameters, from %d", new.count_params(), old.count_params())
    print(options.output)  # noqa: T201


def phantom(options: argparse.Namespace) -> None:
    """Write a synthetic OME-Zarr with its truth.

    Raises
    ------
    ConfigError
        If there is no such density.
    """
    from trainer.synthesis.phantom import DENSITIES, Phantom  # noqa: PLC0415
    from trainer.synthesis.phantom_zarr import write  # noqa: PLC0415

    if options.density not in DENSITIES:
        message = f"--density: got {options.density!r}; expected {' or '.join(DENSITIES)}"
        raise ConfigError(message)
    made = Phantom(as_zyx(options.shape), options.radius, options.density, options.seed)
    speed = write(made, options.output, options.chunks, options.workers)
    logger.info("%.1f Mvoxel/s", speed / 1e6)
    print(options.output)  # noqa: T201


def _add_test(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("test", help="score a released model on the frozen test set")
    parser.add_argument("--model", default="anystar-mix", help="bundled name, or model folder")
    parser.add_argument("--json", type=Path, help="write the scores there as JSON")
    parser.set_defaults(call=test)


def _add_finetune(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("finetune", help="train a model further on labelled images")
    parser.add_argument("images", nargs="*", metavar="LABELLED", help="OME-Zarr with labels in it")
    parser.add_argument(
        "--pair", nargs=2, action="append", default=[], metavar=("IMAGE", "LABELS"),
        help="an OME-Zarr, and its labels as an OME-Zarr of their own",
    )  # fmt: skip
    parser.add_argument("--from", dest="start", default="anystar-mix", help="model to begin with")
    parser.add_argument("-o", "--output", type=Path, required=True, help="new model folder")
    parser.add_argument("--label", help="name of the label, where an image has several")
    parser.add_argument("--channel", default="0", help="name or index")
    parser.add_argument("--time", type=int, nargs="+", default=[0], help="labelled time points")
    parser.add_argument("--diameter", type=float, help="of the objects, um; else from the labels")
    parser.add_argument("--ignore", type=int, help="label value of what is not known")
    parser.add_argument(
        "--background", type=int,
        help="label value of background, 0 then is not known; labels of a review say so themselves",
    )  # fmt: skip
    parser.add_argument("--synthetic", type=float, default=0.5, help="share of synthetic samples")
    parser.add_argument(
        "--held-out", type=float, default=0.2, help="share of the objects, at one side"
    )
    parser.add_argument("--minutes", type=float, default=15.0, help="wall-clock budget")
    parser.add_argument("--steps", type=int, default=0, help="budget of steps")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate at the start")
    parser.add_argument("--scratch", action="store_true", help="fresh weights, same network")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=1)
    parser.set_defaults(call=finetune)


def _add_resize(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("resize", help="weights of a model with more or fewer channels")
    parser.add_argument("output", type=Path, metavar="OUT.h5", help="for train --start")
    parser.add_argument("--model", default="anystar-mix", help="bundled name, or model folder")
    parser.add_argument("--base", type=int, help="channels of the first level")
    parser.add_argument("--growth", type=float, help="of the channels from level to level")
    parser.add_argument("--features", type=int, help="channels before the heads")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(call=resize)


def _add_phantom(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("phantom", help="write a synthetic OME-Zarr with its truth")
    parser.add_argument("--shape", type=int, nargs=3, required=True, metavar=("Z", "Y", "X"))
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--density", default="dense", help="sparse or dense")
    parser.add_argument("--radius", type=float, default=6.0, help="mean radius, voxels")
    parser.add_argument("--chunks", type=int, default=64, help="edge of a chunk: 16, 32 .. 256")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.set_defaults(call=phantom)
