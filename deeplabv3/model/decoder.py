"""The decoder of DeepLab V3+: coarse features joined with fine ones (Chen et al. 2018, arXiv 1802.02611, figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import ModelConfig
from deeplabv3.model.aspp import ConvBNReLU, SeparableConvBNReLU


class Decoder(nn.Module):
    """ASPP's output on the grid of the first stage, refined with that stage's features.

    mmsegmentation refines with two depthwise separable convolutions, VainF with one plain one.

    Args:
        in_channels: Channels of the first stage.
        config: `aspp_channels`, `low_level_channels`, `decoder` and `align_corners` are read.
    """

    def __init__(self, in_channels: int, config: ModelConfig) -> None:
        super().__init__()
        channels, low_level = config.aspp_channels, config.low_level_channels
        self.align_corners = config.align_corners
        self.low_level = ConvBNReLU(in_channels, low_level)
        if config.decoder == "separable":
            self.refine = nn.Sequential(
                SeparableConvBNReLU(channels + low_level, channels), SeparableConvBNReLU(channels, channels)
            )
        else:
            self.refine = nn.Sequential(ConvBNReLU(channels + low_level, channels, 1))

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        """Float `(N, C, h, w)` and `(N, in_channels, H / 4, W / 4)` to `(N, C, H / 4, W / 4)`."""
        x = F.interpolate(x, low_level.shape[-2:], mode="bilinear", align_corners=self.align_corners)  # to H / 4, W / 4
        x = torch.cat([x, self.low_level(low_level)], dim=1)  # (N, C + low_level_channels, H / 4, W / 4)
        refined: Tensor = self.refine(x)  # (N, C, H / 4, W / 4)
        return refined
