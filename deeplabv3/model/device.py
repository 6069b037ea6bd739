"""Where the network runs and how precisely."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from deeplabv3.distributed import local_rank, num_processes
from deeplabv3.errors import InputError

Model = TypeVar("Model", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first of CUDA, MPS and CPU that is there.

    An accelerator has its number, as in what its tensors say of themselves.

    Raises:
        InputError: The name is unknown or the device is not there.
    """
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there = ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count())), *there]
    if name in ("auto", "cuda") and there[0] == "cuda":
        shared_out = local_rank() % torch.cuda.device_count()  # each of several processes has its own
        return torch.device("cuda", shared_out if num_processes() > 1 else torch.cuda.current_device())
    if name == "auto":
        name = there[0]
    if name not in there:
        raise InputError(f"device is {name!r}; this machine has {', '.join(there)}")
    return torch.device("mps", 0) if name == "mps" else torch.device(name)


def place(model: Model, device: torch.device) -> Model:
    """Move a model to a device, its weights in the channels-last order that convolutions run fastest in.

    On MPS the order stays: there the gradients of batch norm are wrong in that one (pytorch#175189).
    """
    if device.type == "mps":
        return model.to(device)
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster than float32 there, and not merely possible."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # not in every release of the range
        return False
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def chosen_precision(device: torch.device, precision: str) -> str:
    """What a precision comes to on a device: "auto" is bfloat16 where that `has_native_bfloat16`, else float32."""
    if precision == "auto":
        return "bfloat16" if has_native_bfloat16(device) else "float32"
    return precision


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that `forward` runs in.

    Args:
        device: Where.
        precision: float32, bfloat16, float16 or auto, as of `chosen_precision`.
    """
    chosen = chosen_precision(device, precision)
    return nullcontext() if chosen == "float32" else torch.autocast(device.type, getattr(torch, chosen))
