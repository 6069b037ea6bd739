"""A network of whole numbers of 8 bits, after training: ranges from calibration frames, and what it costs in mIoU."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import read_image_of
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.exported import ExportedModel
from deeplabv3.progress import track

CALIBRATION_SPLIT, SCORED_SPLIT = "train", "val"


@dataclass(frozen=True)
class Loss:
    """What int8 costs.

    Attributes:
        miou_before: mIoU of the checkpoint on the validation split, 0..1.
        miou_after: mIoU of the int8 file.
    """

    miou_before: float
    miou_after: float


def quantised(graph: bytes, samples: Sequence[Sample]) -> bytes:
    """An ONNX model whose convolutions compute in 8 bits: weights a scale a channel, values a scale a tensor.

    Args:
        graph: The serialised ModelProto of float32.
        samples: What `calibration_frames` chose: they show the range of every value.

    Returns:
        A serialised ModelProto that takes and gives the same.

    Raises:
        DatasetError: A frame cannot be read.
    """
    from onnxruntime import quantization

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc]  # it has no types
        """Calibration frames, one after the other, as ONNX Runtime asks for them."""

        def __init__(self) -> None:
            self._frames = _frames(samples)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._frames, None)

    with TemporaryDirectory() as folder:
        source, prepared, out = (Path(folder) / f"{step}.onnx" for step in ("float32", "prepared", "int8"))
        source.write_bytes(graph)
        quantization.quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            out,
            Frames(),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return out.read_bytes()


def calibration_frames(samples: Sequence[Sample], number: int) -> list[Sample]:
    """Some of the frames of a split, evenly spread, the first and the last among them; all, where there are fewer.

    Raises:
        DatasetError: There is none.
    """
    if not samples:
        raise DatasetError(f"the split {CALIBRATION_SPLIT} has no frames to calibrate with; give another data set")
    places = np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int)
    return [samples[place] for place in places]


def _frames(samples: Sequence[Sample]) -> Iterator[dict[str, Any]]:
    for sample in track(samples, "calibrating"):
        image = read_image_of(sample)  # (H, W, 3)
        yield {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None])}  # (1, 3, H, W)


def measured_loss(model: DeepLabV3, exported: ExportedModel, samples: Sequence[Sample]) -> Loss:
    """The mIoU of a checkpoint and of its int8 file on some frames, at the labels' full size.

    Raises:
        DatasetError: A frame cannot be read, or none shows a class that is scored.
    """
    before, after = (score_model(one, samples, exported.label_set).miou for one in (model, exported))
    if math.isnan(before):
        raise DatasetError("no pixel of val is of a class that is scored, so what int8 costs is not known; see check")
    return Loss(before, after)
