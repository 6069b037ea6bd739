"""The checkpoint: one `.safetensors` file that holds all of a run, is written at once or not at all, and is verified.

    tensors     "model/<name>", "optimizer/<name>", and if the run has them "average/<name>",
                "average_state/num_averaged", "scaler/<name>"
    metadata    "format"  "deeplabv3"
                "version" "1"
                "record"  JSON: model, labels, and of a run config, position with its history, versions and more
                "sha256"  over the record and every tensor's name, dtype, shape and bytes, tensors by name

Early releases also stored "random/<device>", which nothing uses any more. There is no pickle in it, so reading one runs
no code. It is written as `files.write_whole` does: after a crash at any moment the target is the old file or the new
one. Whatever is wrong on reading is one `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import CheckpointError, DeviceMemoryError, InputError, NonFiniteError, is_out_of_memory
from deeplabv3.files import is_file, is_there, write_whole
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.unpickling import one_line, shown
from deeplabv3.records import from_record

Kind = TypeVar("Kind")

FORMAT = "deeplabv3"
VERSION = "1"
SUFFIX = ".safetensors"

PARTS = ("model/", "optimizer/", "average/", "average_state/", "scaler/", "random/")
TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
"""What tensors are called and are made of, in all checkpoints of this version of the format."""

_NUMBERS = ("average_state/num_averaged", "scaler/scale", "scaler/growth_tracker")
_PARTS_OF_NUMBERS = ("average_state/", "scaler/")


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
        if not _is_finite(value):
            raise NonFiniteError(f"{name} became NaN or infinite, so nothing was saved; lower the learning rate")
    text = json.dumps(record, allow_nan=False)
    metadata = {"format": FORMAT, "version": VERSION, "record": text, "sha256": digest(stored, text)}
    # safetensors holds three copies for a moment and panics where there is no room for them: asked for here, that is an
    # error. The system gives such memory only where it is written to, so asking costs nothing.
    torch.empty(3 * sum(value.nbytes for value in stored.values()), dtype=torch.uint8)
    return safetensors.torch.save(stored, metadata)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint whole and verify it.

    Its bytes are copied into memory first, all at once: a run that goes on puts another file in its place, and a mapped
    one could still change under its tensors once it is verified.

    Raises:
        CheckpointError: The file is missing, is not a checkpoint of this package, or is damaged.
        DeviceMemoryError: Memory ran out.
    """
    try:
        if not is_file(path):
            odd = "; it is a folder, pipe or device" if is_there(path) else ""
            raise CheckpointError(
                f"there is no checkpoint {path}{odd}; give the path of a {SUFFIX} file that train wrote"
            )
        content = path.read_bytes()
        metadata = _metadata(content)
        _require_ours(path, metadata)
        text = metadata.get("record", "")
        torch.empty(2 * len(content), dtype=torch.uint8)  # as in `encode_checkpoint`
        tensors = safetensors.torch.load(content)
        found = digest(tensors, text)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    except Exception as error:  # the reader raises many kinds for damaged files
        if is_out_of_memory(error):
            raise DeviceMemoryError(f"memory ran out while {path} was read; end other programs") from error
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({one_line(error)}); use another checkpoint"
        ) from error
    if found != metadata.get("sha256"):
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not fit its content; use another checkpoint")
    _require_sound(path, tensors)
    return Checkpoint(path, tensors, _parsed(path, text))


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file, which stand in its header, or a ValueError; {} where it has none."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header is no JSON object")
    return metadata


def _require_ours(path: Path, metadata: Mapping[str, str]) -> None:
    """Refuse a file of another program or of a newer release.

    Raises:
        CheckpointError: It is one.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by deeplabv3; give a checkpoint that train wrote")
    if metadata.get("version") != VERSION:
        seen = shown(metadata.get("version", ""))
        raise CheckpointError(f"{path} has format version '{seen}'; this release reads '{VERSION}': update deeplabv3")


def _require_sound(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse what no run of this package stores, even under a digest that fits.

    Raises:
        CheckpointError: A tensor is of no known part or type, or has a value that is no number.
    """
    for name, value in tensors.items():
        if not name.startswith(PARTS) or (name.startswith(_PARTS_OF_NUMBERS) and name not in _NUMBERS):
            raise CheckpointError(f"{path} holds {shown(name)}, which this release does not know; update deeplabv3")
        if value.dtype not in TYPES:
            raise CheckpointError(f"{path} holds {shown(name)} of {value.dtype}; use a checkpoint that train wrote")
        if not _is_finite(value):
            raise CheckpointError(
                f"{path} has NaN or infinite values in {shown(name)}; use a checkpoint from before that"
            )


def _is_finite(value: Tensor) -> bool:
    # A sum is far faster, and finite only where all are; of large numbers it may not be, and then each is asked.
    return not value.is_floating_point() or bool(value.sum().isfinite()) or bool(value.isfinite().all())


def _parsed(path: Path, text: str) -> dict[str, Any]:
    """The record out of its text.

    Raises:
        CheckpointError: It is no JSON object of numbers and Unicode.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    try:
        record = json.loads(text, parse_constant=refuse)
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()  # half a surrogate, 1e999
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} has a record that is no JSON ({one_line(error)}); use another file") from error
    if not isinstance(record, dict):
        raise CheckpointError(f"{path} has a record that is {short(record)} and no JSON object; use another file")
    return record


def recorded(checkpoint: Checkpoint, name: str, kind: type[Kind]) -> Kind:
    """A value of a checkpoint's record.

    Raises:
        CheckpointError: There is none of that name, or it is of another type.
    """
    if name not in checkpoint.record:
        raise CheckpointError(f"{checkpoint.path} has no record of its {name}; use another file")
    value = checkpoint.record[name]
    if type(value) is not kind:
        raise CheckpointError(f"{checkpoint.path} has a record of its {name} that is {short(value)}; use another file")
    return value


@contextmanager
def using_record(checkpoint: Checkpoint, name: str) -> Iterator[None]:
    """Say of a value that cannot be used which file and which part of its record it comes from.

    Raises:
        CheckpointError: Any InputError within.
    """
    try:
        yield
    except InputError as error:
        text = f"{checkpoint.path} has a record of its {name} that cannot be used: {error}"
        raise CheckpointError(text) from error


def model_from(
    checkpoint: Checkpoint,
    *,
    output_stride: int | None = None,
    build: Callable[[ModelConfig], DeepLabV3] = DeepLabV3,
) -> tuple[DeepLabV3, LabelSet]:
    """Build the model that a checkpoint holds, in evaluation mode, and its label set.

    Args:
        checkpoint: From `read_checkpoint`.
        output_stride: 8, 16 or 32; None keeps the one of training.
        build: Makes the network, or a child of it, whose weights are then replaced.

    Raises:
        CheckpointError: The tensors are not those of the recorded model, or its classes are not those of its labels.
        InputError: The output stride is not possible for this model.
    """
    labels = label_set_of(checkpoint)
    config = model_config_of(checkpoint)
    if config.num_classes != labels.num_classes:
        raise CheckpointError(
            f"{checkpoint.path} has a network of {config.num_classes} classes and labels of {labels.num_classes}; "
            "use another file"
        )
    part = used_weights(checkpoint)
    with torch.random.fork_rng(devices=[]):  # loading a model leaves the caller's random numbers as they were
        with torch.device("meta"):  # no memory for a network that its tensors do not fit
            require_fitting(DeepLabV3(config), checkpoint, part)
        model = build(config if output_stride is None else config.at_output_stride(output_stride))
    load_weights(model, checkpoint, part)
    return model.eval(), labels


def model_config_of(checkpoint: Checkpoint) -> ModelConfig:
    """What the network of a checkpoint is.

    Raises:
        CheckpointError: It does not say, or says what is not possible.
    """
    record = recorded(checkpoint, "model", dict)
    with using_record(checkpoint, "model"):
        return from_record(ModelConfig, record)


def label_set_of(checkpoint: Checkpoint) -> LabelSet:
    """The classes that a checkpoint was trained on.

    Raises:
        CheckpointError: It does not say, or says what is not possible.
    """
    record = recorded(checkpoint, "labels", dict)
    with using_record(checkpoint, "labels"):
        return LabelSet.from_dict(record)


def used_weights(checkpoint: Checkpoint) -> str:
    """The part of a checkpoint that its network is used with: the moving average, if its run kept one."""
    has_average = any(name.startswith(("average/", "average_state/")) for name in checkpoint.tensors)
    return "average/" if has_average else "model/"


def load_weights(model: DeepLabV3, checkpoint: Checkpoint, part: str = "model/") -> None:
    """Copy a part of a checkpoint, weights and batch norm statistics, into a model.

    Raises:
        CheckpointError: Names, shapes or types differ; the message lists which.
    """
    require_fitting(model, checkpoint, part)
    model.load_state_dict(checkpoint.part(part))


def require_fitting(model: DeepLabV3, checkpoint: Checkpoint, part: str = "model/") -> None:
    """Refuse a part of a checkpoint that is not exactly the state of a model.

    Raises:
        CheckpointError: Names, shapes or types differ; the message lists which.
    """
    faults = differences(model.state_dict(), checkpoint.part(part))
    if faults:
        raise CheckpointError(f"{checkpoint.path} belongs to another model: {faults}; give a checkpoint of this one")


def differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, any_type: bool = False) -> str:
    """What keeps `theirs` from being loaded as `ours`, the first three faults in words; "" if nothing does.

    Args:
        ours: What is to be filled.
        theirs: What is to be copied.
        any_type: Other types are no fault: another project's weights are converted on purpose.
    """
    faults = [f"{name} is missing" for name in ours if name not in theirs]
    faults += [f"{shown(name)} is not known" for name in theirs if name not in ours]
    both = [(name, value, theirs[name]) for name, value in ours.items() if name in theirs]
    faults += [
        f"{name} is {tuple(found.shape)} instead of {tuple(value.shape)}"
        for name, value, found in both
        if found.shape != value.shape
    ]
    faults += [
        f"{name} is of {found.dtype} instead of {value.dtype}"
        for name, value, found in both
        if found.dtype != value.dtype and not any_type
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return ", ".join(faults[:3]) + more
