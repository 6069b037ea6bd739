"""Exported files as models: what `deeplabv3 export` wrote is read, verified, and run on pixels.

Shape letters: N batch, K classes, H and W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from deeplabv3.config import EXPORT_SUFFIXES, InferenceConfig, ModelConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import CheckpointError, DatasetError, InputError, printable
from deeplabv3.model.programs import load_program
from deeplabv3.model.sealed import RECORD_KEY, read_sealed
from deeplabv3.records import from_record

VERSION = 1
"""Of the record that an exported file holds."""

Run = Callable[[Tensor], Tensor]
"""uint8 pixels `(N, 3, H, W)` to trainIds, uint8 `(N, H, W)`, or probabilities, float32 `(N, K, H, W)`."""


class ExportedModel:
    """A network that was exported: it knows its classes and takes pixels of any size.

    Args:
        name: What messages call it.
        run: From pixels to what the file puts out.
        record: What `export` wrote into it.
        least_side: Height and width of the smallest image that it takes.

    Attributes:
        config: What the network is.
        label_set: What its trainIds mean.
        output: "labels" or "probabilities".
        device: Where it takes pixels and leaves its output.
    """

    def __init__(self, name: str, run: Run, record: dict[str, Any], least_side: int = 1) -> None:
        self.name = name
        self.least_side = least_side
        self.record = record
        self.config = from_record(ModelConfig, record["model"])
        self.label_set = LabelSet.from_dict(record["labels"])
        self.output = str(record["output"])
        self.device = torch.device("cpu")
        self._run = run

    def require(self, inference: InferenceConfig) -> None:
        """Refuse what an exported file cannot do any more.

        Raises:
            InputError: It was exported for something else; the message says how to export it again.
        """
        again = f"export it again with {{}}, or leave {{}} out for {self.name}"
        stride = inference.output_stride
        if stride not in (None, self.config.output_stride):
            flag = f"--output-stride {stride}"
            raise InputError(
                f"output_stride is {stride} and {self.name} was exported at {self.config.output_stride}; "
                + again.format(flag, flag)
            )
        if inference.precision not in ("float32", "auto"):
            raise InputError(
                f"precision is {inference.precision!r} and {self.name} computes as it was exported; leave it out"
            )
        if inference.device not in ("auto", "cpu"):
            raise InputError(f"device is {inference.device!r} and {self.name} runs on the CPU here; leave it out")
        if not inference.is_plain and self.output == "labels":
            raise InputError(
                f"scales, flip and tile_size average probabilities and {self.name} puts out labels; "
                + again.format("--output probabilities", "them")
            )

    def labels(self, image: Tensor) -> Tensor:
        """Pixels, uint8 `(N, 3, H, W)`, to trainIds, uint8 `(N, H, W)`.

        Raises:
            DatasetError: The pixels are of a size that the file does not take.
        """
        output = self._output(image)  # (N, H, W) or (N, K, H, W)
        return output if self.output == "labels" else output.argmax(1).to(torch.uint8)

    def probabilities(self, image: Tensor) -> Tensor:
        """Pixels of 0..255, uint8 or to be rounded, `(N, 3, H, W)`, to float32 `(N, K, H, W)`.

        Raises:
            DatasetError: The pixels are of a size that the file does not take.
            InputError: It puts out labels.
        """
        if self.output == "labels":
            raise InputError(f"{self.name} puts out labels; export it again with --output probabilities")
        return self._output(image)

    def _output(self, image: Tensor) -> Tensor:
        if image.dtype != torch.uint8:
            image = image.round().clamp(0, 255).to(torch.uint8)
        height, width = image.shape[-2:]
        if min(height, width) < self.least_side:
            raise DatasetError(
                f"an image of {height}x{width} pixels is too small for {self.name}, which takes {self.least_side}x"
                f"{self.least_side} and more; use its checkpoint, or an .onnx file"
            )
        return self._run(image)


Kind = TypeVar("Kind", bound=ExportedModel)


def is_exported(path: str | Path) -> bool:
    """Whether a path is called as an exported file is."""
    return Path(path).suffix.lower() in EXPORT_SUFFIXES


def read_exported(path: str | Path, cls: type[Kind]) -> Kind:
    """The model in a file that `deeplabv3 export` wrote, as an `ExportedModel` or a child of it.

    Raises:
        CheckpointError: There is no such file, it is damaged, or another program wrote it.
        InputError: The extra `export` is not installed.
    """
    path = Path(path)
    return open_exported(read_sealed(path), path, cls)


def open_exported(content: bytes, path: Path, cls: type[Kind]) -> Kind:
    """`read_exported` for content that is in memory and whole.

    Args:
        content: Of the file.
        path: Its name tells its kind.
        cls: What is returned.
    """
    is_onnx = path.suffix.lower() == ".onnx"
    if is_onnx:
        require_export_extra()
    try:
        run, text, least_side = _open_onnx(content) if is_onnx else _open_program(content)
        record = json.loads(text)
        if record["version"] != VERSION:
            raise CheckpointError(
                f"{path} has format version {record['version']!r}; this release reads {VERSION}: update deeplabv3"
            )
        return cls(str(path), run, record, least_side)
    except CheckpointError:
        raise
    except Exception as error:  # torch and ONNX Runtime raise many kinds
        detail = printable(error, most=200)
        raise CheckpointError(f"{path} cannot be opened ({detail}); export it again with this release") from error


def require_export_extra() -> None:
    """Find out whether the libraries of ONNX are there.

    Raises:
        InputError: One is not.
    """
    for library in ("onnxruntime", "onnx", "onnxscript"):
        try:
            import_module(library)
        except ImportError as error:
            raise InputError(f".onnx files need {library}; install it: pip install 'deeplabv3[export]'") from error


def _open_onnx(content: bytes) -> tuple[Run, str, int]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False  # an arena keeps twice what the largest frame needed, and gives nothing back
    options.log_severity_level = 4  # its errors are raised; its warnings are about graphs that others wrote
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (pixels,), (output,) = session.get_inputs(), session.get_outputs()

    def run(image: Tensor) -> Tensor:
        try:
            found = session.run([output.name], {pixels.name: np.ascontiguousarray(image.numpy())})[0]
        except Exception as error:  # ONNX Runtime's are of kinds that are none of Python's
            reason = printable(error, most=200)
            if any(text in str(error) for text in _ONNX_OUT_OF_MEMORY):
                raise MemoryError(reason) from error
            raise CheckpointError(f"ONNX Runtime fails at an image ({reason}); export the file again") from error
        return torch.from_numpy(found)

    return run, session.get_modelmeta().custom_metadata_map[RECORD_KEY], 1


_ONNX_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "Failed to allocate memory")


def _open_program(content: bytes) -> tuple[Run, str, int]:
    program, text = load_program(content)
    module = program.module()

    def run(image: Tensor) -> Tensor:
        with torch.inference_mode():
            output: Tensor = module(image)
            return output

    least_side = max(int(bounds.lower) for bounds in program.range_constraints.values())
    return run, text, least_side
