"""Training: one function, read from top to bottom: set up, build, resume, loop, record."""

from __future__ import annotations

import math
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeplabv3.config import InferenceConfig, TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import label_set_of
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.data.loading import train_batches
from deeplabv3.data.photometric import recolored
from deeplabv3.data.sampling import class_pixels, num_batches
from deeplabv3.distributed import require_single
from deeplabv3.errors import DatasetError, InputError, NonFiniteError
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.evaluation.scores import Scores, number
from deeplabv3.files import make_dir, require_writable, write_whole
from deeplabv3.model.checkpoint import encode_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast, choose_device, place
from deeplabv3.progress import Progress
from deeplabv3.report.page import PAGE
from deeplabv3.report.tables import percent
from deeplabv3.training.beginning import checkpoint_to_resume, completed, load_initial_weights
from deeplabv3.training.frames import sound_frames
from deeplabv3.training.losses import class_weights_of, loss_of
from deeplabv3.training.page import write_run_page
from deeplabv3.training.schedule import learning_rate, num_epochs
from deeplabv3.training.state import (
    Position,
    RunPaths,
    config_yaml,
    describe_epoch,
    restore,
    state_record,
    state_tensors,
    write_history,
)
from deeplabv3.training.stopping import Stopped, StopSignals
from deeplabv3.training.stopwatch import Stopwatch


def train(config: TrainConfig) -> list[dict[str, Any]]:
    """Train DeepLab V3, or go on training it.

    Args:
        config: Everything that decides about the run.

    Returns:
        The history: a dictionary for each epoch, as `log.jsonl` has them.

    Raises:
        InputError: Something supplied cannot be used; nothing was overwritten. A frame that turns out to be broken
            while training ends the run saved.
        NonFiniteError: The loss or a gradient is NaN or infinite; the optimizer has not used it.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    # 1. Set up: everything that can be wrong is found out before anything is written.
    device = choose_device(config.device)
    require_single("training")
    labels = label_set_of(config.data_dir, config.labels)
    label_set = labels.without(config.ignored_classes)
    paths = RunPaths(config)
    folders = (paths.run_dir, paths.checkpoint_dir, paths.losses_dir)
    for folder in folders:
        require_writable(folder)
    train_samples, val_samples, label_values = sound_frames(config, labels)
    config = completed(config, label_set, device)
    steps_per_epoch = num_batches(len(train_samples), config)
    epochs = num_epochs(config.phases)
    epoch_content = describe_epoch(train_samples, config, steps_per_epoch)
    start = checkpoint_to_resume(paths, config, label_set, epoch_content)

    # 2. Build.
    torch.manual_seed(config.seed)
    model = DeepLabV3(config.model)
    if start is None:
        load_initial_weights(model, config, label_set)
    model = place(model, device)
    optimizer = make_optimizer(model, config, device)

    # 3. Resume.
    position = Position() if start is None else restore(start, model, optimizer, device)
    for folder in folders:
        make_dir(folder)

    def rate_at(step: int) -> float:
        return learning_rate(step, config.phases, steps_per_epoch, config.poly_power)

    def save(*targets: Path) -> None:
        record = state_record(config, label_set, position, epoch_content)
        content = encode_checkpoint(state_tensors(model, optimizer, device), record)
        write_whole(paths.config, config_yaml(config))
        for target in targets:
            write_whole(target, content)

    # 4. Loop.
    scores: Scores | None = None
    shown = class_pixels(train_samples, label_values, label_set) if config.needs_class_pixels else None
    class_weights = class_weights_of(config.loss, shown, device)
    ahead = range(position.epoch, epochs)
    stream = train_batches(train_samples, label_set, config, ahead, position.batch, shown, device.type == "cuda")
    with StopSignals() as stop, closing(stream):
        try:
            for epoch in range(position.epoch, epochs):
                model.train()
                watch = Stopwatch()
                with Progress(f"epoch {epoch + 1}/{epochs}", steps_per_epoch, position.batch) as progress:
                    for batch in watch.timed(islice(stream, steps_per_epoch - position.batch)):
                        step = epoch * steps_per_epoch + position.batch
                        loss = train_step(model, optimizer, batch, rate_at(step), step, device, config, class_weights)
                        position.advance(loss)
                        left = watch.time_left(epochs * steps_per_epoch - step - 1)
                        note = f"loss {loss or 0.0:.3f}, rate {rate_at(step):.2g}, {watch.summary()}, {left} left"
                        progress.advance(note=note)
                        stop.check()

                scores = None
                if (epoch + 1) % config.eval_interval == 0 or epoch + 1 == epochs:
                    with stop.immediate():  # validation changes nothing: after a stop here it is done again
                        scores = validate(model, val_samples, label_set, config, device)
                targets, plots = [paths.last], []  # the last one is written last: only then is the epoch done
                if (epoch + 1) % config.save_checkpoint_index == 0 or epoch + 1 == epochs:
                    targets.insert(0, paths.kept(epoch + 1))
                    plots = paths.plots(epoch + 1)
                if scores is not None and scores.miou > (-1.0 if position.best_miou is None else position.best_miou):
                    position.best_miou = scores.miou
                    targets.insert(0, paths.best)
                entry = _entry(position, steps_per_epoch, rate_at(epoch * steps_per_epoch), watch, scores)
                position = Position(epoch + 1, best_miou=position.best_miou, history=[*position.history, entry])
                save(*targets)
                write_history(position.history, paths, plots)
                print(_line(entry, epochs), flush=True)
                if epoch + 1 < epochs:
                    stop.check()
        except torch.OutOfMemoryError as error:
            raise InputError(_too_large(config, device)) from error
        except (Stopped, DatasetError) as reason:
            stop.save_undisturbed()
            save(paths.last)
            where = f"epoch {position.epoch + 1} of {epochs}, batch {position.batch} of {steps_per_epoch}"
            if isinstance(reason, DatasetError):
                raise DatasetError(f"{reason}; the run is saved at {where}: mend it and add --resume") from reason
            raise Stopped(reason.number, f"stopped in {where}; saved in {paths.last}") from None

    # 5. Record: once more at the end, for a run that was killed between its last checkpoint and its log.
    write_history(position.history, paths, paths.plots(epochs))
    if config.report and (scores is not None or not (paths.report_dir / PAGE).exists()):
        scores = scores or validate(model, val_samples, label_set, config, device)  # resumed when it was finished
        write_run_page(paths.report_dir, model, scores, position.history, config, label_set, val_samples)
    return position.history


def make_optimizer(model: DeepLabV3, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """SGD with momentum over all parameters; the rate of each step is set at that step."""
    return torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),  # one pass over the weights instead of four
    )


def train_step(
    model: DeepLabV3,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
    step: int,
    device: torch.device,
    config: TrainConfig,
    class_weights: Tensor | None = None,
) -> float | None:
    """One update of the weights.

    Returns:
        The loss, or None for a batch without any labelled pixel, after which nothing is updated.

    Raises:
        NonFiniteError: The loss or a gradient is NaN or infinite; weights and optimizer are as before.
    """
    if bool((batch.label == IGNORE_INDEX).all()):
        return None
    image = batch.image.to(device, non_blocking=True)  # (N, 3, H, W)
    if batch.color is not None:
        image = recolored(image, batch.color.to(device, non_blocking=True))  # (N, 3, H, W)
    label = batch.label.to(device, non_blocking=True)  # (N, H, W)
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, config.precision):
        logits, auxiliary = model.forward_with_auxiliary(image)  # (N, K, H, W) both
    loss = loss_of(logits, auxiliary, label, config.loss, class_weights)
    del logits, auxiliary  # only their gradients are needed on the way back
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    value = float(loss.detach())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not (abs(value) < float("inf") and norm < float("inf")):  # false for NaN too
        what = "loss" if not abs(value) < float("inf") else "norm of the gradient"
        seen = value if what == "loss" else norm
        raise NonFiniteError(
            f"step {step}: the {what} is {seen} at learning rate {rate:.3g}, batch {', '.join(batch.names)}; "
            "nothing of it was saved: lower the learning rate, or look at these files"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return value


def _too_large(config: TrainConfig, device: torch.device) -> str:
    height, width = config.crop_size
    return (
        f"the memory of {device} is too small for batch_size {config.batch_size} with crops of {height}x{width}; "
        "lower batch_size or crop_size, or choose a smaller backbone"
    )


def _entry(
    position: Position, steps_per_epoch: int, rate: float, watch: Stopwatch, scores: Scores | None
) -> dict[str, Any]:
    """What is recorded of a finished epoch."""
    updates = position.batch - position.num_skipped
    class_iou = None if scores is None else {name: number(iou) for name, iou in scores.class_iou.items()}
    return {
        "epoch": position.epoch + 1,
        "step": (position.epoch + 1) * steps_per_epoch,
        "learning_rate": rate,
        "train_loss": position.loss_sum / max(1, updates),
        "val_loss": None if scores is None else number(scores.loss),
        "miou": None if scores is None else number(scores.miou),
        "class_iou": class_iou,
        "num_skipped": position.num_skipped,
        "seconds": round(watch.seconds, 3),
        "images_per_second": round(watch.images_per_second, 3),
        "waiting_share": round(watch.waiting_share, 4),
    }


def _line(entry: dict[str, Any], epochs: int) -> str:
    """An epoch in one line for people."""
    line = f"epoch {entry['epoch']}/{epochs}: training loss {entry['train_loss']:.4f}"
    if entry["class_iou"] is not None:
        loss, miou = (math.nan if entry[name] is None else entry[name] for name in ("val_loss", "miou"))
        line += f", validation loss {loss:.4f}, mIoU {percent(miou)} %"
    return f"{line}, {entry['images_per_second']:.1f} images/s, {entry['waiting_share']:.0%} waiting"


def validate(
    model: DeepLabV3, samples: list[Sample], label_set: LabelSet, config: TrainConfig, device: torch.device
) -> Scores:
    """Score the model as it stands and put it back into training mode."""
    model.eval()
    try:
        return score_model(
            model,
            samples,
            label_set,
            device=device,
            inference=InferenceConfig(precision=config.precision),
            batch_size=config.eval_batch_size,
            num_workers=config.num_workers,
            with_loss=True,
        )
    finally:
        model.train()
