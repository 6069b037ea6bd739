"""Atrous spatial pyramid pooling: features seen at several rates and as a whole (Chen et al. 2017, section 3.3).

Shape letters: N batch, C channels, h and w the size of the feature grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBNReLU(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        rate: None for a 1x1 convolution, else the atrous rate of a 3x3 one.
    """

    def __init__(self, in_channels: int, out_channels: int, rate: int | None = None) -> None:
        if rate is None:
            conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        else:
            conv = nn.Conv2d(in_channels, out_channels, 3, padding=rate, dilation=rate, bias=False)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


class SeparableConvBNReLU(nn.Sequential):
    """A 3x3 convolution of each channel by itself, then a 1x1 one; batch normalisation and ReLU after both.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        rate: Atrous rate of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, rate: int = 1) -> None:
        depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False)
        super().__init__(
            depthwise,
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ImagePooling(nn.Module):
    """Image-level features: the mean over the grid, a 1x1 convolution, batch normalisation, ReLU, spread out again.

    The mean is a plain mean and not adaptive pooling: it exports with free sizes and its gradient is deterministic.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, in_channels, h, w)` to `(N, out_channels, h, w)`, the same value all over an image."""
        height, width = x.shape[-2:]
        x = self.conv(x.mean(dim=(2, 3), keepdim=True))  # (N, out_channels, 1, 1)
        # One image is one value a channel, of which there is no variance: it is normalised by the running statistics.
        # Not so where statistics are those of all processes.
        is_one = self.training and x.shape[0] == 1 and isinstance(self.bn, nn.BatchNorm2d)
        x = self._normalise_one(x) if is_one else self.bn(x)
        return F.relu(x, inplace=True).expand(-1, -1, height, width)  # (N, out_channels, h, w)

    def _normalise_one(self, x: Tensor) -> Tensor:
        bn = self.bn
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, training=False, eps=bn.eps)


class ASPP(nn.Module):
    """Parallel branches over one grid, concatenated and projected.

    One 1x1 convolution, a 3x3 atrous convolution per rate, and image pooling; batch normalisation after each.

    Args:
        in_channels: Channels of the features.
        channels: Channels of each branch and of the output.
        atrous_rates: Any number of rates.
        image_pooling: Whether the last branch is there.
        dropout: Share of values dropped behind the projection while training (0.1 in the authors' own code).
        projection: What follows the branches: "1x1", "1x1+3x3" or "3x3".
        separable: Whether the atrous branches are depthwise separable.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        atrous_rates: tuple[int, ...] = (6, 12, 18),
        image_pooling: bool = True,
        dropout: float = 0.1,
        projection: str = "1x1",
        separable: bool = False,
    ) -> None:
        super().__init__()
        branches: list[nn.Module] = [ConvBNReLU(in_channels, channels)]
        branch = SeparableConvBNReLU if separable else ConvBNReLU
        branches += [branch(in_channels, channels, rate) for rate in atrous_rates]
        if image_pooling:
            branches.append(ImagePooling(in_channels, channels))
        self.branches = nn.ModuleList(branches)
        self.project = ConvBNReLU(channels * len(branches), channels, 1 if projection == "3x3" else None)
        self.dropout = nn.Dropout(dropout)
        self.fuse = ConvBNReLU(channels, channels, 1) if projection == "1x1+3x3" else None

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, in_channels, h, w)` to `(N, channels, h, w)`."""
        x = torch.cat([branch(x) for branch in self.branches], dim=1)  # (N, branches * channels, h, w)
        x = self.dropout(self.project(x))  # (N, channels, h, w)
        return x if self.fuse is None else self.fuse(x)
