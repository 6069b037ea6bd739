"""Training: one function, read from top to bottom: set up, build, resume, loop, record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import Sample, find_samples
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, LabelSet, read_label_set
from deeplabv3.data.loading import Batch, batch_keys, default_num_workers, train_batches
from deeplabv3.errors import InputError, NonFiniteError
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import make_dir, write_whole
from deeplabv3.model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast, choose_device, place
from deeplabv3.model.pretrained import backbone_file, load_backbone
from deeplabv3.progress import Progress
from deeplabv3.report.tables import percent
from deeplabv3.training.losses import cross_entropy
from deeplabv3.training.schedule import learning_rate, num_epochs
from deeplabv3.training.state import (
    Position,
    RunPaths,
    changes,
    config_yaml,
    restore,
    state_record,
    state_tensors,
    write_history,
)
from deeplabv3.training.stopping import Stopped, StopSignals


def train(config: TrainConfig) -> list[dict[str, Any]]:
    """Train DeepLab V3, or go on training it.

    Args:
        config: Everything that decides about the run.

    Returns:
        The history: a dictionary for each epoch, as `log.jsonl` has them.

    Raises:
        InputError: Something supplied cannot be used; nothing was overwritten.
        NonFiniteError: The loss or a gradient is NaN or infinite; the optimizer has not used it.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    # 1. Set up: everything that can be wrong is found out before anything is written.
    device = choose_device(config.device)
    label_set = (read_label_set(config.labels) if config.labels else CITYSCAPES).without(config.ignored_classes)
    train_samples, val_samples = find_samples(config.data_dir, "train"), find_samples(config.data_dir, "val")
    config = _completed(config, label_set, device)
    steps_per_epoch = len(batch_keys(len(train_samples), config, epoch=0))
    epochs = num_epochs(config.phases)
    paths = RunPaths(config)
    start = _start(paths, config)

    # 2. Build.
    torch.manual_seed(config.seed)
    model = DeepLabV3(config.model)
    if start is None and config.backbone_weights != "none":
        load_backbone(model.backbone, backbone_file(config.model.backbone, config.backbone_weights))
    model = place(model, device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=0.0,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),  # one pass over the weights instead of four
    )

    # 3. Resume.
    position = Position() if start is None else restore(start, model, optimizer, device)
    for folder in (paths.run_dir, paths.checkpoint_dir, paths.losses_dir):
        make_dir(folder)
    write_whole(paths.run_dir / "config.yaml", config_yaml(config))

    def rate_at(step: int) -> float:
        return learning_rate(step, config.phases, steps_per_epoch, config.poly_power)

    def save(*targets: Path) -> None:
        tensors = state_tensors(model, optimizer, device)
        for target in targets:
            write_checkpoint(target, tensors, state_record(config, label_set, position))

    # 4. Loop.
    with StopSignals() as stop:
        try:
            for epoch in range(position.epoch, epochs):
                model.train()
                batches = Stopwatch(
                    train_batches(train_samples, label_set, config, epoch, position.batch, device.type == "cuda")
                )
                with Progress(f"epoch {epoch + 1}/{epochs}", steps_per_epoch, position.batch) as progress:
                    for batch in batches:
                        step = epoch * steps_per_epoch + position.batch
                        rate = rate_at(step)
                        loss = train_step(model, optimizer, batch, rate, step, device, config.precision)
                        position.batch += 1
                        position.loss_sum += loss or 0.0
                        position.num_skipped += loss is None
                        progress.advance(note=f"loss {loss or 0.0:.3f}, rate {rate:.2g}, {batches.summary()}")
                        stop.check()

                scores = None
                if (epoch + 1) % config.eval_interval == 0 or epoch + 1 == epochs:
                    with stop.immediate():  # validation changes nothing: after a stop here it is done again
                        scores = validate(model, val_samples, label_set, config, device)
                entry = _entry(position, rate_at(position.epoch * steps_per_epoch), batches, scores)
                targets = [paths.last]
                if scores is not None and scores.miou > (position.best_miou or -1.0):
                    position.best_miou = scores.miou
                    targets.append(paths.best)
                plots = []
                if (epoch + 1) % config.save_checkpoint_index == 0 or epoch + 1 == epochs:
                    targets.append(paths.kept(epoch + 1))
                    plots = paths.plots(epoch + 1)
                position = Position(epoch + 1, best_miou=position.best_miou, history=[*position.history, entry])
                save(*targets)
                write_history(position.history, paths, plots)
                print(_line(entry, epochs), flush=True)
                stop.check()
        except Stopped as stopped:
            save(paths.last)
            done = f"epoch {position.epoch + 1} of {epochs}, batch {position.batch} of {steps_per_epoch}"
            raise Stopped(stopped.exit_code - 128, f"stopped in {done}; saved in {paths.last}") from None

    # 5. Record: once more at the end, for a run that was killed between its last checkpoint and its log.
    write_history(position.history, paths, paths.plots(epochs))
    return position.history


def train_step(
    model: DeepLabV3,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    rate: float,
    step: int,
    device: torch.device,
    precision: str,
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
    label = batch.label.to(device, non_blocking=True)  # (N, H, W)
    optimizer.zero_grad(set_to_none=True)
    with autocast(device, precision):
        logits = model(image)  # (N, K, H, W)
    loss = cross_entropy(logits, label)
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    value = float(loss.detach())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    if not (abs(value) < float("inf") and norm < float("inf")):  # false for NaN too
        what = "loss" if not abs(value) < float("inf") else "norm of the gradient"
        seen = value if what == "loss" else norm
        raise NonFiniteError(
            f"step {step}: the {what} is {seen} at learning rate {rate:.3g}, batch {', '.join(batch.names)}; "
            "the last checkpoint is sound: lower the learning rate, or look at these files"
        )
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return value


def _completed(config: TrainConfig, label_set: LabelSet, device: torch.device) -> TrainConfig:
    """Fill in what follows from the data set and the machine."""
    workers = default_num_workers(device.type) if config.num_workers is None else config.num_workers
    model = replace(config.model, num_classes=label_set.num_classes)
    return replace(config, model=model, num_workers=workers)


def _start(paths: RunPaths, config: TrainConfig) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run.

    Raises:
        InputError: There is a run already and it is not to be resumed, or the other way round.
    """
    if not config.resume:
        if paths.last.exists():
            raise InputError(
                f"{paths.last} is there already: add --resume to go on with that run, or choose another folder"
            )
        return None
    if not paths.last.exists():
        raise InputError(f"there is no run to resume: {paths.last} does not exist; leave --resume out to start one")
    checkpoint = read_checkpoint(paths.last)
    changed = changes(checkpoint.record["config"], config)
    if changed:
        print(f"note: the run goes on with other values than it began with: {changed}", file=sys.stderr)
    return checkpoint


def _entry(position: Position, rate: float, batches: Stopwatch, scores: Scores | None) -> dict[str, Any]:
    """What is recorded of a finished epoch."""
    updates = position.batch - position.num_skipped
    validation = scores.to_json() if scores else {}
    return {
        "epoch": position.epoch + 1,
        "step": (position.epoch + 1) * position.batch,
        "learning_rate": rate,
        "train_loss": position.loss_sum / max(1, updates),
        "val_loss": validation.get("loss"),
        "miou": validation.get("averageScoreClasses"),
        "class_iou": validation.get("classScores"),
        "num_skipped": position.num_skipped,
        "seconds": round(batches.seconds, 3),
        "speed": batches.summary(),
    }


def _line(entry: dict[str, Any], epochs: int) -> str:
    """An epoch in one line for people."""
    line = f"epoch {entry['epoch']}/{epochs}: training loss {entry['train_loss']:.4f}"
    if entry["miou"] is not None:
        line += f", validation loss {entry['val_loss']:.4f}, mIoU {percent(entry['miou'])} %"
    return f"{line}, {entry['speed']}"


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
            batch_size=config.eval_batch_size,
            num_workers=config.num_workers,
            precision=config.precision,
        )
    finally:
        model.train()


class Stopwatch:
    """Yields batches and measures how long the loop waits for them."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self._start = time.perf_counter()
        self.num_images = 0
        self.waiting_seconds = 0.0

    def __iter__(self) -> Iterator[Batch]:
        """Each batch, once it is there."""
        asked = time.perf_counter()
        for batch in self._batches:
            self.waiting_seconds += time.perf_counter() - asked
            self.num_images += len(batch.names)
            yield batch
            asked = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the epoch, or the rest of it, began."""
        return time.perf_counter() - self._start

    def summary(self) -> str:
        """Speed and the share of time spent waiting for data."""
        seconds = self.seconds
        return f"{self.num_images / seconds:.1f} images/s, {self.waiting_seconds / seconds:.0%} waiting for data"
