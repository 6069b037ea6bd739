"""How a trained network becomes a file that runs elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deeplabv3.config.checks import require, require_output_stride, with_plain_types

EXPORT_SUFFIXES = (".onnx", ".pt2")
OUTPUTS = ("labels", "probabilities")


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write a network with all that is around it as one file: uint8 pixels in, trainIds or probabilities out.

    Attributes:
        model: A checkpoint, another project's file, or a name that `deeplabv3 models` lists.
        out: The file to write: .onnx for ONNX Runtime and the like, .pt2 for torch.export.
        output: labels (trainIds, uint8) or probabilities (float32, which scales, flips and windows need).
        output_stride: Run the same weights at 8, 16 or 32; null is the stride of training.
        int8: Compute in whole numbers of 8 bits, about four times smaller; needs --calibration and an .onnx file.
        calibration: Data set in the Cityscapes layout: frames of its training split show int8 the range of every value,
            its validation split is scored before and after.
        num_calibration: How many frames of the training split are looked at.
        overwrite: Replace the file if it is there already.
    """

    model: Path
    out: Path
    output: str = "labels"
    output_stride: int | None = None
    int8: bool = False
    calibration: Path | None = None
    num_calibration: int = 100
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the fields, and which of them go together.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        ok = self.out.suffix in EXPORT_SUFFIXES
        require(ok, "out", str(self.out), "its name ends in .onnx (ONNX) or .pt2 (torch.export)")
        require(self.output in OUTPUTS, "output", self.output, "choose one of " + ", ".join(OUTPUTS))
        require_output_stride(self.output_stride)
        require(self.num_calibration >= 1, "num_calibration", self.num_calibration, "give at least 1; 100 is usual")
        if self.int8:
            require(self.out.suffix == ".onnx", "out", str(self.out), "--int8 is for .onnx files; name it so")
            require(self.calibration is not None, "calibration", None, "--int8 needs --calibration DATA, a data set")
        else:
            seen = str(self.calibration)
            require(self.calibration is None, "calibration", seen, "it is for --int8; add that, or leave it out")
            is_default = self.num_calibration == ExportConfig.num_calibration
            require(is_default, "num_calibration", self.num_calibration, "it is for --int8; add that, or leave it out")
