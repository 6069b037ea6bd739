"""Atrous ResNet: the backbone of DeepLab V3, from pixels to features at any output stride.

ResNet of He et al. 2015 (arXiv 1512.03385) in the form whose weights torchvision publishes: the stride sits in the
3x3 convolution of a bottleneck. A stage whose stride is removed runs on the finer grid, so its 3x3 convolutions
become atrous (Chen et al. 2017, section 3.1), and the same weights compute the same function on a denser grid.

Shape letters: N batch, H and W pixels, S output stride, C channels, h and w the size of a grid.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import CONVS_OF_BLOCK, NUM_BLOCKS, ModelConfig
from deeplabv3.model.recompute import through
from deeplabv3.model.strips import give_back, in_strips, needs_strips

BlockRates = tuple[int, int]
"""Rate of a block's strided 3x3 convolution, and of a 3x3 convolution behind it (only `BasicBlock` has one)."""


def stage_rates(config: ModelConfig) -> tuple[tuple[BlockRates, ...], ...]:
    """Atrous rates of every block of the four stages.

    Without `multi_grid`, the strided convolution in the first block of a stage whose stride was removed still reads
    the grid of the stage before it, so it keeps that stage's rate, and everything behind it takes the new one. Then
    features at output stride 8, subsampled, equal those at 16, and those at 16 equal those at 32. torchvision and
    deeplab2 do the same; mmsegmentation and detectron2 do not.

    With `multi_grid`, each block of the last stage has the stage's rate times its unit rate (section 3.2.1: output
    stride 16 and (1, 2, 4) give 2, 4, 8). Features at 8, subsampled, still equal those at 16; at 32 they differ.

    `block_rates` says it all for the last two stages; then nothing else is asked.

    Returns:
        For each stage a tuple of `(rate of the first 3x3, rate of the second 3x3)`, one a block.
    """
    rates: list[tuple[BlockRates, ...]] = []
    before = 1
    for stage, num_blocks in enumerate(NUM_BLOCKS[config.backbone]):
        natural_stride = 4 << stage
        rate = max(1, natural_stride // config.output_stride)
        if stage == 3 and config.multi_grid is not None:
            rates.append(tuple((rate * unit, rate * unit) for unit in config.multi_grid))
        else:
            rates.append(((before, rate), *[(rate, rate)] * (num_blocks - 1)))
        before = rate
    if config.block_rates is not None:
        step = CONVS_OF_BLOCK[config.backbone]
        explicit = [
            tuple((stage[start], stage[start + step - 1]) for start in range(0, len(stage), step))
            for stage in config.block_rates
        ]
        rates[2:] = explicit
    return tuple(rates)


def conv3x3(in_channels: int, out_channels: int, *, stride: int = 1, rate: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps the grid's size at stride 1, whatever its atrous rate."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=rate, dilation=rate, bias=False)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The 1x1 projection of a residual whose shape changes, or None where it is the identity."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual: the block of ResNet-18 and 34.

    Args:
        in_channels: Channels of the input.
        channels: Channels inside; the output has as many.
        stride: Of the first convolution.
        rates: Atrous rates of the two convolutions.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, rates: BlockRates = (1, 1)) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride=stride, rate=rates[0])
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, rate=rates[1])
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, in_channels, h, w)` to `(N, channels, ceil(h / stride), ceil(w / stride))`."""
        residual = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, channels, h / stride, w / stride)
        x = self.bn2(self.conv2(x))
        return F.relu(x.add_(residual), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a residual: the block of ResNet-50, 101 and 152.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the 3x3 convolution; the output has four times as many.
        stride: Of the 3x3 convolution.
        rates: Atrous rate of the 3x3 convolution; the second value is not used here.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, rates: BlockRates = (1, 1)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride=stride, rate=rates[0])
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)
        self.downsample = shortcut(in_channels, channels * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, in_channels, h, w)` to `(N, 4 * channels, ceil(h / stride), ceil(w / stride))`."""
        residual = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, channels, h, w)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)  # (N, channels, h / stride, w / stride)
        x = self.bn3(self.conv3(x))  # (N, 4 * channels, h / stride, w / stride)
        return F.relu(x.add_(residual), inplace=True)


class Features(NamedTuple):
    """What a backbone hands on, each float `(N, C, h, w)`.

    Attributes:
        low_level: After the first stage, at stride 4; None where no decoder reads it.
        auxiliary: After the stage before the last; None where no auxiliary head reads it.
        last: After the last stage, at the output stride.
    """

    low_level: Tensor | None
    auxiliary: Tensor | None
    last: Tensor


class DeepStem(nn.Sequential):
    """Three 3x3 convolutions in place of the 7x7 one (He et al. 2018, arXiv 1812.01187, "ResNet-C").

    Args:
        channels: Of the output; the first two convolutions have half as many.
    """

    def __init__(self, channels: int) -> None:
        layers: list[nn.Module] = []
        for in_channels, out_channels, stride in (
            (3, channels // 2, 2),
            (channels // 2, channels // 2, 1),
            (channels // 2, channels, 1),
        ):
            layers += [conv3x3(in_channels, out_channels, stride=stride), nn.BatchNorm2d(out_channels)]
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class ResNet(nn.Module):
    """The four stages of a ResNet without its classifier, with parameters named as torchvision names them.

    Args:
        config: `backbone`, `output_stride`, `multi_grid`, `block_rates`, `stem` and `width` are read; `decoder` and
            `auxiliary_channels` say which features are kept.

    Attributes:
        out_channels: Channels of the features.
        low_level_channels: Channels after the first stage.
        auxiliary_channels: Channels after the stage before the last.
        recompute: Whether blocks are computed again on the way back, to save memory.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        block = BasicBlock if config.backbone in ("resnet18", "resnet34") else Bottleneck
        if config.stem == "deep":
            self.stem = DeepStem(config.width)
        else:
            self.conv1 = nn.Conv2d(3, config.width, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(config.width)
        self.is_deep = config.stem == "deep"
        self.recompute = False
        self.keeps_low_level, self.keeps_auxiliary = config.decoder != "none", config.auxiliary_channels > 0
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels, stages = config.width, []
        for stage, rates in enumerate(stage_rates(config)):
            channels = config.width << stage
            stride = 2 if stage > 0 and 4 << stage <= config.output_stride else 1
            blocks = []
            for block_rates in rates:
                blocks.append(block(in_channels, channels, stride=stride, rates=block_rates))
                in_channels, stride = channels * block.expansion, 1
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.out_channels, self.auxiliary_channels = in_channels, in_channels // 2
        self.low_level_channels = in_channels // 8
        self._initialise()

    def _initialise(self) -> None:
        """He initialisation of all convolutions (He et al. 2015, arXiv 1502.01852), as torchvision does it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def extra_repr(self) -> str:
        """The atrous rates that the blocks really have."""
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return "rates=" + " | ".join(" ".join(str(_first_rate(block)) for block in stage) for stage in stages)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised float pixels to features.

        Args:
            x: `(N, 3, H, W)`.

        Returns:
            `(N, out_channels, ceil(H / S), ceil(W / S))`.
        """
        return self.features(x).last

    def features(self, x: Tensor) -> Features:
        """`forward`, and what the network computes on the way."""
        striped = not self.training and needs_strips(x)
        if not striped:
            maps = self._fine(x)
        else:
            stem = (self.stem,) if self.is_deep else (self.conv1,)
            layers = (*stem, self.maxpool, self.layer1, self.layer2)
            maps = in_strips(self._fine, x, layers=layers, strides=(4, 8) if self.keeps_low_level else (8,))
        low_level, x = maps[0] if self.keeps_low_level else None, maps[-1]  # (N, C / 8, H / 4, W / 4)
        del maps
        for block in self.layer3:
            x = through(block, x, recompute=self.recompute)  # (N, C / 2, h, w)
        auxiliary = x if self.keeps_auxiliary else None
        if striped:
            give_back()  # the last stage has the largest maps behind the strips
        for block in self.layer4:
            x = through(block, x, recompute=self.recompute)  # (N, C, H / S, W / S)
        return Features(low_level, auxiliary, x)

    def _fine(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pixels to what the second stage makes of them, behind what the first one does if that is kept."""
        # All by one name, so that a map is free as soon as the next one is there.
        x = self.stem(x) if self.is_deep else F.relu(self.bn1(self.conv1(x)), inplace=True)  # (N, width, H / 2, W / 2)
        x = self.maxpool(x)  # (N, width, H / 4, W / 4)
        for block in self.layer1:
            x = through(block, x, recompute=self.recompute)  # (N, C / 8, H / 4, W / 4)
        kept = (x,) if self.keeps_low_level else ()
        for block in self.layer2:
            x = through(block, x, recompute=self.recompute)  # (N, C / 4, H / 8, W / 8)
        return (*kept, x)


def _first_rate(block: nn.Module) -> int:
    """The rate of a block's first 3x3 convolution."""
    convs = (module for module in block.modules() if isinstance(module, nn.Conv2d))
    return next(conv.dilation[0] for conv in convs if conv.kernel_size == (3, 3))
