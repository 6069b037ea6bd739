"""Batches, and the memory in which other processes make them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.errors import InputError, printable

_SHARED_DIR = Path("/dev/shm")  # where Linux keeps memory that processes share


@dataclass(frozen=True)
class Batch:
    """Frames of one size.

    Attributes:
        image: uint8 `(N, 3, H, W)`.
        label: trainIds, uint8 `(N, H, W)`.
        names: The frames' names.
        color: What `photometric.recolored` changes the images by, float32 `(N, 3, 4)`; None if nothing.
        num_labelled: How many pixels are not ignored.
    """

    image: Tensor
    label: Tensor
    names: tuple[str, ...]
    color: Tensor | None = None
    num_labelled: int = field(init=False)

    def __post_init__(self) -> None:
        """Count here, in the thread that receives batches, so that no step waits; torch takes 20 times as long."""
        object.__setattr__(self, "num_labelled", int(np.count_nonzero(self.label.cpu().numpy() != IGNORE_INDEX)))


class SharedBatches:
    """Memory for some batches that the processes of a run share; made once, and used again and again.

    To send each batch in memory of its own takes longer than to make it: the system clears every page of it.

    Args:
        num_batches: How many batches it holds.
        batch_size: N of each.
        crop_size: H and W of each.

    Raises:
        InputError: The system has less memory to share.
    """

    def __init__(self, num_batches: int, batch_size: int, crop_size: tuple[int, int]) -> None:
        shape = (num_batches, batch_size, *crop_size)
        needed = 4 * num_batches * batch_size * crop_size[0] * crop_size[1]
        if _SHARED_DIR.is_dir() and shutil.disk_usage(_SHARED_DIR).free < needed:
            raise _too_large(needed)
        self.images = torch.empty((*shape, 3), dtype=torch.uint8)  # (B, N, H, W, 3)
        self.labels = torch.empty(shape, dtype=torch.uint8)  # (B, N, H, W)
        for part in (self.images, self.labels):
            try:
                part.share_memory_()  # type: ignore[no-untyped-call]  # torch does not annotate it
            except RuntimeError as error:
                if "No space left" in str(error):  # another process of this machine took what was free
                    raise _too_large(needed) from error
                cause = printable(error)
                raise InputError(
                    f"no memory can be shared ({cause}); give --num-workers 0, which needs none"
                ) from error

    def copied(self, place: int, *, pin_memory: bool) -> tuple[Tensor, Tensor]:
        """The images, uint8 `(N, H, W, 3)`, and labels, uint8 `(N, H, W)`, of a batch, in memory of their own.

        Args:
            place: Where it is.
            pin_memory: Whether that memory is page-locked, so that an accelerator copies from it without waiting.
        """
        image, label = (
            torch.empty(part.shape[1:], dtype=torch.uint8, pin_memory=pin_memory).copy_(part[place])
            for part in (self.images, self.labels)
        )
        return image, label


def _too_large(needed: int) -> InputError:
    free = shutil.disk_usage(_SHARED_DIR).free
    return InputError(
        f"{_SHARED_DIR} has {free:,} bytes free and the processes that read images share {needed:,}; give "
        "fewer --num-workers (0 needs none), or the container more (docker run --shm-size)"
    )
