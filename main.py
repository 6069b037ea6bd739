r"""The original command line of DeepLab V3 on Cityscapes, with every option having its effect.

    python main.py <dataset-folder> <model-checkpoint-folder> <losses-folder> --is-training-model
    python main.py <dataset-folder> <model-checkpoint-folder> <losses-folder> --is-evaluating-model \
        --checkpoint-path <name>

Given neither --num-epochs nor --learning-rate, training runs the protocol behind the published score: 65 epochs from
1e-2 and 5 more from 1e-3. `deeplabv3 --help` shows the same and more in a newer form.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from deeplabv3.cli import run_evaluate, run_train
from deeplabv3.config import ORIGINAL_PHASES, EvaluateConfig, InferenceConfig, ModelConfig, Phase, TrainConfig
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.distributed import leave
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.exits import guarded

NAME = "deeplabv3_epoch{epoch}_lr{lr}_wd{wd}"


class Parser(argparse.ArgumentParser):
    """Errors as one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print over several lines."""
        raise InputError(f"{message}; see --help")


def count(text: str) -> int:
    """A whole number of at least 1.

    Raises:
        ArgumentTypeError: It is something else.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def make_parser() -> Parser:
    """The original options with their defaults, and what a run without network or with an interruption needs."""
    parser = Parser(prog="main.py", description="Train or evaluate DeepLab V3 on Cityscapes.", allow_abbrev=False)
    add = parser.add_argument
    add("dataset_folder", type=Path, metavar="dataset-folder", help="holds leftImg8bit/ and gtFine/")
    add("model_checkpoint_folder", type=Path, metavar="model-checkpoint-folder", help="where checkpoints are saved")
    add("losses_folder", type=Path, metavar="losses-folder", help="where losses.csv and the loss plots are saved")
    add("--is-training-model", action="store_true", help="train; with both modes given, training wins")
    add("--is-evaluating-model", action="store_true", help="print IoU of each class and mIoU on the split val")
    add("--checkpoint-path", help="name of the checkpoint to evaluate, without ending, inside the checkpoint folder")
    add("--save-checkpoint-index", type=count, default=5, metavar="N", help="epochs between kept checkpoints (5)")
    add("--learning-rate", type=float, metavar="R", help="first learning rate (1e-2); alone: one phase of 30 epochs")
    add("--momentum", type=float, default=0.9, metavar="M", help="momentum of SGD (0.9)")
    add("--weight-decay", type=float, default=5e-4, metavar="W", help="L2 penalty on all weights (5e-4)")
    add("--train-batch-size", type=count, default=8, metavar="N", help="images a training step (8)")
    add("--eval-batch-size", type=count, default=8, metavar="N", help="frames an evaluation step (8)")
    add("--num-epochs", type=count, metavar="N", help="epochs of one phase; without it and a rate: 65 and 5 more")
    add("--ignore-index", type=int, default=255, metavar="I", help="trainId that is neither trained nor scored (255)")
    add("--num-classes", type=int, default=19, metavar="K", help="trainIds below K are trained and scored (19)")
    add(
        "--results-path",
        default="cityscapes-results/{}",
        metavar="P",
        help="folder of evaluation's results; {} becomes the checkpoint's name (cityscapes-results/{})",
    )
    extra = parser.add_argument_group("not in the original")
    extra.add_argument(
        "--backbone", default="resnet101", help="resnet18, 34, 50, 101, 152 or mobilenet_v3_large (resnet101)"
    )
    extra.add_argument("--backbone-weights", default="imagenet", help="imagenet, none, or a local file (imagenet)")
    extra.add_argument("--crop-size", type=count, default=768, metavar="PIXELS", help="of training crops (768)")
    extra.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (auto)")
    extra.add_argument("--resume", action="store_true", help="go on from the last checkpoint of the folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or evaluate as the original did; returns the exit code."""
    return guarded("main.py", lambda: run(make_parser().parse_args(arguments)))


def run(options: argparse.Namespace) -> None:
    """Do what was asked.

    Raises:
        InputError: A value cannot be used, or no mode is given.
    """
    if options.is_training_model:
        run_train(train_config(options))
    elif options.is_evaluating_model:
        run_evaluate(evaluate_config(options))
    else:
        raise InputError("no mode is given; add --is-training-model, or --is-evaluating-model --checkpoint-path NAME")


def train_config(options: argparse.Namespace) -> TrainConfig:
    """The training run that the options describe.

    Raises:
        InputError: A value is not possible.
    """
    phases: tuple[Phase, ...] = ORIGINAL_PHASES
    if options.num_epochs is not None or options.learning_rate is not None:
        epochs = 30 if options.num_epochs is None else options.num_epochs
        rate = 1e-2 if options.learning_rate is None else options.learning_rate
        phases = (Phase(epochs=epochs, learning_rate=rate),)
    return TrainConfig(
        data_dir=options.dataset_folder,
        run_dir=options.model_checkpoint_folder,
        model=ModelConfig(backbone=options.backbone),
        ignored_classes=ignored_classes(options.num_classes, options.ignore_index),
        backbone_weights=options.backbone_weights,
        phases=phases,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        batch_size=options.train_batch_size,
        crop_size=(options.crop_size, options.crop_size),
        eval_batch_size=options.eval_batch_size,
        save_checkpoint_index=options.save_checkpoint_index,
        device=options.device,
        checkpoint_dir=options.model_checkpoint_folder,
        losses_dir=options.losses_folder,
        checkpoint_name=NAME,
        resume=options.resume,
    )


def evaluate_config(options: argparse.Namespace) -> EvaluateConfig:
    """The evaluation that the options describe.

    Raises:
        InputError: No checkpoint is named, or it was trained on other classes than the options say.
    """
    from deeplabv3.model.checkpoint import SUFFIX, label_set_of
    from deeplabv3.model.load import open_checkpoint

    if options.checkpoint_path is None:
        raise InputError("no checkpoint is named; add --checkpoint-path NAME, a file of the folder without its ending")
    path = options.model_checkpoint_folder / f"{options.checkpoint_path.removesuffix(SUFFIX)}{SUFFIX}"
    theirs = options.model_checkpoint_folder / f"{options.checkpoint_path.removesuffix('.pth')}.pth"
    if theirs.is_file() and not path.is_file():  # what the original repository wrote
        path = theirs
    if not path.is_file():
        files = [file for file in options.model_checkpoint_folder.glob("[!.]*") if file.suffix in (SUFFIX, ".pth")]
        there = ", ".join(sorted(file.stem for file in files)) or "none"
        raise CheckpointError(f"there is no checkpoint {path}; --checkpoint-path takes the name of one there: {there}")
    wanted = CITYSCAPES.without(ignored_classes(options.num_classes, options.ignore_index))
    trained = label_set_of(open_checkpoint(path))
    if trained != wanted and path == theirs:
        hint = ", or leave --num-classes and --ignore-index out for the 19 of Cityscapes"
        raise CheckpointError(
            f"{path} has {trained.num_classes} classes, and a file of the original repository has no names of them; "
            f"give it some with deeplabv3 import {path} --labels FILE.yaml and score it with deeplabv3 evaluate"
            f"{hint if trained.num_classes == CITYSCAPES.num_classes else ''}"
        )
    if trained != wanted:
        raise CheckpointError(
            f"{path} was trained on {', '.join(trained.names)}; --num-classes {options.num_classes} and --ignore-index "
            f"{options.ignore_index} mean {', '.join(wanted.names)}: give the values of its training"
        )
    template = options.results_path
    results = Path(template.replace("{}", path.stem) if "{}" in template else template)
    return EvaluateConfig(
        data_dir=options.dataset_folder,
        model=path,
        inference=InferenceConfig(device=options.device),
        batch_size=options.eval_batch_size,
        out=results / "scores.json",
        results_dir=results,
        overwrite=True,  # results of one checkpoint replace those of the same name, as in the original
    )


def ignored_classes(num_classes: int, ignore_index: int) -> tuple[str, ...]:
    """The Cityscapes classes that --num-classes and --ignore-index leave out.

    Raises:
        InputError: One of them is out of range.
    """
    if not 1 <= num_classes <= CITYSCAPES.num_classes:
        raise InputError(
            f"--num-classes is {num_classes}; Cityscapes has 1 to {CITYSCAPES.num_classes}, and own classes are for "
            "deeplabv3 train --labels FILE.yaml"
        )
    if ignore_index != IGNORE_INDEX and not 0 <= ignore_index < num_classes:
        raise InputError(
            f"--ignore-index is {ignore_index}; give {IGNORE_INDEX}, or a trainId of 0 to {num_classes - 1}"
        )
    return tuple(
        name for train_id, name in enumerate(CITYSCAPES.names) if train_id >= num_classes or train_id == ignore_index
    )


if __name__ == "__main__":
    leave(main())
