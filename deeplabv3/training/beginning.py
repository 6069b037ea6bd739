"""How a run begins: from a checkpoint of itself, from a whole network, from a backbone, or from nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import IMAGES, LABELS, Sample
from deeplabv3.data.frames import label_set_of as label_set_of_data
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.packed import packed_splits
from deeplabv3.data.sampling import ClassPixels, class_pixels, epoch_keys, num_batches, part_size
from deeplabv3.data.workers import default_num_workers
from deeplabv3.distributed import ending_together, is_first, local_rank, num_processes, tell
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import require_writable
from deeplabv3.model.checkpoint import (
    Checkpoint,
    differences,
    label_set_of,
    model_config_of,
    used_weights,
)
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import choose_device, chosen_precision
from deeplabv3.model.load import open_checkpoint
from deeplabv3.model.pretrained import backbone_file, load_backbone
from deeplabv3.records import to_record
from deeplabv3.training.events import require_tensorboard
from deeplabv3.training.fitting import largest_batch
from deeplabv3.training.frames import sound_frames
from deeplabv3.training.position import Position
from deeplabv3.training.resuming import checkpoint_so_far, checkpoint_to_resume, has_same_frames, order_changes
from deeplabv3.training.state import RunPaths, config_of, content_of

CLASSIFIERS = ("classifier.", "auxiliary_head.2.")
"""The convolutions whose channels are the classes."""


@dataclass(frozen=True)
class Run:
    """A run whose every option was looked at.

    Attributes:
        config: Completed: nothing in it is left to be chosen.
        device: Where this process trains.
        label_set: What is trained.
        paths: Where its files are.
        train_samples: Frames to learn from.
        val_samples: Frames to be scored on.
        shown: What the training frames show, where the run depends on it.
        steps_per_epoch: Steps that an epoch has.
        content: What a checkpoint keeps of the frames.
        start: The checkpoint to go on from; None for a new run.
    """

    config: TrainConfig
    device: torch.device
    label_set: LabelSet
    paths: RunPaths
    train_samples: list[Sample]
    val_samples: list[Sample]
    shown: ClassPixels | None
    steps_per_epoch: int
    content: dict[str, str]
    start: Checkpoint | None


def set_up(config: TrainConfig) -> Run:
    """Find out what can be wrong with a run, before anything is written.

    Raises:
        InputError: Something is; in all processes of the run.
    """
    with ending_together():
        device = _made_ready(choose_device(config.device))
        labels = label_set_of_data(config.data_dir, config.labels)
        label_set = labels.without(config.ignored_classes)
        for folder in RunPaths(config).folders if is_first() else ():
            _require_outside(folder, config.data_dir)
            require_writable(folder)
    for is_mine in (local_rank() == 0, local_rank() > 0):  # one process of a machine looks at all files, others recall
        with ending_together():
            if is_mine:
                train_samples, val_samples, label_values = sound_frames(config, labels)
    with ending_together():
        shown = class_pixels(train_samples, label_values, label_set) if config.needs_class_pixels else None
        begun = checkpoint_so_far(config)
        config = completed(config, label_set, device, len(train_samples), begun)
        part_size(config)
        epoch_keys(len(train_samples), config, 0, shown)  # finds out whether there is what to draw for
        if config.tensorboard:
            require_tensorboard()
        steps_per_epoch = num_batches(len(train_samples), config)
        content = content_of(train_samples, val_samples, shown, config, steps_per_epoch)
        paths = RunPaths(config, steps_per_epoch)
        start = checkpoint_to_resume(begun, paths, config, label_set, content)
        for phase in config.phases:
            length = (phase.epochs or 0) * steps_per_epoch  # of a phase of steps it is looked at before
            if start is None and phase.epochs and phase.warmup_steps > length:
                text = f"warmup_steps is {phase.warmup_steps} in a phase of {length} steps; give that at most"
                raise InputError(text)
            config.model.at_output_stride(phase.output_stride or config.model.output_stride)
    return Run(
        config,
        device,
        label_set,
        paths,
        train_samples,
        val_samples,
        shown,
        steps_per_epoch,
        content,
        start,
    )


def _require_outside(folder: Path, data_dir: Path) -> None:
    """Refuse a folder among the frames, where its pictures would be taken for some."""
    for part in (IMAGES, LABELS, *packed_splits(data_dir)):
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(data_dir / part)):
            raise InputError(f"{folder} lies among the frames in {data_dir / part}; choose a folder outside it")


def _made_ready(device: torch.device) -> torch.device:
    """The device, once this process has it for itself."""
    if device.type == "cuda":
        if num_processes() > 1 and device.index != local_rank():
            raise InputError(
                f"process {local_rank()} of this machine would share {device} with another; start at most "
                f"{torch.cuda.device_count()} of them, with --device auto"
            )
        torch.cuda.set_device(device)  # several processes exchange their gradients there
        torch.backends.cudnn.benchmark = True  # crops are of one size, so the fastest kernels are worth a search
    if device.type == "mps" and num_processes() > 1:
        raise InputError("several processes cannot train on MPS; start one, or give --device cpu")
    return device


def completed(
    config: TrainConfig, label_set: LabelSet, device: torch.device, num_samples: int, begun: Checkpoint | None
) -> TrainConfig:
    """Fill in what follows from the data set, the machine, and the weights that a run begins with or goes on from.

    Args:
        config: As it was asked for.
        label_set: What is trained.
        device: Where.
        num_samples: Frames to learn from.
        begun: The checkpoint to go on from, whose network and batch size stay; None for a new run.

    Raises:
        InputError: The network is described although it comes from weights, or they cannot be read; or there are more
            or fewer weights of classes than classes; or the record of `begun` is damaged.
    """
    weights = config.loss.class_weights
    if isinstance(weights, tuple) and len(weights) != label_set.num_classes:
        allowed = f"{label_set.name} has {label_set.num_classes} classes; give a weight for each"
        raise InputError(f"class_weights has {len(weights)} values; {allowed}")
    workers = default_num_workers(device.type) if config.num_workers is None else config.num_workers
    model = config.model
    if config.weights is not None:
        asked = to_record(config.asked_model)
        described = [name for name, value in to_record(model).items() if value != asked[name]]
        if described:
            raise config.twice_described(described[0])
        if begun is None:
            network = model_config_of(open_checkpoint(config.weights))
        else:  # the file that the run began with is needed no more
            network = config_of(begun).model
        model = replace(network, dropout=model.dropout)
    model = replace(model, num_classes=label_set.num_classes)
    precision = chosen_precision(device, config.precision)  # a run that goes on elsewhere says if it is another one
    config = replace(config, model=model, num_workers=workers, precision=precision)
    if config.batch_size == "auto":  # memory may be another one now; a run that goes on stays what it is
        found = largest_batch(config, device, num_samples) if begun is None else config_of(begun).batch_size
        config = replace(config, batch_size=found)
    return config


def reopened(position: Position, run: Run, total_steps: int) -> Position:
    """Where to go on.

    That is within the last epoch, where phases that ended there cut it short and go on now; and at the beginning of the
    epoch under way, where its batches are others now.
    """
    assert run.start is not None
    is_same = has_same_frames(run.start, run.config, run.content, is_trained=position.batch == run.steps_per_epoch)
    if position.batch:
        return position if is_same else position.begun_anew()
    is_same = is_same and not order_changes(config_of(run.start), run.config)
    begun = (position.epoch - 1) * run.steps_per_epoch
    was_cut = position.epoch > 0 and begun < position.last_step < min(begun + run.steps_per_epoch, total_steps)
    return position.reopened(position.last_step - begun) if was_cut and is_same else position


@ending_together()
def load_initial_weights(model: DeepLabV3, config: TrainConfig, label_set: LabelSet) -> None:
    """Fill a new model with the weights that its run begins with.

    Where a whole network was trained on other classes, its classifiers are left as they are initialised, and a note
    says so.

    Raises:
        InputError: The weights cannot be had, or are of another network.
    """
    if config.weights is None:
        if config.backbone_weights != "none":
            load_backbone(model.backbone, backbone_file(config.model.backbone, config.backbone_weights))
        return
    checkpoint = open_checkpoint(config.weights)
    theirs, ours = checkpoint.part(used_weights(checkpoint)), model.state_dict()
    before = label_set_of(checkpoint)
    if before.names != label_set.names:
        theirs |= {name: value for name, value in ours.items() if name.startswith(CLASSIFIERS)}
        tell(
            f"{config.weights} was trained on {before.num_classes} classes of {before.name}; the classifier for "
            f"the {label_set.num_classes} of {label_set.name} begins anew, all else is kept"
        )
    dropout = model_config_of(checkpoint).dropout
    if dropout != config.model.dropout:
        tell(
            f"dropout is {config.model.dropout}, and {config.weights} was made with {dropout}; --dropout "
            f"{dropout} keeps that"
        )
    faults = differences(ours, theirs)
    if faults:
        raise CheckpointError(f"{config.weights} does not fit its own description: {faults}; use another file")
    model.load_state_dict(theirs)
