"""What a training run is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from deeplabv3.config.checks import MAX_SCALE, require, require_num_workers, require_precision
from deeplabv3.config.losses import LossConfig
from deeplabv3.config.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training with its own poly schedule.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Rate at the phase's first step.
    """

    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            InputError: A value is not possible.
        """
        require(self.epochs >= 1, "epochs", self.epochs, "a phase has at least 1 epoch")
        ok = 0 < self.learning_rate < math.inf
        require(ok, "learning_rate", self.learning_rate, "give a finite rate above 0")


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
        phases: Epochs and first learning rate of each phase.
        poly_power: Exponent of the poly schedule.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty on all weights.
        batch_size: Images a step.
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
        precision: float32, bfloat16 (convolutions only), or auto: bfloat16 where the device computes it natively.
        num_workers: Processes that read images; null chooses. The samples do not depend on it.
        worker_timeout_seconds: How long these processes may give nothing while the run waits, before it ends.
        checkpoint_dir: Where checkpoints go; null is checkpoints/ in the run's folder.
        losses_dir: Where losses.csv and its plots go, one a kept checkpoint; null is the run's folder, with one plot.
        checkpoint_name: Name of kept checkpoints; {epoch}, {lr} and {wd} are filled in.
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
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 8
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
    report: bool = True
    skip_bad: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        require(len(self.phases) >= 1, "phases", [], "at least one phase is needed")
        ok = 0 <= self.poly_power < math.inf
        require(ok, "poly_power", self.poly_power, "give at least 0; the paper has 0.9")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "give at least 0 and below 1")
        require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "give at least 0")
        require(min(self.crop_size) >= 1, "crop_size", list(self.crop_size), "give height and width, as in [768, 768]")
        low, high = self.scale_range
        ok = 0 < low <= high <= MAX_SCALE
        require(ok, "scale_range", [low, high], f"give 0 < smallest <= largest <= {MAX_SCALE}, as in [0.5, 2.0]")
        require(0 < self.cat_max_ratio <= 1, "cat_max_ratio", self.cat_max_ratio, "give above 0 and at most 1")
        require(0 <= self.class_sampling <= 1, "class_sampling", self.class_sampling, "give 0 to 1")
        ok = self.worker_timeout_seconds > 0
        require(ok, "worker_timeout_seconds", self.worker_timeout_seconds, "give above 0")
        for name in ("batch_size", "eval_batch_size", "eval_interval", "save_checkpoint_index"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "give at least 0 and below 2 ** 63")
        require_precision(self.precision)
        require_num_workers(self.num_workers)
        bare = self.checkpoint_name.replace("{lr}", "").replace("{wd}", "")
        ok = "{epoch}" in bare and not set("{}/\\") & set(bare.replace("{epoch}", ""))
        allowed = "it needs {epoch}, may have {lr} and {wd}, and is no path"
        require(ok, "checkpoint_name", self.checkpoint_name, allowed)

    @property
    def needs_class_pixels(self) -> bool:
        """Whether the run depends on how many pixels of each class the training frames show."""
        return self.class_sampling > 0 or self.loss.class_weights == "counts"
