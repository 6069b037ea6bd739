"""What is done with a trained network: segment, score, report, submit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deeplabv3.config.checks import (
    MAX_PIXELS,
    MAX_SCALE,
    MOST_PIXELS,
    require,
    require_num_workers,
    require_output_stride,
    require_precision,
    require_suffix,
    with_plain_types,
)
from deeplabv3.errors import InputError

PAPER_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of the paper's multi-scale inference (Chen et al. 2017, section 4.1)."""


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How an image becomes the class of each of its pixels.

    Attributes:
        output_stride: Run the same weights at 8, 16 or 32; null is the stride of training.
        scales: Scales of the image whose probabilities are averaged, as in [0.75, 1.0, 1.25]; "paper" is 0.5 to 1.75 in
            steps of 0.25.
        flip: Average with the mirrored image too.
        tile_size: Height and width of a sliding window, for frames larger than memory; null is the whole frame.
        tile_overlap: Pixels by which neighbouring windows overlap; null is a third of the window.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: float32, bfloat16 or float16 (convolutions only), or auto: bfloat16 where the device has it natively.
    """

    output_stride: int | None = None
    scales: tuple[float, ...] | str = (1.0,)
    flip: bool = False
    tile_size: tuple[int, int] | None = None
    tile_overlap: int | None = None
    device: str = "auto"
    precision: str = "float32"

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_output_stride(self.output_stride)
        allowed = f'give "paper", or numbers above 0 and up to {MAX_SCALE}, as in [0.75, 1.0, 1.25]'
        if isinstance(self.scales, str):
            require(self.scales == "paper", "scales", self.scales, allowed)
        ok = len(self.scales) >= 1 and all(0 < scale <= MAX_SCALE for scale in self.scale_values)
        require(ok, "scales", list(self.scales), allowed)
        if self.tile_size is None:
            require(self.tile_overlap is None, "tile_overlap", self.tile_overlap, "it needs --tile-size too")
        else:
            smaller = min(self.tile_size)
            require(smaller >= 1, "tile_size", list(self.tile_size), "give height and width, as in [1024, 1024]")
            ok = 0 <= (self.tile_overlap or 0) < smaller
            require(ok, "tile_overlap", self.tile_overlap, f"give 0 to {smaller - 1}, less than the window's side")
        require_precision(self.precision)

    @property
    def scale_values(self) -> tuple[float, ...]:
        """The scales as numbers."""
        return PAPER_SCALES if isinstance(self.scales, str) else self.scales

    @property
    def is_plain(self) -> bool:
        """Whether the network looks at the whole frame once, so that nothing has to be averaged."""
        return self.scale_values == (1.0,) and not self.flip and self.tile_size is None


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Score a checkpoint, or predictions that any program wrote, on a labelled split at the labels' full size.

    Attributes:
        data_dir: Data set in the Cityscapes layout.
        model: A checkpoint, another project's file, or a name that `deeplabv3 models` lists.
        predictions: Folder of label-id PNGs to score instead, each named for its frame; it is searched through.
        split: Folder of the split.
        inference: How the model predicts.
        labels: YAML file of own classes for predictions; null is Cityscapes. A checkpoint knows its own.
        batch_size: Frames of equal size a step.
        num_workers: Processes that read frames; null chooses.
        out: JSON file for the scores; null writes none.
        results_dir: Folder for every frame's label ids, colour mask and overlay; null writes none.
        overwrite: Replace results that are there already.
    """

    data_dir: Path
    model: Path | None = None
    predictions: Path | None = None
    split: str = "val"
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    labels: Path | None = None
    batch_size: int = 1
    num_workers: int | None = None
    out: Path | None = None
    results_dir: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the fields, and which of them go together.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_one("to score", model=self.model, predictions=self.predictions)
        require(self.batch_size >= 1, "batch_size", self.batch_size, "give at least 1")
        require_num_workers(self.num_workers)
        require_suffix("out", self.out, ".json")
        if self.model is not None:
            allowed = "it is for --predictions; a checkpoint knows its classes"
            require(self.labels is None, "labels", str(self.labels), allowed)
        else:
            allowed = "it needs --model; predictions are there already"
            require(self.results_dir is None, "results_dir", str(self.results_dir), allowed)
            if self.inference != InferenceConfig() or self.batch_size != 1:
                raise InputError(
                    "options of inference such as --scales need --model; predictions are scored as they are"
                )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(EvaluateConfig):
    """Evaluate, and write the scores, the worst frames and the training's curves as a page to look at.

    Attributes:
        report_dir: New folder for the page and its pictures.
        num_worst: How many of the frames with the lowest mIoU are shown.
    """

    report_dir: Path = Path("report")
    num_worst: int = 6

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: A value is not possible.
        """
        super().__post_init__()
        require(self.num_worst >= 0, "num_worst", self.num_worst, "give at least 0")


@dataclass(frozen=True, kw_only=True)
class SubmitConfig:
    """Write a split's predictions as the zip file that the Cityscapes benchmark server takes, or check such a file.

    Attributes:
        data_dir: Data set in the Cityscapes layout; labels are not needed.
        model: A checkpoint, another project's file, or a name that `deeplabv3 models` lists.
        check: A zip file to check instead of writing one.
        split: Folder of the split.
        inference: How the model predicts.
        labels: YAML file of own classes for a check; null is Cityscapes. A checkpoint knows its own.
        out: The zip file to write.
        overwrite: Replace it if it is there already.
    """

    data_dir: Path
    model: Path | None = None
    check: Path | None = None
    split: str = "test"
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    labels: Path | None = None
    out: Path = Path("submission.zip")
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check which fields go together.

        Raises:
            InputError: There is nothing to do, or there are two things.
        """
        with_plain_types(self)
        require_one("to do", model=self.model, check=self.check)
        require_suffix("out", self.out, ".zip")
        if self.model is not None:
            allowed = "it is for --check; a checkpoint knows its classes"
            require(self.labels is None, "labels", str(self.labels), allowed)
        elif self.inference != InferenceConfig() or self.overwrite:
            raise InputError("options of inference, and --overwrite, need --model; a check changes nothing")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Bring another project's checkpoint, or a published one, into this package's form.

    Attributes:
        file: A file of torchvision, mmsegmentation, VainF, segmentation_models.pytorch or the original repository, or a
            name that `deeplabv3 models` lists.
        out: The checkpoint to write; null puts it beside the file, or for a name into the current folder.
        output_stride: The one that the network is built for; null is its project's.
        labels: YAML file of its classes; null is what their number suggests: Cityscapes for 19, PASCAL VOC for 21.
        overwrite: Replace the checkpoint if it is there already.
    """

    file: Path
    out: Path | None = None
    output_stride: int | None = None
    labels: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_output_stride(self.output_stride)
        require_suffix("out", self.out, ".safetensors")


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """List the published checkpoints that can be had by name."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Segment images (a label-id PNG, a colour mask and an overlay with its legend for each) and videos (an overlay).

    Attributes:
        inputs: Image files, folders (searched through for images), videos such as drive.mp4, glob patterns,
            a camera's number, or "-" for images or a video on standard input.
        model: A checkpoint, another project's file, or a name that `deeplabv3 models` lists.
        out: Folder for the results.
        inference: How the model predicts.
        opacity: How strongly the overlay covers the image, 0..1.
        legend: Whether the overlay's classes are named below it; without, it has the image's own size.
        max_pixels: Images of more are refused before they are decoded; the default admits frames of 8K.
        overwrite: Replace results that are there already.
        resume: Leave out files whose results are all there, and do the others.
    """

    inputs: tuple[str, ...]
    model: Path
    out: Path = Path("predictions")
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    opacity: float = 0.55
    legend: bool = True
    max_pixels: int = MAX_PIXELS
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require(len(self.inputs) >= 1, "inputs", [], "give image files, folders or patterns")
        require(0 <= self.opacity <= 1, "opacity", self.opacity, "give a value of 0 to 1")
        if self.overwrite and self.resume:
            raise InputError("--overwrite and --resume exclude each other; give one of them")
        ok = 1 <= self.max_pixels <= MOST_PIXELS
        require(ok, "max_pixels", self.max_pixels, f"give 1 to {MOST_PIXELS}, and a --tile-size to save memory")


def require_one(what: str, **options: Path | None) -> None:
    """Refuse none and both of two options that exclude each other.

    Raises:
        InputError: Not exactly one of them is given.
    """
    flags = [f"--{name} {value or 'PATH'}" for name, value in options.items()]
    given = [flag for flag, value in zip(flags, options.values(), strict=True) if value is not None]
    if not given:
        raise InputError(f"nothing {what} is given; give {' or '.join(flags)}")
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other; give one of them")
