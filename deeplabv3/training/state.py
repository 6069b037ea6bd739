"""What a run consists of: its files, and the state that a checkpoint stores and restores."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeplabv3 import __version__
from deeplabv3.config import ModelConfig, TrainConfig
from deeplabv3.config.checks import require
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.sampling import ClassPixels
from deeplabv3.distributed import num_processes
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import is_there
from deeplabv3.model.checkpoint import (
    SUFFIX,
    Checkpoint,
    differences,
    load_weights,
    model_config_of,
    recorded,
    used_weights,
    using_record,
)
from deeplabv3.records import default_record, from_record, to_record
from deeplabv3.report.curves import History, plot_losses, write_log, write_losses
from deeplabv3.report.page import PAGE, pictures_in
from deeplabv3.training.events import event_files
from deeplabv3.training.learner import Learner, momentum_of
from deeplabv3.training.position import MAX_COUNT, Position, position_of
from deeplabv3.training.schedule import num_epochs, phase_at

PLACES = ("data_dir", "run_dir", "checkpoint_dir", "losses_dir")
"""Options that say where a run is and nothing about what it computes."""


class RunPaths:
    """Where a run's files are.

    Attributes:
        run_dir: Holds the two files below.
        config: `config.yaml`, what was asked for.
        log: `log.jsonl`, what was reached.
        events: What TensorBoard reads, if it is asked for.
        checkpoint_dir: All checkpoints.
        report_dir: The page of the finished run.
        losses_dir: Holds the two files below, and plots under the checkpoints' names if it is a folder for them alone.
        losses: `losses.csv`.
        plot: `losses.png`, the newest.
        last: The newest state of the run, which `resume` reads.
        best: The state with the best validation mIoU.

    Args:
        config: The run.
        steps_per_epoch: Steps that an epoch has; `stem` and all that is made of it cannot do without.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int | None = None) -> None:
        self._options = config
        self._steps_per_epoch = steps_per_epoch
        self.run_dir = config.run_dir
        self.config = config.run_dir / "config.yaml"
        self.log = config.run_dir / "log.jsonl"
        self.events = config.run_dir / "tensorboard"
        self.checkpoint_dir = config.checkpoint_dir or config.run_dir / "checkpoints"
        self.report_dir = config.run_dir / "report"
        self.losses_dir = config.losses_dir or config.run_dir
        self.losses = self.losses_dir / "losses.csv"
        self.plot = self.losses_dir / "losses.png"
        self.last = self.checkpoint_dir / f"last{SUFFIX}"
        self.best = self.checkpoint_dir / f"best{SUFFIX}"

    @property
    def steps_per_epoch(self) -> int:
        """Steps that an epoch has."""
        assert self._steps_per_epoch is not None, "names of kept checkpoints depend on the length of an epoch"
        return self._steps_per_epoch

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those that a run makes."""
        return self.run_dir, self.checkpoint_dir, self.losses_dir

    def stem(self, epoch: int) -> str:
        """The configured name of what is kept after `epoch` epochs."""
        config = self._options
        phase = config.phases[phase_at((epoch - 1) * self.steps_per_epoch, config.phases, self.steps_per_epoch)]
        return config.checkpoint_name.format(epoch=epoch, lr=phase.learning_rate, wd=config.weight_decay)

    def kept(self, epoch: int) -> Path:
        """The checkpoint that is kept after `epoch` epochs."""
        return self.checkpoint_dir / f"{self.stem(epoch)}{SUFFIX}"

    def plots(self, epoch: int) -> list[Path]:
        """The plots drawn with it: the newest, and in a folder for losses alone another under the checkpoint's name."""
        return [self.plot, self.losses_dir / f"{self.stem(epoch)}.png"] if self._options.losses_dir else [self.plot]

    @property
    def files(self) -> list[Path]:
        """Those that a run writes whole, less the pictures of its page."""
        epochs = range(1, num_epochs(self._options.phases, self.steps_per_epoch) + 1)
        later = [path for epoch in epochs for path in (self.kept(epoch), *self.plots(epoch))]
        return [self.last, self.best, self.config, self.log, self.losses, self.report_dir / PAGE, *later]

    def existing(self) -> list[Path]:
        """The files that the run would write and that are there already."""
        files = (*self.files, *event_files(self.events), *pictures_in(self.report_dir))
        return [path for path in files if is_there(path)]

    def require_unused(self) -> None:
        """Refuse to begin a run where one is.

        Raises:
            InputError: A file that the run would write is there already.
        """
        if there := self.existing():
            raise InputError(
                f"{there[0]} is there already: add --resume to go on with its run, or choose another folder"
            )


def write_history(history: History, paths: RunPaths, plots: Sequence[Path] = ()) -> None:
    """Write a run's log and losses anew, as whole files, so that no crash leaves them torn, and draw the plots.

    Raises:
        OutputError: One of them cannot be written.
    """
    write_log(history, paths.log)
    write_losses(history, paths.losses)
    for plot in plots:
        plot_losses(history, plot)


def config_yaml(config: TrainConfig) -> str:
    """A run's configuration as YAML, opening with the command that repeats it."""
    import yaml  # costs start-up time

    # What another folder, data set or machine decides.
    left_out = {*PLACES, "num_classes", "num_workers", "worker_timeout_seconds", "resume"}
    if config.weights is not None:  # they bring the rest of the network
        left_out |= to_record(config.model).keys() - {"dropout"}
    values = {name: value for name, value in to_record(config).items() if name not in left_out}
    command = shlex.join(
        ["deeplabv3", "train", str(config.data_dir), "NEW_RUN", "--config", str(RunPaths(config).config)]
    )
    return f"# to repeat this run: {command}\n" + yaml.safe_dump(values, sort_keys=False)


def describe_epoch(samples: Sequence[Sample], config: TrainConfig, steps_per_epoch: int) -> str:
    """What the batches of an epoch are made from, in words that differ when it does."""
    return f"{steps_per_epoch} steps of {config.step_images} from {len(samples)} images (names {names_in(samples)})"


def names_in(samples: Sequence[Sample]) -> str:
    """Eight digits that are others where the frames have other names."""
    names = "\n".join(sample.name for sample in samples)
    return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def content_of(
    train_samples: Sequence[Sample],
    val_samples: Sequence[Sample],
    shown: ClassPixels | None,
    config: TrainConfig,
    steps_per_epoch: int,
) -> dict[str, str]:
    """What a checkpoint keeps of the frames of its run, to find out whether they are others when it goes on.

    Returns:
        `epoch_content` is `describe_epoch`; `val_names` is another one where the frames that are scored have other
        names; `label_counts`, where `shown` is given, where the labels of training show something else.
    """
    counts = {} if shown is None else {"label_counts": hashlib.sha256(shown.tobytes()).hexdigest()[:8]}
    epoch = describe_epoch(train_samples, config, steps_per_epoch)
    return {"epoch_content": epoch, "val_names": names_in(val_samples), **counts}


def config_of(checkpoint: Checkpoint) -> TrainConfig:
    """What the run of a checkpoint was; what its version did not know yet, it did as by default.

    Raises:
        CheckpointError: The file is of no run, or says what is not possible.
    """
    record = recorded(checkpoint, "config", dict)
    with using_record(checkpoint, "config"):
        config = from_record(TrainConfig, {**default_record(TrainConfig), **record})
        require(config.batch_size != "auto", "batch_size", "auto", "a run that has begun has a number")
        return config


def changes(before: TrainConfig, config: TrainConfig) -> str:
    """Which values of a run differ from a configuration, in words; places and readers do not count."""
    old, now = to_record(before), to_record(config)
    same_run = {*PLACES, "resume", "num_workers", "worker_timeout_seconds", "device", "report", "skip_bad"}
    same_run |= {"tensorboard", "compile", "recompute"}
    if before.precision == "auto":  # of early releases, which did not say what that came to
        same_run.add("precision")
    names = [name for name in now if name not in same_run and old[name] != now[name]]
    return ", ".join(f"{name} {old[name]} -> {now[name]}" for name in names)


def state_tensors(learner: Learner) -> dict[str, Tensor]:
    """All that a run's future depends on, besides its `Position`: weights, statistics, momentum, average, scale.

    Random numbers are not among it: each follows from the seed and from where it is used.
    """
    tensors = {f"model/{name}": value for name, value in learner.model.state_dict().items()}
    tensors |= {f"optimizer/{name}": value for name, value in momentum_of(learner).items()}
    if learner.average is not None:
        tensors |= {f"average/{name}": value for name, value in learner.average.state_dict().items()}
        tensors["average_state/num_averaged"] = torch.tensor(learner.num_averaged)
    if learner.scaler is not None:
        scaler = learner.scaler.state_dict()
        tensors["scaler/scale"] = torch.tensor(scaler["scale"])
        tensors["scaler/growth_tracker"] = torch.tensor(scaler["_growth_tracker"])
    return tensors


def restore(checkpoint: Checkpoint, learner: Learner) -> Position:
    """The inverse of `state_tensors` and `state_record`.

    An average or a scale that the checkpoint does not have, since its run had none, begins here.

    Raises:
        CheckpointError: The checkpoint belongs to another model, or is not that of a whole run.
    """
    position = position_of(checkpoint)
    _require_same_network(checkpoint, learner)
    load_weights(learner.model, checkpoint)
    _restore_momentum(checkpoint, learner, position)
    if learner.average is not None:
        part = used_weights(checkpoint)
        load_weights(learner.average, checkpoint, part)
        has_average = part == "average/"
        learner.num_averaged = int(_scalar(checkpoint, "average_state/num_averaged")) if has_average else 0
    if learner.scaler is not None and checkpoint.part("scaler/"):
        scale, tracker = _scalar(checkpoint, "scaler/scale"), int(_scalar(checkpoint, "scaler/growth_tracker"))
        if not scale:
            raise CheckpointError(f"{checkpoint.path} has a scaler/scale of 0; use another checkpoint")
        learner.scaler.load_state_dict({**learner.scaler.state_dict(), "scale": scale, "_growth_tracker": tracker})
    return position


def _require_same_network(checkpoint: Checkpoint, learner: Learner) -> None:
    """Name the options that make another network, before its tensors are compared.

    Raises:
        CheckpointError: They are not those of the run, and its weights do not fit.
    """
    before, now = to_record(model_config_of(checkpoint)), to_record(learner.model.config)
    changed = ", ".join(f"{name} {before[name]} -> {now[name]}" for name in now if before[name] != now[name])
    if changed and differences(learner.model.state_dict(), checkpoint.part("model/")):
        raise CheckpointError(
            f"{checkpoint.path} is of a run with another network ({changed}); give the options that it began with, "
            "as its config.yaml has them (--config), or train into another folder"
        )


def _restore_momentum(checkpoint: Checkpoint, learner: Learner, position: Position) -> None:
    """Restore the momentum of every parameter, or of none where there was none yet.

    Raises:
        CheckpointError: It is missing, or belongs to another model.
    """
    parameters, stored = dict(learner.model.named_parameters()), checkpoint.part("optimizer/")
    has_begun = position.epoch > 0 or position.batch > position.num_skipped
    if not stored and not (has_begun and config_of(checkpoint).momentum):
        return
    faults = differences(parameters, stored)
    if faults:
        raise CheckpointError(
            f"{checkpoint.path} lacks momentum that fits its model: {faults}; give a checkpoint of this run"
        )
    for name, momentum in stored.items():
        layout = torch.empty_like(parameters[name])  # the buffer takes the memory order of its weights
        learner.optimizer.state[parameters[name]]["momentum_buffer"] = layout.copy_(momentum)


_SCALARS = {
    "average_state/num_averaged": torch.int64,
    "scaler/scale": torch.float32,
    "scaler/growth_tracker": torch.int64,
}


def _scalar(checkpoint: Checkpoint, name: str) -> float:
    """A number that is stored as a tensor.

    Raises:
        CheckpointError: It is not there, of another shape or type, or negative.
    """
    value, dtype = checkpoint.tensors.get(name), _SCALARS[name]
    if value is None:
        raise CheckpointError(f"{checkpoint.path} lacks {name}; use another checkpoint")
    most = MAX_COUNT if dtype == torch.int64 else torch.finfo(dtype).max
    if value.shape or value.dtype != dtype or not 0 <= value.item() <= most:
        seen = value.item() if value.numel() == 1 else f"of {tuple(value.shape)}"
        raise CheckpointError(
            f"{checkpoint.path} has a {name} that is {seen} ({value.dtype}), and no single {dtype} of 0 to {most:g}; "
            "use another checkpoint"
        )
    return value.item()


def state_record(
    config: TrainConfig,
    model: ModelConfig,
    label_set: LabelSet,
    position: Position,
    content: Mapping[str, str],
) -> dict[str, Any]:
    """The JSON part of a checkpoint; `model` is what the network is in the phase under way."""
    return {
        "model": to_record(model),
        "labels": label_set.to_dict(),
        "config": to_record(config),
        "position": asdict(position),
        **content,
        "num_processes": num_processes(),
        "versions": {"deeplabv3": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
