"""A network and all that is around it as one file, compared with the network before it is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deeplabv3 import __version__
from deeplabv3.config import ExportConfig
from deeplabv3.data.cityscapes import Sample, find_samples
from deeplabv3.data.frames import check_sizes
from deeplabv3.data.labels import LabelSet
from deeplabv3.deployment.graph import OPSET, onnx_graph, program_file, traced
from deeplabv3.deployment.parity import Parity, compare
from deeplabv3.deployment.quantisation import (
    CALIBRATION_SPLIT,
    SCORED_SPLIT,
    Loss,
    calibration_frames,
    measured_loss,
    quantised,
)
from deeplabv3.files import refuse_to_overwrite, require_writable, write_whole
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.exported import VERSION, ExportedModel, open_exported, require_export_extra
from deeplabv3.model.load import load_model
from deeplabv3.model.sealed import sealed_onnx
from deeplabv3.records import to_record


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: The file.
        num_bytes: Its size.
        parity: How far it is from the checkpoint; None for int8, which is meant to round.
        loss: What int8 costs; None for float32.
    """

    path: Path
    num_bytes: int
    parity: Parity | None
    loss: Loss | None


def export(config: ExportConfig) -> Export:
    """Write a network as an `.onnx` or `.pt2` file, once it was found to compute what the network does.

    Raises:
        InputError: The checkpoint or the calibration's data cannot be used, the extra `export` is not installed, the
            file would differ from the checkpoint, or it cannot be written. Then nothing is.
    """
    if config.out.suffix == ".onnx":
        require_export_extra()
    require_writable(config.out.parent)
    if not config.overwrite:
        refuse_to_overwrite([config.out])
    shown, scored = _calibration(config)
    model, label_set = load_model(config.model, output_stride=config.output_stride)
    record = description(model, label_set, config.output)
    program = traced(model, config.output)
    graph = onnx_graph(program, config.output) if config.out.suffix == ".onnx" else b""
    if shown:
        graph = quantised(graph, shown)

    def content(record: dict[str, Any]) -> bytes:
        text = json.dumps(record, allow_nan=False)
        return sealed_onnx(graph, text) if graph else program_file(program, text)

    exported = open_exported(content(record), config.out, ExportedModel)
    parity = loss = None
    if not shown:
        parity = compare(model, exported)
        parity.require_close(config.out.name)
        record["parity"] = asdict(parity)
    else:
        loss = measured_loss(model, exported, scored)
        record["int8"] = {"num_calibration": len(shown), **asdict(loss)}
    final = content(record)
    write_whole(config.out, final)
    return Export(config.out, len(final), parity, loss)


def _calibration(config: ExportConfig) -> tuple[list[Sample], list[Sample]]:
    """The frames that int8 is calibrated with and those that it is scored on, looked for before anything takes long.

    Raises:
        DatasetError: There are none, or an image and its label are of different sizes.
    """
    if config.calibration is None:
        return [], []
    shown = calibration_frames(find_samples(config.calibration, CALIBRATION_SPLIT), config.num_calibration)
    scored = find_samples(config.calibration, SCORED_SPLIT)
    check_sizes(scored)
    return shown, scored


def description(model: DeepLabV3, label_set: LabelSet, output: str) -> dict[str, Any]:
    """The record that is stored in the file, as `docs/deployment.md` describes it; plain JSON values."""
    return {
        "version": VERSION,
        "deeplabv3": __version__,
        "model": to_record(model.config),
        "labels": label_set.to_dict(),
        "output": output,
        "names": list(label_set.names),
        "colors": label_set.palette.tolist(),
        "opset": OPSET,
    }
