"""Every option of every command, as frozen dataclasses: the one source of flags, help, defaults, checks and records.

The command line is made from these classes (`cli.py`), a run's `config.yaml` and a checkpoint's record are written
from them by `records.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from deeplabv3.errors import InputError

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
OUTPUT_STRIDES = (8, 16, 32)
PRECISIONS = ("float32", "bfloat16", "auto")
MAX_SCALE = 100
NUM_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks of the four stages (He et al. 2015, table 1)."""


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value with one line that names it and what is allowed.

    Raises:
        InputError: `condition` is false.
    """
    if not condition:
        raise InputError(f"{name} is {value!r}; {allowed}")


def require_output_stride(value: int | None) -> None:
    """Refuse an output stride that no network here has; None stands for a model's own.

    Raises:
        InputError: It is not 8, 16 or 32.
    """
    require(value is None or value in OUTPUT_STRIDES, "output_stride", value, "choose 8, 16 or 32")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: atrous ResNet, atrous spatial pyramid pooling, classifier (Chen et al. 2017, sections 3.1 to 3.3).

    Attributes:
        backbone: resnet18, resnet34, resnet50, resnet101 or resnet152.
        num_classes: Channels of the logits; taken from the label set when training.
        output_stride: Input size over feature size: 8, 16 or 32. Smaller is finer, slower and needs more memory.
        multi_grid: Unit rates of the last stage's blocks, one a block, multiplied by the stage's rate: [1, 2, 4] at
            output stride 16 gives rates 2, 4, 8. Null is a plain stage.
        width: Channels of the first stage, a multiple of 16; published weights have 64, smaller is faster.
        atrous_rates: Rates of the 3x3 convolutions of ASPP. Null follows the output stride: 6, 12, 18 at 16 and twice
            that at 8.
        aspp_channels: Channels of each ASPP branch and of the projection after them.
        image_pooling: Whether ASPP has the branch of image-level features.
        dropout: Share of channels' values dropped before the classifier while training.
    """

    backbone: str = "resnet101"
    num_classes: int = 19
    output_stride: int = 16
    multi_grid: tuple[int, ...] | None = None
    width: int = 64
    atrous_rates: tuple[int, ...] | None = None
    aspp_channels: int = 256
    image_pooling: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        require(self.backbone in BACKBONES, "backbone", self.backbone, "choose one of " + ", ".join(BACKBONES))
        require(self.num_classes >= 1, "num_classes", self.num_classes, "at least 1 class is needed")
        require_output_stride(self.output_stride)
        if self.multi_grid is not None:
            blocks = NUM_BLOCKS[self.backbone][-1]
            allowed = (
                f"{self.backbone} has {blocks} blocks in its last stage: give {blocks} rates of at least 1, or null"
            )
            ok = len(self.multi_grid) == blocks and min(self.multi_grid) >= 1
            require(ok, "multi_grid", list(self.multi_grid), allowed)
        # torch 2.13 on a CPU writes beyond its memory in the channels-last gradient of a strided 1x1 convolution of 8
        # channels, so nothing narrower than 16 is let in; multiples of 16 are also what the kernels are fast at.
        ok = self.width >= 16 and self.width % 16 == 0
        require(ok, "width", self.width, "give a multiple of 16; 64 is the published width")
        if self.atrous_rates is not None:
            ok = all(rate >= 1 for rate in self.atrous_rates)
            require(ok, "atrous_rates", list(self.atrous_rates), "each rate is at least 1, as in [6, 12, 18]")
        require(self.aspp_channels >= 1, "aspp_channels", self.aspp_channels, "give at least 1; the paper has 256")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "give a share of at least 0 and below 1")

    @property
    def aspp_rates(self) -> tuple[int, ...]:
        """The rates that ASPP runs with: `atrous_rates`, or 6, 12, 18 scaled to the output stride (section 3.3)."""
        if self.atrous_rates is not None:
            return self.atrous_rates
        return tuple(rate * 16 // self.output_stride for rate in (6, 12, 18))

    def at_output_stride(self, output_stride: int) -> ModelConfig:
        """The same network on another grid: explicit ASPP rates keep covering the same pixels of the image.

        Raises:
            InputError: The stride is not 8, 16 or 32, or a rate would not be a whole number.
        """
        require_output_stride(output_stride)
        rates = self.atrous_rates
        if rates is not None:
            ok = all(rate * self.output_stride % output_stride == 0 for rate in rates)
            allowed = f"the model's atrous_rates {list(rates)} at stride {self.output_stride} become fractions there"
            require(ok, "output_stride", output_stride, allowed)
            rates = tuple(rate * self.output_stride // output_stride for rate in rates)
        return replace(self, output_stride=output_stride, atrous_rates=rates)


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
        labels: YAML file of own classes; null is Cityscapes.
        ignored_classes: Names of classes that are neither trained nor scored, besides those the label set ignores.
        backbone_weights: Where the backbone starts: imagenet, imagenet-v2, a local file of ImageNet weights, or none.
        phases: Epochs and first learning rate of each phase.
        poly_power: Exponent of the poly schedule.
        momentum: Momentum of SGD.
        weight_decay: L2 penalty on all weights.
        batch_size: Images a step.
        crop_size: Height and width of training crops, in pixels.
        scale_range: Smallest and largest random scale of an image before it is cropped.
        flip: Mirror half of the samples.
        photometric_distortion: Vary brightness, contrast, saturation and hue.
        eval_batch_size: Frames of equal size a validation step.
        eval_interval: Epochs between validations.
        save_checkpoint_index: Epochs between kept checkpoints; the last and the best are kept besides.
        seed: Start of all random numbers: initial weights, order, augmentation, dropout.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: float32, bfloat16 (convolutions only), or auto: bfloat16 where the device computes it natively.
        num_workers: Processes that read images; null chooses. The samples do not depend on it.
        checkpoint_dir: Where checkpoints go; null is checkpoints/ in the run's folder.
        losses_dir: Where losses.csv and its plots go, one a kept checkpoint; null is the run's folder, with one plot.
        checkpoint_name: Name of kept checkpoints; {epoch}, {lr} and {wd} are filled in.
        resume: Go on from the run's last checkpoint.
    """

    data_dir: Path
    run_dir: Path
    model: ModelConfig = field(default_factory=ModelConfig)
    labels: Path | None = None
    ignored_classes: tuple[str, ...] = ()
    backbone_weights: str = "imagenet"
    phases: tuple[Phase, ...] = ORIGINAL_PHASES
    poly_power: float = 0.9
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 8
    crop_size: tuple[int, int] = (768, 768)
    scale_range: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    photometric_distortion: bool = False
    eval_batch_size: int = 1
    eval_interval: int = 1
    save_checkpoint_index: int = 5
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    num_workers: int | None = None
    checkpoint_dir: Path | None = None
    losses_dir: Path | None = None
    checkpoint_name: str = "epoch_{epoch}"
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
        for name in ("batch_size", "eval_batch_size", "eval_interval", "save_checkpoint_index"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")
        require(0 <= self.seed < 2**63, "seed", self.seed, "give at least 0 and below 2 ** 63")
        require(self.precision in PRECISIONS, "precision", self.precision, "choose one of " + ", ".join(PRECISIONS))
        require((self.num_workers or 0) >= 0, "num_workers", self.num_workers, "give at least 0, or null")
        bare = self.checkpoint_name.replace("{lr}", "").replace("{wd}", "")
        ok = "{epoch}" in bare and not set("{}/\\") & set(bare.replace("{epoch}", ""))
        allowed = "it needs {epoch}, may have {lr} and {wd}, and is no path"
        require(ok, "checkpoint_name", self.checkpoint_name, allowed)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a checkpoint on a labelled split, every frame at its label's full size.

    Attributes:
        data_dir: Data set in the Cityscapes layout.
        model: A checkpoint of this package.
        split: Folder of the split.
        output_stride: Run the same weights at 8, 16 or 32; null is the stride of training.
        batch_size: Frames of equal size a step.
        device: auto, cpu, cuda, cuda:N or mps.
        out: JSON file for the scores; null writes none.
        predictions_dir: Folder for every frame's label ids, colour mask and overlay; null writes none.
        overwrite: Replace results that are there already.
    """

    data_dir: Path
    model: Path
    split: str = "val"
    output_stride: int | None = None
    batch_size: int = 1
    device: str = "auto"
    out: Path | None = None
    predictions_dir: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A value is not possible.
        """
        require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1")
        require_output_stride(self.output_stride)


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment images: a label-id PNG, a colour mask and an overlay with its legend for each.

    Attributes:
        inputs: Image files, folders (searched through) or glob patterns.
        model: A checkpoint of this package.
        out: Folder for the results.
        output_stride: Run the same weights at 8, 16 or 32; null is the stride of training.
        opacity: How strongly the overlay covers the image, 0..1.
        legend: Whether the overlay's classes are named below it; without, it has the image's own size.
        overwrite: Replace results that are there already.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    inputs: tuple[str, ...]
    model: Path
    out: Path = Path("predictions")
    output_stride: int | None = None
    opacity: float = 0.55
    legend: bool = True
    overwrite: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A value is not possible.
        """
        require(len(self.inputs) >= 1, "inputs", [], "give image files, folders or patterns")
        require(0 <= self.opacity <= 1, "opacity", self.opacity, "give a value of 0 to 1")
        require_output_stride(self.output_stride)


@dataclass(frozen=True, kw_only=True)
class StreetsConfig:
    """Write synthetic street scenes in the exact layout of Cityscapes.

    Attributes:
        out: New folder for the data set.
        num_train: Scenes of the training split.
        num_val: Scenes of the validation split.
        height: Height of each scene in pixels.
        width: Width of each scene in pixels.
        seed: Start of all random numbers; the same seed draws the same scenes.
    """

    out: Path
    num_train: int = 200
    num_val: int = 50
    height: int = 256
    width: int = 512
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Streets, training, scores and pictures in one go: the first thing to run.

    Attributes:
        out: Folder for everything that the demo makes.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    out: Path = Path("demo")
    device: str = "auto"
