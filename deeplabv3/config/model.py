"""What the network is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

from deeplabv3.config.checks import (
    MAX_BRANCHES,
    MAX_CHANNELS,
    MAX_RATE,
    require,
    require_output_stride,
    with_plain_types,
)

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
BACKBONES = (*RESNETS, "mobilenet_v3_large")
STEMS = ("conv7", "deep")
PROJECTIONS = ("1x1", "1x1+3x3", "3x3")
DECODERS = ("none", "conv", "separable")
NUM_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks of the four stages (He et al. 2015, table 1)."""

CONVS_OF_BLOCK = {"resnet18": 2, "resnet34": 2, "resnet50": 1, "resnet101": 1, "resnet152": 1}
"""3x3 convolutions of a residual block."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: atrous ResNet, atrous spatial pyramid pooling, classifier (Chen et al. 2017, sections 3.1 to 3.3).

    Attributes:
        backbone: resnet18, resnet34, resnet50, resnet101, resnet152 or mobilenet_v3_large.
        num_classes: Channels of the logits; taken from the label set when training.
        output_stride: Input size over feature size: 8, 16 or 32. Smaller is finer, slower and needs more memory.
        multi_grid: Unit rates of the last stage's blocks, one a block, multiplied by the stage's rate: [1, 2, 4] at
            output stride 16 gives rates 2, 4, 8. Null is a plain stage.
        width: Channels of the first stage, a multiple of 16; published weights have 64, smaller is faster.
        atrous_rates: Rates of the 3x3 convolutions of ASPP. Null follows the output stride: 6, 12, 18 at 16 and twice
            that at 8.
        aspp_channels: Channels of each ASPP branch and of the projection after them.
        image_pooling: Whether ASPP has the branch of image-level features.
        dropout: Share of the values that are dropped behind the projection of ASPP while training.
        stem: What reads the pixels: conv7, one 7x7 convolution, or deep, three 3x3 ones (ResNet-v1c).
        block_rates: Rates of the 3x3 convolutions of the last two stages, in order, as in [[1, 2, 2, 2, 2, 2],
            [2, 4, 4]]; they belong to the output stride they are given with. Null follows the stride and multi_grid.
        aspp_projection: What follows the branches: 1x1 (the paper), 1x1+3x3 (torchvision) or 3x3 (mmsegmentation).
        aspp_separable: Whether the atrous branches are depthwise separable, as V3+ has them in mmsegmentation.
        decoder: none (V3), or V3+ with one 3x3 convolution (conv) or two depthwise separable ones (separable).
        low_level_channels: Channels that the decoder takes the first stage's features down to.
        auxiliary_channels: Channels of a second classifier on the stage before the last, to help training; 0 is none.
        align_corners: Whether grids are brought to size corner on corner instead of area on area.
        batch_norm_eps: What batch normalisation adds to the variance; mobilenet_v3_large keeps its own 1e-3.
    """

    backbone: str = "resnet101"
    num_classes: int = 19
    output_stride: int = 16
    multi_grid: tuple[int, ...] | None = None
    width: int = 64
    atrous_rates: tuple[int, ...] | None = None
    aspp_channels: int = 256
    image_pooling: bool = True
    dropout: float = 0.0
    stem: str = "conv7"
    block_rates: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    aspp_projection: str = "1x1"
    aspp_separable: bool = False
    decoder: str = "none"
    low_level_channels: int = 48
    auxiliary_channels: int = 0
    align_corners: bool = False
    batch_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require(self.backbone in BACKBONES, "backbone", self.backbone, "choose one of " + ", ".join(BACKBONES))
        require(self.num_classes >= 1, "num_classes", self.num_classes, "at least 1 class is needed")
        require_output_stride(self.output_stride)
        for name in ("num_classes", "width", "aspp_channels", "low_level_channels", "auxiliary_channels"):
            value = getattr(self, name)
            require(value <= MAX_CHANNELS, name, value, f"give at most {MAX_CHANNELS}")
        self._check_rates()
        # torch 2.13 on a CPU writes beyond its memory in the channels-last gradient of a strided 1x1 convolution of 8
        # channels, so nothing narrower than 16 is let in; multiples of 16 are also what the kernels are fast at.
        ok = self.width >= 16 and self.width % 16 == 0
        require(ok, "width", self.width, "give a multiple of 16; 64 is the published width")
        if self.atrous_rates is not None:
            ok = len(self.atrous_rates) <= MAX_BRANCHES and all(1 <= rate <= MAX_RATE for rate in self.atrous_rates)
            allowed = f"each rate is at least 1 and at most {MAX_RATE}, as in [6, 12, 18], and there are few"
            require(ok, "atrous_rates", list(self.atrous_rates), allowed)
        require(self.aspp_channels >= 1, "aspp_channels", self.aspp_channels, "give at least 1; the paper has 256")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "give a share of at least 0 and below 1")
        for name, choices in (("stem", STEMS), ("aspp_projection", PROJECTIONS), ("decoder", DECODERS)):
            value = getattr(self, name)
            require(value in choices, name, value, "choose one of " + ", ".join(choices))
        require(self.low_level_channels >= 1, "low_level_channels", self.low_level_channels, "give at least 1")
        require(self.auxiliary_channels >= 0, "auxiliary_channels", self.auxiliary_channels, "give at least 0")
        require(0 < self.batch_norm_eps < 1, "batch_norm_eps", self.batch_norm_eps, "give a value between 0 and 1")
        if self.backbone not in RESNETS:
            self._check_mobilenet()

    def _check_rates(self) -> None:
        """Refuse rates that do not fit the backbone's blocks."""
        if self.multi_grid is not None:
            require(
                self.backbone in RESNETS, "multi_grid", list(self.multi_grid), f"{self.backbone} has none; leave it"
            )
            blocks = NUM_BLOCKS[self.backbone][-1]
            allowed = (
                f"{self.backbone} has {blocks} blocks in its last stage: give {blocks} rates of at least 1, or null"
            )
            ok = len(self.multi_grid) == blocks and all(1 <= rate <= MAX_RATE for rate in self.multi_grid)
            require(ok, "multi_grid", list(self.multi_grid), allowed)
        if self.block_rates is not None:
            seen = [list(rates) for rates in self.block_rates]
            require(self.backbone in RESNETS, "block_rates", seen, f"{self.backbone} has none; leave it out")
            require(self.multi_grid is None, "block_rates", seen, "it excludes multi_grid; give one of them")
            wanted = [blocks * CONVS_OF_BLOCK[self.backbone] for blocks in NUM_BLOCKS[self.backbone][2:]]
            ok = [len(rates) for rates in seen] == wanted and all(1 <= rate <= MAX_RATE for rate in chain(*seen))
            allowed = f"{self.backbone} takes lists of {wanted[0]} and {wanted[1]} rates of at least 1"
            require(ok, "block_rates", seen, allowed)

    def _check_mobilenet(self) -> None:
        """Refuse what only ResNets have."""
        for name, only in (("width", 64), ("stem", "conv7"), ("decoder", "none")):
            value = getattr(self, name)
            require(value == only, name, value, f"{self.backbone} has {only} alone; leave {name} out")
        ok = self.output_stride in (16, 32)
        require(ok, "output_stride", self.output_stride, f"{self.backbone} has 16 or 32")

    @property
    def aspp_rates(self) -> tuple[int, ...]:
        """The rates that ASPP runs with: `atrous_rates`, or 6, 12, 18 scaled to the output stride (section 3.3)."""
        if self.atrous_rates is not None:
            return self.atrous_rates
        return tuple(rate * 16 // self.output_stride for rate in (6, 12, 18))

    def at_output_stride(self, output_stride: int) -> ModelConfig:
        """The same network on another grid: explicit ASPP rates keep covering the same pixels of the image.

        Raises:
            InputError: The stride is not 8, 16 or 32, or a rate would not be a whole number, or the blocks' rates are
                explicit and belong to another stride.
        """
        require_output_stride(output_stride)
        if self.block_rates is not None and output_stride != self.output_stride:
            allowed = (
                f"the model's block_rates belong to {self.output_stride} alone: leave it out, or give another "
                "project's file to deeplabv3 import with --output-stride"
            )
            require(False, "output_stride", output_stride, allowed)
        rates = self.atrous_rates
        if rates is not None:
            ok = all(rate * self.output_stride % output_stride == 0 for rate in rates)
            allowed = f"the model's atrous_rates {list(rates)} at stride {self.output_stride} become fractions there"
            require(ok, "output_stride", output_stride, allowed)
            rates = tuple(rate * self.output_stride // output_stride for rate in rates)
        return replace(self, output_stride=output_stride, atrous_rates=rates)
