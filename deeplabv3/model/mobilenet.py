"""MobileNetV3-Large as a backbone, atrous in its last stage (Howard et al. 2019, arXiv 1905.02244, table 1).

The form whose weights torchvision publishes inside its DeepLab V3. Shape letters as in `resnet.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import ModelConfig
from deeplabv3.model.recompute import through
from deeplabv3.model.resnet import Features

BATCH_NORM_EPS, BATCH_NORM_MOMENTUM = 1e-3, 0.01


class Row(NamedTuple):
    """A row of the paper's table: one inverted residual block."""

    kernel: int
    expanded: int
    out_channels: int
    squeeze: bool
    hard_swish: bool
    stride: int


ROWS = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
STEM_CHANNELS, OUT_CHANNELS = 16, 960
FIRST_ATROUS = 12
"""The row from which on convolutions are atrous at output stride 16."""
AUXILIARY = 4
"""After which module the features are taken that torchvision's auxiliary head reads."""


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, and an activation if one is given."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        rate: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        padding = (kernel - 1) // 2 * rate
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, rate, groups, bias=False)
        norm = nn.BatchNorm2d(out_channels, BATCH_NORM_EPS, BATCH_NORM_MOMENTUM)
        super().__init__(conv, norm, *([] if activation is None else [activation]))


class SqueezeExcitation(nn.Module):
    """Channels weighed by what the whole image shows (Hu et al. 2017, arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _divisible(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, C, h, w)` to the same shape."""
        scale = x.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(scale))))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation if any, projection; a residual where shapes agree."""

    def __init__(self, in_channels: int, row: Row, *, stride: int, rate: int) -> None:
        super().__init__()

        def activation() -> nn.Module:
            return nn.Hardswish() if row.hard_swish else nn.ReLU()

        layers: list[nn.Module] = []
        if row.expanded != in_channels:
            layers.append(ConvNormAct(in_channels, row.expanded, activation=activation()))
        layers.append(
            ConvNormAct(
                row.expanded,
                row.expanded,
                row.kernel,
                stride=stride,
                rate=rate,
                groups=row.expanded,
                activation=activation(),
            )
        )
        if row.squeeze:
            layers.append(SqueezeExcitation(row.expanded))
        layers.append(ConvNormAct(row.expanded, row.out_channels))
        self.block = nn.Sequential(*layers)
        self.has_residual = row.stride == 1 and in_channels == row.out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, in_channels, h, w)` to `(N, out_channels, ceil(h / stride), ceil(w / stride))`."""
        y: Tensor = self.block(x)
        return x + y if self.has_residual else y


class MobileNetV3(nn.Sequential):
    """The features of MobileNetV3-Large, with parameters named as torchvision names them.

    Args:
        config: `output_stride` is read: 32, or 16, where the last stage's depthwise convolutions have rate 2; and
            `auxiliary_channels`, whether the auxiliary features are kept.

    Attributes:
        out_channels: Channels of the features.
        auxiliary_channels: Channels of the features that torchvision's auxiliary head reads.
        recompute: Whether layers are computed again on the way back, to save memory.
    """

    def __init__(self, config: ModelConfig) -> None:
        layers: list[nn.Module] = [ConvNormAct(3, STEM_CHANNELS, 3, stride=2, activation=nn.Hardswish())]
        channels = STEM_CHANNELS
        for place, row in enumerate(ROWS):
            rate = 2 if place >= FIRST_ATROUS and config.output_stride == 16 else 1
            # The first atrous block takes the new rate although it reads the grid of the stage before, as published.
            stride = 1 if rate > 1 else row.stride
            layers.append(InvertedResidual(channels, row, stride=stride, rate=rate))
            channels = row.out_channels
        layers.append(ConvNormAct(channels, OUT_CHANNELS, activation=nn.Hardswish()))
        super().__init__(*layers)
        self.out_channels = OUT_CHANNELS
        self.recompute = False
        self.keeps_auxiliary = config.auxiliary_channels > 0
        self.auxiliary_channels = ROWS[AUXILIARY - 1].out_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def features(self, x: Tensor) -> Features:
        """Normalised float pixels `(N, 3, H, W)` to features, the last ones `(N, 960, ceil(H / S), ceil(W / S))`."""
        auxiliary = None
        for place, layer in enumerate(self):
            x = through(layer, x, recompute=self.recompute)
            if place == AUXILIARY and self.keeps_auxiliary:
                auxiliary = x  # (N, 40, ceil(H / 8), ceil(W / 8))
        return Features(None, auxiliary, x)


def _divisible(channels: int) -> int:
    """The nearest multiple of 8 that is at least nine tenths of `channels`."""
    nearest = max(8, (channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
