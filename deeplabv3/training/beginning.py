"""How a run begins: from a checkpoint of itself, from a whole network, from a backbone, or from nothing."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from deeplabv3.config import ModelConfig, TrainConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.workers import default_num_workers
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.model.checkpoint import Checkpoint, differences, label_set_of, model_config_of, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import open_checkpoint
from deeplabv3.model.pretrained import backbone_file, load_backbone
from deeplabv3.records import to_record
from deeplabv3.training.state import RunPaths, changes

CLASSIFIERS = ("classifier.", "auxiliary_head.2.")
"""The convolutions whose channels are the classes."""


def completed(config: TrainConfig, label_set: LabelSet, device: torch.device) -> TrainConfig:
    """Fill in what follows from the data set, the machine, and the weights that a run begins with.

    Raises:
        InputError: The network is described although it comes from weights, or they cannot be read; or there are more
            or fewer weights of classes than classes.
    """
    weights = config.loss.class_weights
    if isinstance(weights, tuple) and len(weights) != label_set.num_classes:
        allowed = f"{label_set.name} has {label_set.num_classes} classes; give a weight for each"
        raise InputError(f"class_weights has {len(weights)} values; {allowed}")
    workers = default_num_workers(device.type) if config.num_workers is None else config.num_workers
    model = config.model
    if config.weights is not None:
        default = ModelConfig(dropout=model.dropout, num_classes=model.num_classes)
        described = [name for name, value in to_record(model).items() if value != to_record(default)[name]]
        if described:
            raise InputError(
                f"{described[0]} is given, but the network is that of --weights {config.weights}; leave it out, or "
                "begin with --backbone-weights"
            )
        last = RunPaths(config).last  # a run that goes on needs the file no more that it began with
        begun = read_checkpoint(last) if config.resume and last.exists() else open_checkpoint(config.weights)
        model = replace(model_config_of(begun), dropout=model.dropout)
    model = replace(model, num_classes=label_set.num_classes)
    return replace(config, model=model, num_workers=workers)


def checkpoint_to_resume(
    paths: RunPaths, config: TrainConfig, label_set: LabelSet, epoch_content: str
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        InputError: There is a run already and it is not to be resumed, or the other way round; or the run was on other
            classes, or it was stopped within an epoch whose batches are others now.
    """
    if not config.resume:
        there = paths.existing()
        if there:
            raise InputError(
                f"{there[0]} is there already: add --resume to go on with its run, or choose another folder"
            )
        return None
    if not paths.last.exists():
        raise InputError(f"there is no run to resume: {paths.last} does not exist; leave --resume out to start one")
    checkpoint = read_checkpoint(paths.last)
    if label_set_of(checkpoint) != label_set:
        raise InputError(
            f"{paths.last} was trained on other classes; give the --labels and --ignored-classes of its run"
        )
    before = checkpoint.record["epoch_content"]
    if before != epoch_content and checkpoint.record["position"]["batch"]:
        raise InputError(
            f"{paths.last} was saved within an epoch of {before} and cannot go on in one of {epoch_content}; "
            "restore the images under their names and the batch size, or copy a kept checkpoint over it"
        )
    changed = changes(checkpoint.record["config"], config)
    if before != epoch_content:
        changed = ", ".join(filter(None, [f"an epoch of {before} -> {epoch_content}", changed]))
    if changed:
        print(f"note: the run goes on with other values than it began with: {changed}", file=sys.stderr)
    return checkpoint


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
    theirs, ours = checkpoint.part("model/"), model.state_dict()
    before = label_set_of(checkpoint)
    if before.names != label_set.names:
        theirs |= {name: value for name, value in ours.items() if name.startswith(CLASSIFIERS)}
        print(
            f"note: {config.weights} was trained on {before.num_classes} classes of {before.name}; the classifier for "
            f"the {label_set.num_classes} of {label_set.name} begins anew, all else is kept",
            file=sys.stderr,
        )
    dropout = model_config_of(checkpoint).dropout
    if dropout != config.model.dropout:
        print(
            f"note: dropout is {config.model.dropout}, and {config.weights} was made with {dropout}; --dropout "
            f"{dropout} keeps that",
            file=sys.stderr,
        )
    faults = differences(ours, theirs)
    if faults:
        raise CheckpointError(f"{config.weights} does not fit its own description: {faults}; use another file")
    model.load_state_dict(theirs)
