"""Training: one function, `_train`, read from top to bottom: set up, build, resume, loop, record."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from deeplabv3.config import InferenceConfig, TrainConfig
from deeplabv3.data.loading import train_batches
from deeplabv3.data.remembering import forget
from deeplabv3.distributed import by_the_first, ending_together, everyones, is_first, num_processes, process_group
from deeplabv3.errors import DatasetError, DeviceMemoryError
from deeplabv3.evaluation.scores import number
from deeplabv3.files import write_whole
from deeplabv3.model.checkpoint import encode_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.progress import Progress
from deeplabv3.report.curves import History
from deeplabv3.report.tables import percent
from deeplabv3.training.beginning import Run, load_initial_weights, reopened, set_up
from deeplabv3.training.endings import telling_how_to_go_on
from deeplabv3.training.events import Events
from deeplabv3.training.folders import held_folders
from deeplabv3.training.learner import Learner, enter_phase, make_learner, set_training
from deeplabv3.training.losses import class_weights_of
from deeplabv3.training.page import page_is_current, write_run_page
from deeplabv3.training.position import Position
from deeplabv3.training.schedule import learning_rate, num_epochs, num_steps, phase_at
from deeplabv3.training.state import RunPaths, config_yaml, restore, state_record, state_tensors, write_history
from deeplabv3.training.step import Outcome, settle, step_batches, train_step
from deeplabv3.training.stopping import Stopped, StopSignals
from deeplabv3.training.stopwatch import Stopwatch
from deeplabv3.training.validation import Validation, validate


def train(config: TrainConfig) -> list[dict[str, Any]]:
    """Train DeepLab V3, or go on training it; under torchrun, all processes together.

    Args:
        config: Everything that decides about the run.

    Returns:
        The history: a dictionary for each epoch, as `log.jsonl` has them.

    Raises:
        InputError: Something supplied cannot be used; nothing was overwritten. A frame that turns out to be broken
            while training ends the run saved.
        OutputError: A file of the run cannot be written, be it a plot; the last checkpoint is whole.
        DeviceMemoryError: Memory ran out. The last checkpoint is whole; where it was a validation, the run is saved.
        NonFiniteError: A number is NaN or infinite; the optimizer has not used it.
        ProcessError: Another process of the run has ended.
        Stopped: SIGINT or SIGTERM came; the run is saved.
    """
    with process_group(), held_folders(config) as make_folders:
        return _train(config, make_folders)


def _train(config: TrainConfig, make_folders: Callable[[RunPaths], None]) -> list[dict[str, Any]]:
    """What `train` does, in folders that no other run writes into."""
    # 1. Set up: what can be wrong is found out before anything is written.
    run = set_up(config)
    config, paths, phases, steps_per_epoch = run.config, run.paths, run.config.phases, run.steps_per_epoch
    total_steps, epochs = num_steps(phases, steps_per_epoch), num_epochs(phases, steps_per_epoch)

    # 2. Build.
    torch.manual_seed(config.seed)
    model = DeepLabV3(config.model)
    if run.start is None:
        load_initial_weights(model, config, run.label_set)
    learner = make_learner(model, config, run.device)

    # 3. Resume.
    position = Position() if run.start is None else reopened(restore(run.start, learner), run, total_steps)
    last_done = position.epoch * steps_per_epoch + max(0, position.batch - 1)  # its epoch may have to be validated yet
    phase = phase_at(last_done, phases, steps_per_epoch)
    enter_phase(learner, phases[phase], config)
    make_folders(paths)
    if position.epoch >= epochs:
        by_the_first(print, f"nothing is left to train: epoch {position.epoch} is done; more epochs go on from here")

    def rate_at(step: int, waited: int) -> float:
        return learning_rate(step, phases, steps_per_epoch, config.poly_power, config.min_learning_rate, waited)

    def save(*targets: Path) -> None:
        record = state_record(config, model.config, run.label_set, position, run.content)
        content = encode_checkpoint(state_tensors(learner), record)
        write_whole(paths.config, config_yaml(config))
        for target in targets:
            write_whole(target, content)

    # 4. Loop.
    validation: Validation | None = None
    outcomes: list[Outcome] = []
    ahead, pinned = range(position.epoch, epochs), run.device.type == "cuda"
    class_weights = class_weights_of(config.loss, run.shown, run.device)
    stream = train_batches(run.train_samples, run.label_set, config, ahead, position.batch, run.shown, pinned)
    with StopSignals() as stop, closing(stream), telling_how_to_go_on(config, run.device):
        events = _begun_events(paths, position, config)
        batches = step_batches(stream, config.accumulation, class_weights, stop)
        try:
            for epoch in ahead:
                set_training(model, phases[phase])
                watch, first_step = Stopwatch(), epoch * steps_per_epoch + position.batch
                # Phases that were shortened while the run was stopped may end before the step that it came to.
                last_step = max(first_step, min((epoch + 1) * steps_per_epoch, total_steps))
                title, length = f"epoch {epoch + 1}/{epochs}", last_step - epoch * steps_per_epoch
                with Progress(title, length, position.batch) as bar:
                    for step, batch in enumerate(watch.timed(islice(batches, last_step - first_step)), first_step):
                        if phase != phase_at(step, phases, steps_per_epoch):
                            phase = phase_at(step, phases, steps_per_epoch)
                            enter_phase(learner, phases[phase], config)
                        rate = rate_at(step, position.num_overflowed)
                        outcomes.append(train_step(learner, batch, rate, step, config, class_weights))
                        settle(outcomes, position, leave=1)  # the device works on that one meanwhile
                        loss = f"loss {position.mean_loss:.3f}, " if position.batch > position.num_skipped else ""
                        left = watch.time_left(total_steps - step - 1)
                        bar.advance(note=f"{loss}rate {rate:.2g}, {watch.summary()}, {left} left of the run")
                settle(outcomes, position)
                stop.check()

                validation = None
                if (epoch + 1) % config.eval_interval == 0 or epoch + 1 == epochs:
                    if num_processes() > 1:  # they leave validation at its end alone, and may be killed before
                        by_the_first(save, paths.last)
                    with stop.immediate():  # validation changes nothing: after a stop here it is done again
                        validation = validate(learner, run.val_samples, run.label_set, config)
                targets, plots = [paths.last], []  # the last one is written last: only then is the epoch done
                if (epoch + 1) % config.save_checkpoint_index == 0 or epoch + 1 == epochs:
                    targets.insert(0, paths.kept(epoch + 1))
                    plots = paths.plots(epoch + 1)
                if validation is not None and validation.miou > position.best_so_far:
                    position.best_miou = validation.miou
                    targets.insert(0, paths.best)
                rate = rate_at(epoch * steps_per_epoch, position.num_overflowed_before)
                entry = _entry(position, last_step, rate, watch, validation)
                position = position.next_epoch(entry)
                by_the_first(save, *targets)
                by_the_first(write_history, position.history, paths, plots)
                by_the_first(_show, events, entry, learner, run)
                by_the_first(print, _line(entry, epochs))
        except (Stopped, DatasetError, DeviceMemoryError) as reason:
            if isinstance(reason, DeviceMemoryError) and num_processes() > 1:  # of a validation: it is saved already
                raise
            if isinstance(reason, DatasetError) and (signal := stop.number_anywhere()):
                reason = Stopped(signal)  # to the whole group of processes: it ended those that read for a validation
            stop.save_undisturbed()
            settle(outcomes, position)
            by_the_first(save, paths.last)
            if isinstance(reason, DatasetError):
                forget(config.data_dir)
            where = f"epoch {position.epoch + 1} of {epochs}, batch {position.batch} of {steps_per_epoch}"
            where = f"the end of epoch {epochs}" if position.epoch == epochs else where
            raise _with_place(reason, where, paths.last) from reason

    # 5. Record: once more at the end, for a run that was killed between its last checkpoint and its log.
    with telling_how_to_go_on(config, run.device, is_finished=True):
        by_the_first(write_history, position.history, paths, paths.plots(position.epoch))
        _show_page(learner, validation, position.history, run)
    return position.history


@ending_together()
def _begun_events(paths: RunPaths, position: Position, config: TrainConfig) -> Events | None:
    """What the first process writes for TensorBoard, if that is asked for."""
    return Events(paths.events, position.history) if config.tensorboard and is_first() else None


def _show(events: Events | None, entry: dict[str, Any], learner: Learner, run: Run) -> None:
    """Write an epoch for TensorBoard, if that is asked for, with pictures where it was validated."""
    if events is None:
        return
    events.epoch(entry)
    if entry["class_iou"] is not None:
        inference = InferenceConfig(precision=run.config.precision)
        events.pictures(entry["step"], learner.judged, run.val_samples, run.label_set, inference)


def _with_place(reason: Stopped | DatasetError | DeviceMemoryError, where: str, saved: Path) -> BaseException:
    """Why a run ends early, with how far it came."""
    if isinstance(reason, Stopped):
        return Stopped(reason.number, f"stopped in {where}; saved in {saved}")
    return type(reason)(f"{reason}; the run is saved at {where}: put that right and add --resume")


def _show_page(learner: Learner, validation: Validation | None, history: History, run: Run) -> None:
    """Write the page of a finished run, if it is asked for; resumed at its end, only if there is none of that end."""
    folder = run.paths.report_dir
    if not run.config.report:
        return
    if validation is None and all(everyones([page_is_current(folder, history)])[0]):
        return
    validation = validation or validate(learner, run.val_samples, run.label_set, run.config)
    by_the_first(write_run_page, folder, learner.judged, validation.scores, history, run)


def _entry(
    position: Position, step: int, rate: float, watch: Stopwatch, validation: Validation | None
) -> dict[str, Any]:
    """What is recorded of a finished epoch."""
    scores, unaveraged = (None, None) if validation is None else (validation.scores, validation.unaveraged_miou)
    class_iou = None if scores is None else {name: number(iou) for name, iou in scores.class_iou.items()}
    return {
        "epoch": position.epoch + 1,
        "step": step,
        "learning_rate": rate,
        "train_loss": position.mean_loss,
        "val_loss": None if scores is None else number(scores.loss),
        "miou": None if scores is None else number(scores.miou),
        "unaveraged_miou": None if unaveraged is None else number(unaveraged),
        "class_iou": class_iou,
        "num_skipped": position.num_skipped,
        "num_overflowed": position.num_overflowed,
        "seconds": round(watch.seconds, 3),
        "images_per_second": round(watch.images_per_second, 3),
        "waiting_share": round(watch.waiting_share, 4),
    }


def _line(entry: dict[str, Any], epochs: int) -> str:
    """An epoch in one line for people."""
    line = f"epoch {entry['epoch']}/{epochs}: training loss {entry['train_loss']:.4f}"
    if entry["num_skipped"] and not entry["train_loss"]:
        line += " (nothing was learned: no batch had a pixel of a class with a weight, or float16 overflowed)"
    if entry["class_iou"] is not None:
        loss, miou = (math.nan if entry[name] is None else entry[name] for name in ("val_loss", "miou"))
        line += f", validation loss {loss:.4f}, mIoU {percent(miou)} %"
    return f"{line}, {entry['images_per_second']:.1f} images/s, {entry['waiting_share']:.0%} waiting"
