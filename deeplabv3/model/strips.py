"""The fine part of a backbone in horizontal strips, so that its large maps never stand whole in memory.

At a half and a quarter of the frame's resolution a ResNet's maps are the largest of the network: 134 MB each for 256
channels of 1024x2048 pixels. What a pixel of a result depends on lies within the receptive radius around it. A strip
that begins and ends that much further out, its halo, therefore has the values of the whole frame in its middle; the
zeros that its convolutions are padded with reach the halo alone, which is cut off.

Shape letters: N batch, C channels, H and W pixels, h and w the size of a grid.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

STRIP_PIXELS = 1 << 19
"""The most pixels of a frame that are computed as one: a 1024x2048 frame is four strips."""


class Strip(NamedTuple):
    """Rows of a frame.

    Attributes:
        first: The first row whose results are kept, a multiple of the stride.
        last: The row behind the last one whose results are kept.
        top: The first row that is computed, a multiple of the stride.
        bottom: The row behind the last one that is computed.
    """

    first: int
    last: int
    top: int
    bottom: int


def needs_strips(x: Tensor) -> bool:
    """Whether a frame, float `(N, C, H, W)`, is computed in strips.

    That depends on the frame alone and not on how many there are. Where a gradient is wanted, each map is kept anyway.
    An accelerator has memory of its own and starts each step at a price. A graph that is traced serves any size.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return x.shape[2] * x.shape[3] > STRIP_PIXELS


def in_strips(
    part: Callable[[Tensor], tuple[Tensor, ...]], x: Tensor, *, layers: Iterable[nn.Module], strides: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """`part(x)`, computed strip by strip; equal but for the rounding of sums whose order follows from the size.

    Args:
        part: Made of convolutions, pooling and what treats each pixel by itself. Each result is `(N, C, h, w)`.
        x: `(N, C, H, W)`.
        layers: The modules of the part, in the order in which they are applied.
        strides: H / h of each result, rounded; each divides the last.
    """
    height, width = x.shape[2:]
    stride, radius = strides[-1], receptive_radius(layers)
    rows = max(STRIP_PIXELS // width, 2 * radius)  # narrower strips would be halo for the most part
    whole: list[Tensor] = []
    for strip in strips(height, rows=rows, stride=stride, radius=radius):
        results = part(x[:, :, strip.top : strip.bottom])
        if not whole:
            whole = [_empty(result, -(-height // step)) for result, step in zip(results, strides, strict=True)]
        for target, result, step in zip(whole, results, strides, strict=True):
            first, last, top = strip.first // step, -(-strip.last // step), strip.top // step
            target[:, :, first:last] = result[:, :, first - top : last - top]
        del results, result
        give_back()
    return tuple(whole)


def strips(height: int, *, rows: int, stride: int, radius: int) -> Iterator[Strip]:
    """The strips of a frame, of about equal height, from top to bottom.

    Args:
        height: Of the frame.
        rows: The most that a strip keeps, at least `stride`.
        stride: Strips begin at its multiples, so that their grids are parts of the frame's.
        radius: How many rows around the one below a grid point its value depends on.
    """
    num_strips = -(-height // (rows // stride * stride))
    step = -(-height // (num_strips * stride)) * stride
    halo = -(-radius // stride) * stride
    for first in range(0, height, step):
        last = min(first + step, height)
        # The last grid point of a strip is that of the row `last - stride`, unless the frame ends before.
        bottom = height if last == height else min(last - stride + radius + 1, height)
        yield Strip(first, last, max(0, first - halo), bottom)


def receptive_radius(layers: Iterable[nn.Module]) -> int:
    """How many pixels up or down a grid point's value depends on, around the one that it stands for.

    Args:
        layers: Modules in the order in which they are applied. A 1x1 convolution adds nothing: those with a stride are
            the shortcuts beside a 3x3 one that has it too.
    """
    radius, stride = 0, 1
    for module in (module for layer in layers for module in layer.modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1:
            radius += module.kernel_size[0] // 2 * module.dilation[0] * stride
            stride *= module.stride[0]
        elif isinstance(module, nn.MaxPool2d):
            radius += int(module.kernel_size) // 2 * stride  # type: ignore[arg-type]
            stride *= int(module.stride)  # type: ignore[arg-type]
    return radius


def give_back() -> None:
    """Give memory that is free back to the system, where the C library is glibc; elsewhere nothing happens.

    glibc keeps freed maps of up to 32 MB, and those of strips, of many sizes, leave gaps that few later ones fit into.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, TypeError):  # another C library; Windows
        return
    trim(0)


def _empty(strip: Tensor, rows: int) -> Tensor:
    """Room for all rows of a result, in the order in which the strip lies in memory."""
    channels_last = strip.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if channels_last else torch.contiguous_format
    num, channels, _, width = strip.shape
    return torch.empty((num, channels, rows, width), dtype=strip.dtype, memory_format=order)
