"""What a training run is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deeplabv3.config.checks import (
    MAX_SCALE,
    MIN_SCALE,
    require,
    require_num_workers,
    require_output_stride,
    require_precision,
    with_plain_types,
)
from deeplabv3.config.losses import LossConfig
from deeplabv3.config.model import ModelConfig
from deeplabv3.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with its own poly schedule. It takes `epochs` or `steps`.

    Attributes:
        epochs: Passes over the training split.
        steps: Updates of the weights; the run's last epoch ends early where they end.
        learning_rate: Rate that the phase begins with.
        warmup_steps: Steps in which the rate rises to the schedule's, in proportion to the step.
        output_stride: Of the network in this phase; null is the model's own.
        frozen_batch_norm: Normalise by the statistics so far, and train neither them nor the weights of batch norm.
    """

    epochs: int | None = None
    steps: int | None = None
    learning_rate: float
    warmup_steps: int = 0
    output_stride: int | None = None
    frozen_batch_norm: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        both = {"epochs": self.epochs, "steps": self.steps}
        given = [name for name, value in both.items() if value is not None]
        allowed = "a phase has epochs or steps, one of them, as in '[{steps: 400, learning_rate: 0.01}]'"
        require(len(given) == 1, "phases", [self.epochs, self.steps], allowed)
        require((both[given[0]] or 0) >= 1, given[0], both[given[0]], f"a phase has at least 1 {given[0][:-1]}")
        ok = 0 < self.learning_rate < math.inf
        require(ok, "learning_rate", self.learning_rate, "give a finite rate above 0")
        most = math.inf if self.steps is None else self.steps
        require(
            0 <= self.warmup_steps <= most, "warmup_steps", self.warmup_steps, f"give 0 to the phase's steps, {most}"
        )
        require_output_stride(self.output_stride)


ORIGINAL_PHASES = (Phase(epochs=65, learning_rate=1e-2), Phase(epochs=5, learning_rate=1e-3))
"""The protocol behind the original repository's published score."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. The defaults are the original protocol: 65 epochs from 1e-2, then 5 from 1e-3.

    Attributes:
        data_dir: Data set in the Cityscapes layout: leftImg8bit/ and gtFine/ with train/ and val/.
        run_dir: Folder of the run: config, log, losses, checkpoints.
        model: The network.
        loss: What is minimised; validation reports plain cross-entropy whatever it is.
        labels: YAML file of own classes; null is Cityscapes.
        ignored_classes: Names of classes that are neither trained nor scored, besides those the label set ignores.
        weights: A whole network to begin with: a checkpoint, another project's file, or a name that `deeplabv3 models`
            lists. It decides what the network is; a classifier of other classes begins anew.
        backbone_weights: Where the backbone starts: imagenet, imagenet-v2, a local file of ImageNet weights, or none.
        phases: Each stretch of training: epochs or steps, learning_rate, and at will warmup_steps, output_stride,
            frozen_batch_norm.
        poly_power: Exponent of the poly schedule.
        min_learning_rate: What the poly schedule ends at, instead of 0 (mmsegmentation has 1e-4).
        head_rate_factor: Factor of the learning rate for all that is not the backbone (10 in much code of the field).
        momentum: Momentum of SGD.
        weight_decay: L2 penalty on all weights.
        decay_norm_and_bias: Whether weight_decay takes in the weights of batch norm and all biases.
        average_decay: Decay of a moving average of the weights, which is scored beside them and is what checkpoints are
            used with; 0 keeps none, 0.999 reaches over some 1,000 steps.
        batch_size: Images a step, of all processes together; auto, in one process, finds the most that the memory of an
            accelerator takes.
        accumulation: Parts that each process takes its images of a step in, one after the other, to save memory.
        recompute: Keep only the backbone's block outputs and compute the rest of them again on the way back: less
            memory, about a third more time.
        compile: Translate the network by torch.compile, which takes minutes once.
        crop_size: Height and width of training crops, in pixels.
        scale_range: Smallest and largest random scale of an image before it is cropped.
        cat_max_ratio: Largest share of a crop's labelled pixels that one class may have, before another place is tried
            (mmsegmentation has 0.75); 1 allows all.
        flip: Mirror half of the samples.
        photometric_distortion: Vary brightness, contrast, saturation and hue.
        class_sampling: Share of the samples that are drawn for their classes, each class equally often; 0 takes each
            frame once an epoch (NVIDIA's recipes have 0.5).
        eval_batch_size: Frames of equal size a validation step.
        eval_interval: Epochs between validations.
        save_checkpoint_index: Epochs between kept checkpoints; the last and the best are kept besides.
        seed: Start of all random numbers: initial weights, order, augmentation, dropout.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: float32, bfloat16 or float16 (convolutions only; float16 scales the loss), or auto: bfloat16 where
            the device computes it natively.
        num_workers: Processes that read images; null chooses. The samples do not depend on it.
        worker_timeout_seconds: How long these processes may give nothing while the run waits, before it ends (20 s in
            the check before it).
        checkpoint_dir: Where checkpoints go; null is checkpoints/ in the run's folder.
        losses_dir: Where losses.csv and its plots go, one a kept checkpoint; null is the run's folder, with one plot.
        checkpoint_name: Name of kept checkpoints; {epoch}, {lr} and {wd} are filled in.
        tensorboard: Write losses, rates, IoU of each class and pictures for TensorBoard, as tensorboard/ in the run's
            folder.
        report: Write a page with scores, worst frames and curves at the end, as report/ in the run's folder.
        skip_bad: Leave defective files of the data set out and go on, instead of stopping at them.
        resume: Go on from the run's last checkpoint.
    """

    data_dir: Path
    run_dir: Path
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    labels: Path | None = None
    ignored_classes: tuple[str, ...] = ()
    weights: Path | None = None
    backbone_weights: str = "imagenet"
    phases: tuple[Phase, ...] = ORIGINAL_PHASES
    poly_power: float = 0.9
    min_learning_rate: float = 0.0
    head_rate_factor: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    decay_norm_and_bias: bool = True
    average_decay: float = 0.0
    batch_size: int | Literal["auto"] = 8
    accumulation: int = 1
    recompute: bool = False
    compile: bool = False
    crop_size: tuple[int, int] = (768, 768)
    scale_range: tuple[float, float] = (0.5, 2.0)
    cat_max_ratio: float = 1.0
    flip: bool = True
    photometric_distortion: bool = False
    class_sampling: float = 0.0
    eval_batch_size: int = 1
    eval_interval: int = 1
    save_checkpoint_index: int = 5
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    num_workers: int | None = None
    worker_timeout_seconds: float = 20.0
    checkpoint_dir: Path | None = None
    losses_dir: Path | None = None
    checkpoint_name: str = "epoch_{epoch}"
    tensorboard: bool = False
    report: bool = True
    skip_bad: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        ok = bool(self.phases) and all(isinstance(phase, Phase) for phase in self.phases)
        require(ok, "phases", list(self.phases), "give one Phase or more")
        ok = 0 <= self.poly_power < math.inf
        require(ok, "poly_power", self.poly_power, "give at least 0; the paper has 0.9")
        lowest = min((phase.learning_rate for phase in self.phases), default=0)
        ok = 0 <= self.min_learning_rate <= lowest
        require(ok, "min_learning_rate", self.min_learning_rate, f"give 0 to {lowest:g}, the lowest rate of a phase")
        ok = 0 < self.head_rate_factor < math.inf
        require(ok, "head_rate_factor", self.head_rate_factor, "give a finite factor above 0")
        require(0 <= self.average_decay < 1, "average_decay", self.average_decay, "give at least 0 and below 1")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "give at least 0 and below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "give at least 0")
        require(min(self.crop_size) >= 1, "crop_size", list(self.crop_size), "give height and width, as in [768, 768]")
        low, high = self.scale_range
        ok = MIN_SCALE <= low <= high <= MAX_SCALE
        require(
            ok, "scale_range", [low, high], f"give {MIN_SCALE} <= smallest <= largest <= {MAX_SCALE}, as in [0.5, 2.0]"
        )
        require(0 < self.cat_max_ratio <= 1, "cat_max_ratio", self.cat_max_ratio, "give above 0 and at most 1")
        require(0 <= self.class_sampling <= 1, "class_sampling", self.class_sampling, "give 0 to 1")
        ok = 0 < self.worker_timeout_seconds < math.inf
        require(ok, "worker_timeout_seconds", self.worker_timeout_seconds, "give a finite number above 0")
        if self.batch_size != "auto":
            require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1, or auto")
        for name in ("accumulation", "eval_batch_size", "eval_interval", "save_checkpoint_index"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "give at least 0 and below 2 ** 63")
        require_precision(self.precision)
        require_num_workers(self.num_workers)
        bare = self.checkpoint_name.replace("{lr}", "").replace("{wd}", "")
        ok = "{epoch}" in bare and bare.isprintable() and not set("{}/\\") & set(bare.replace("{epoch}", ""))
        allowed = "it needs {epoch}, may have {lr} and {wd}, and is no path"
        require(ok, "checkpoint_name", self.checkpoint_name, allowed)

    @property
    def asked_model(self) -> ModelConfig:
        """The network as it has to be asked for: of one that comes with `weights`, the dropout alone."""
        if self.weights is None:
            return self.model
        return ModelConfig(dropout=self.model.dropout, num_classes=self.model.num_classes)

    def twice_described(self, name: str) -> InputError:
        """What to raise where an option describes the network although it comes with `weights`.

        Args:
            name: The option.
        """
        return InputError(
            f"{name} is given, by an option or a recipe, but the network is that of --weights {self.weights}; leave it "
            "out, or begin with --backbone-weights"
        )

    @property
    def step_images(self) -> int:
        """Images a step; known once `batch_size` is a number."""
        assert self.batch_size != "auto"
        return self.batch_size

    @property
    def needs_class_pixels(self) -> bool:
        """Whether the run depends on how many pixels of each class the training frames show."""
        return self.class_sampling > 0 or self.loss.class_weights == "counts"
