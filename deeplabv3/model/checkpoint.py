"""The checkpoint: one `.safetensors` file that holds all of a run, is written at once or not at all, and is verified.

    tensors     "model/<name>", "optimizer/<name>", and if the run has them "average/<name>", "scaler/<name>"
    metadata    "format"  "deeplabv3"
                "version" "1"
                "record"  JSON: model, labels, config, progress, history, versions
                "sha256"  over the record and every tensor's name, dtype, shape and bytes, tensors by name

There is no pickle in it, so reading one runs no code. It is written as `files.write_whole` does: after a crash at any
moment the target is the old file or the new one. Whatever is wrong on reading is one `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import CheckpointError, DeviceMemoryError, NonFiniteError, is_out_of_memory
from deeplabv3.files import write_whole
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.records import from_record

FORMAT = "deeplabv3"
VERSION = "1"
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: The file.
        tensors: By full name, as in "model/classifier.bias".
        record: The JSON part.
    """

    path: Path
    tensors: dict[str, Tensor]
    record: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix` ("model/"), named without it."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}


def digest(tensors: Mapping[str, Tensor], record: str) -> str:
    """SHA-256 in hex over the record and over each tensor's name, dtype, shape and bytes."""
    total = hashlib.sha256(record.encode())
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a checkpoint so that `path` is either untouched or complete; its folder is made if need be.

    Args and Raises are those of `encode_checkpoint`; besides, an OutputError says why the file cannot be written.
    """
    write_whole(path, encode_checkpoint(tensors, record))


def encode_checkpoint(tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint's file.

    Args:
        tensors: Dense tensors on any device.
        record: JSON values.

    Raises:
        NonFiniteError: A value is NaN or infinite.
    """
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    for name, value in stored.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise NonFiniteError(f"{name} became NaN or infinite, so nothing was saved; lower the learning rate")
    text = json.dumps(record, allow_nan=False)
    metadata = {"format": FORMAT, "version": VERSION, "record": text, "sha256": digest(stored, text)}
    # safetensors holds three copies for a moment and panics where there is no room for them: asked for here, that is an
    # error. The system gives such memory only where it is written to, so asking costs nothing.
    torch.empty(3 * sum(value.nbytes for value in stored.values()), dtype=torch.uint8)
    return safetensors.torch.save(stored, metadata)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint whole and verify it.

    Raises:
        CheckpointError: The file is missing, is not a checkpoint of this package, or is damaged.
        DeviceMemoryError: Memory ran out.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; give the path of a {SUFFIX} file that train wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    except Exception as error:  # the reader raises many kinds for damaged files
        if is_out_of_memory(error):
            raise DeviceMemoryError(f"memory ran out while {path} was read; end other programs") from error
        detail = " ".join(str(error).split())
        raise CheckpointError(f"{path} is not a whole safetensors file ({detail}); use another checkpoint") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by deeplabv3; give a checkpoint that train wrote")
    if metadata.get("version") != VERSION:
        seen = metadata.get("version")
        raise CheckpointError(f"{path} has format version {seen!r}; this release reads {VERSION!r}: update deeplabv3")
    text = metadata.get("record", "")
    if digest(tensors, text) != metadata.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not fit its content; use another checkpoint")
    return Checkpoint(path, tensors, json.loads(text))


def model_from(checkpoint: Checkpoint, *, output_stride: int | None = None) -> tuple[DeepLabV3, LabelSet]:
    """Build the model that a checkpoint holds, in evaluation mode, and its label set.

    Args:
        checkpoint: From `read_checkpoint`.
        output_stride: 8, 16 or 32; None keeps the one of training.

    Raises:
        CheckpointError: The tensors are not those of the recorded model.
        InputError: The output stride is not possible for this model.
    """
    labels = label_set_of(checkpoint)
    config = model_config_of(checkpoint)
    if output_stride is not None:
        config = config.at_output_stride(output_stride)
    with torch.random.fork_rng(devices=[]):  # loading a model leaves the caller's random numbers as they were
        model = DeepLabV3(config)
    load_weights(model, checkpoint, used_weights(checkpoint))
    return model.eval(), labels


def model_config_of(checkpoint: Checkpoint) -> ModelConfig:
    """What the network of a checkpoint is.

    Raises:
        CheckpointError: It does not say.
    """
    if "model" not in checkpoint.record:
        raise CheckpointError(f"{checkpoint.path} has no record of its model; use another file")
    return from_record(ModelConfig, checkpoint.record["model"])


def label_set_of(checkpoint: Checkpoint) -> LabelSet:
    """The classes that a checkpoint was trained on.

    Raises:
        CheckpointError: It does not say.
    """
    if "labels" not in checkpoint.record:
        raise CheckpointError(f"{checkpoint.path} has no record of its labels; use another file")
    return LabelSet.from_dict(checkpoint.record["labels"])


def used_weights(checkpoint: Checkpoint) -> str:
    """The part of a checkpoint that its network is used with: the moving average, if its run kept one."""
    return "average/" if checkpoint.part("average/") else "model/"


def load_weights(model: DeepLabV3, checkpoint: Checkpoint, part: str = "model/") -> None:
    """Copy a part of a checkpoint, weights and batch norm statistics, into a model.

    Raises:
        CheckpointError: Names or shapes differ; the message lists which.
    """
    theirs = checkpoint.part(part)
    faults = differences(model.state_dict(), theirs)
    if faults:
        raise CheckpointError(f"{checkpoint.path} belongs to another model: {faults}; give a checkpoint of this one")
    model.load_state_dict(theirs)


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """What keeps `theirs` from being loaded as `ours`, the first three faults in words; "" if nothing does."""
    faults = [f"{name} is missing" for name in ours if name not in theirs]
    faults += [f"{name} is not known" for name in theirs if name not in ours]
    faults += [
        f"{name} is {tuple(theirs[name].shape)} instead of {tuple(value.shape)}"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return ", ".join(faults[:3]) + more
