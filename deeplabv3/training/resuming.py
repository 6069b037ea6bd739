"""How a run goes on: its last checkpoint, and whether it fits what is asked for now."""

from __future__ import annotations

from collections.abc import Mapping

from deeplabv3.config import TrainConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.distributed import num_processes, tell
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import is_there
from deeplabv3.model.checkpoint import SUFFIX, Checkpoint, label_set_of, read_checkpoint, recorded
from deeplabv3.training.position import Position, position_of
from deeplabv3.training.schedule import num_steps
from deeplabv3.training.state import RunPaths, changes, config_of


def checkpoint_so_far(config: TrainConfig) -> Checkpoint | None:
    """The last checkpoint of a run that is to go on, or None.

    Raises:
        CheckpointError: It is damaged.
    """
    last = RunPaths(config).last
    return read_checkpoint(last) if config.resume and is_there(last) else None


def checkpoint_to_resume(
    begun: Checkpoint | None,
    paths: RunPaths,
    config: TrainConfig,
    label_set: LabelSet,
    content: Mapping[str, str],
) -> Checkpoint | None:
    """The checkpoint to go on from, or None for a new run, or for one that ended before it had a checkpoint.

    Args:
        begun: What `checkpoint_so_far` found.
        paths: Where the run's files are.
        config: Completed.
        label_set: What is trained.
        content: What `content_of` says of the frames.

    Raises:
        InputError: There is a run already and it is not to be resumed, or the other way round; or its checkpoint has a
            record that is damaged, was on other classes, was stopped within an epoch whose batches are others now, or
            would go back in its schedule or leave out some of it; or it is gone and others are there.
    """
    if not config.resume:
        paths.require_unused()
        return None
    if begun is not None:
        return _fitting(begun, paths, config, label_set, content)
    # The configuration is written before the first checkpoint, the log behind it: with a log, a checkpoint was lost.
    if not is_there(paths.config) or is_there(paths.log):
        there = paths.existing()
        if kept := [path for path in there if path.suffix == SUFFIX]:
            raise InputError(f"{paths.last} is gone, and {kept[0]} is there; copy a kept checkpoint to its place")
        start = "choose another folder" if there else "leave --resume out"
        raise InputError(f"there is no run to resume: {paths.last} does not exist; {start} to start one")
    tell(f"the run in {paths.run_dir} ended before its first checkpoint; it begins anew")
    return None


def _fitting(
    checkpoint: Checkpoint,
    paths: RunPaths,
    config: TrainConfig,
    label_set: LabelSet,
    content: Mapping[str, str],
) -> Checkpoint:
    """A checkpoint that its run can go on from, once it has been said what is no longer as it was.

    Raises:
        InputError: It cannot.
    """
    if label_set_of(checkpoint).numbering != label_set.numbering:
        raise InputError(
            f"{paths.last} was trained on other classes; give the --labels and --ignored-classes of its run"
        )
    # The first checkpoints did not say what their epochs were made from.
    before = recorded(checkpoint, "epoch_content", str) if "epoch_content" in checkpoint.record else "unknown images"
    now = content["epoch_content"]
    position, note = _place_to_go_on(checkpoint, before, paths, config, content)
    if position.batch > paths.steps_per_epoch:
        seen = f"{position.batch} batches in an epoch of {paths.steps_per_epoch}"
        raise CheckpointError(f"{paths.last} has a record of {seen}; use another file")
    last_step, next_step = position.last_step, (position.epoch + 1) * paths.steps_per_epoch
    if next_step <= last_step:
        raise InputError(
            f"{paths.last} was saved after step {last_step}, and with {now} its next epoch would end at step "
            f"{next_step}; keep the images and the options that it began with, as by --config {paths.config}, or begin "
            f"a new run with --weights {paths.last}"
        )
    first_step = position.epoch * paths.steps_per_epoch + position.batch
    if before != now and _leaves_steps_out(config, paths.steps_per_epoch, last_step, first_step):
        raise InputError(
            f"{paths.last} was saved after step {last_step}, and with {now} it would go on at step "
            f"{first_step} of phases that are counted in steps; keep the batch size and the images, or begin a new run "
            f"with --weights {paths.last}"
        )
    if note:
        tell(note)
    _tell_of_changes(checkpoint, before, paths, config, label_set, content)
    return checkpoint


def _tell_of_changes(
    checkpoint: Checkpoint,
    before: str,
    paths: RunPaths,
    config: TrainConfig,
    label_set: LabelSet,
    content: Mapping[str, str],
) -> None:
    """Say what is no longer as it was."""
    if label_set_of(checkpoint) != label_set:
        tell("the label set has another name, or other colours or categories, than before; it is kept as it is now")
    if checkpoint.record.get("val_names", content["val_names"]) != content["val_names"]:
        tell("the frames of val are others than before; the best checkpoint so far was chosen by those")
    if checkpoint.record.get("label_counts", content.get("label_counts")) != content.get("label_counts"):
        tell("the labels of training show something else than before, and so what follows from them")
    changed = changes(config_of(checkpoint), config)
    if before != content["epoch_content"]:
        changed = ", ".join(filter(None, [f"an epoch of {before} -> {content['epoch_content']}", changed]))
    if changed:
        tell(f"the run goes on with other values than it began with: {changed}")
    others = recorded(checkpoint, "num_processes", int) if "num_processes" in checkpoint.record else 1
    if others != num_processes():
        tell(
            f"{paths.last} was saved by {others} process{'es' * (others > 1)} and goes on in {num_processes()}: on the "
            "same samples, but not to the same last digits"
        )


def _place_to_go_on(
    checkpoint: Checkpoint,
    before: str,
    paths: RunPaths,
    config: TrainConfig,
    content: Mapping[str, str],
) -> tuple[Position, str]:
    """Where a checkpoint was saved; or the beginning of its epoch, where frames are left out that the epoch had.

    Returns:
        That, and what is to be said of it.

    Raises:
        InputError: Its epoch would go on with other batches: some frames would come twice, some never.
    """
    position, begun = position_of(checkpoint), config_of(checkpoint)
    if not position.batch:
        return position, ""
    is_trained = position.batch == paths.steps_per_epoch
    if has_same_frames(checkpoint, config, content, is_trained=is_trained):
        others = order_changes(begun, config)
        if others and position.batch < paths.steps_per_epoch:
            name, was, now = others[0], getattr(begun, others[0]), getattr(config, others[0])
            raise InputError(
                f"{paths.last} was saved within an epoch that {name} {was} arranged, not {now}; give {was}"
            )
        return position, ""
    is_as_large = begun.step_images == config.step_images
    if not (config.skip_bad and is_as_large):
        now = content["epoch_content"]
        now = now if before != now else "frames that are drawn by other labels"
        images = "restore the images under their names, and their labels, or add --skip-bad to begin that epoch anew"
        raise InputError(
            f"{paths.last} was saved within an epoch of {before} and cannot go on in one of {now}; "
            + (images if is_as_large else f"give the options that it began with, as by --config {paths.config}")
        )
    done = f"the weights as they were after {position.batch} of its batches"
    return position.begun_anew(), f"epoch {position.epoch + 1} begins anew, from {done}"


def has_same_frames(
    checkpoint: Checkpoint, config: TrainConfig, content: Mapping[str, str], *, is_trained: bool
) -> bool:
    """Whether an epoch is made from what it was made from, labels included where frames have yet to be drawn by them.

    Args:
        checkpoint: What it was.
        config: Of the run now.
        content: What `content_of` says of the frames now.
        is_trained: Whether all its batches are done.
    """
    is_drawn_by_labels = config.class_sampling and config_of(checkpoint).class_sampling and not is_trained
    same = {name: checkpoint.record.get(name, now) == now for name, now in content.items()}
    is_other_draw = is_drawn_by_labels and not same["label_counts"]
    return checkpoint.record.get("epoch_content") == content["epoch_content"] and not is_other_draw


def order_changes(before: TrainConfig, config: TrainConfig) -> list[str]:
    """Which options that an epoch's frames come in an order by are others."""
    return [name for name in ("seed", "class_sampling") if getattr(before, name) != getattr(config, name)]


def _leaves_steps_out(config: TrainConfig, steps_per_epoch: int, last_step: int, first_step: int) -> bool:
    """Whether a run that goes on at a later step than it came to has phases by then whose steps are counted."""
    begins = [num_steps(config.phases[:place], steps_per_epoch) for place in range(len(config.phases))]
    is_counted = any(phase.steps and at < first_step for phase, at in zip(config.phases, begins, strict=True))
    return is_counted and last_step < min(first_step, num_steps(config.phases, steps_per_epoch))
