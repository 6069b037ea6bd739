"""What the network is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from deeplabv3.config.checks import require, require_output_stride

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
NUM_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
"""Residual blocks of the four stages (He et al. 2015, table 1)."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network: atrous ResNet, atrous spatial pyramid pooling, classifier (Chen et al. 2017, sections 3.1 to 3.3).

    Attributes:
        backbone: resnet18, resnet34, resnet50, resnet101 or resnet152.
        num_classes: Channels of the logits; taken from the label set when training.
        output_stride: Input size over feature size: 8, 16 or 32. Smaller is finer, slower and needs more memory.
        multi_grid: Unit rates of the last stage's blocks, one a block, multiplied by the stage's rate: [1, 2, 4] at
            output stride 16 gives rates 2, 4, 8. Null is a plain stage.
        width: Channels of the first stage, a multiple of 16; published weights have 64, smaller is faster.
        atrous_rates: Rates of the 3x3 convolutions of ASPP. Null follows the output stride: 6, 12, 18 at 16 and twice
            that at 8.
        aspp_channels: Channels of each ASPP branch and of the projection after them.
        image_pooling: Whether ASPP has the branch of image-level features.
        dropout: Share of channels' values dropped before the classifier while training.
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

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible.
        """
        require(self.backbone in BACKBONES, "backbone", self.backbone, "choose one of " + ", ".join(BACKBONES))
        require(self.num_classes >= 1, "num_classes", self.num_classes, "at least 1 class is needed")
        require_output_stride(self.output_stride)
        if self.multi_grid is not None:
            blocks = NUM_BLOCKS[self.backbone][-1]
            allowed = (
                f"{self.backbone} has {blocks} blocks in its last stage: give {blocks} rates of at least 1, or null"
            )
            ok = len(self.multi_grid) == blocks and min(self.multi_grid) >= 1
            require(ok, "multi_grid", list(self.multi_grid), allowed)
        # torch 2.13 on a CPU writes beyond its memory in the channels-last gradient of a strided 1x1 convolution of 8
        # channels, so nothing narrower than 16 is let in; multiples of 16 are also what the kernels are fast at.
        ok = self.width >= 16 and self.width % 16 == 0
        require(ok, "width", self.width, "give a multiple of 16; 64 is the published width")
        if self.atrous_rates is not None:
            ok = all(rate >= 1 for rate in self.atrous_rates)
            require(ok, "atrous_rates", list(self.atrous_rates), "each rate is at least 1, as in [6, 12, 18]")
        require(self.aspp_channels >= 1, "aspp_channels", self.aspp_channels, "give at least 1; the paper has 256")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "give a share of at least 0 and below 1")

    @property
    def aspp_rates(self) -> tuple[int, ...]:
        """The rates that ASPP runs with: `atrous_rates`, or 6, 12, 18 scaled to the output stride (section 3.3)."""
        if self.atrous_rates is not None:
            return self.atrous_rates
        return tuple(rate * 16 // self.output_stride for rate in (6, 12, 18))

    def at_output_stride(self, output_stride: int) -> ModelConfig:
        """The same network on another grid: explicit ASPP rates keep covering the same pixels of the image.

        Raises:
            InputError: The stride is not 8, 16 or 32, or a rate would not be a whole number.
        """
        require_output_stride(output_stride)
        rates = self.atrous_rates
        if rates is not None:
            ok = all(rate * self.output_stride % output_stride == 0 for rate in rates)
            allowed = f"the model's atrous_rates {list(rates)} at stride {self.output_stride} become fractions there"
            require(ok, "output_stride", output_stride, allowed)
            rates = tuple(rate * self.output_stride // output_stride for rate in rates)
        return replace(self, output_stride=output_stride, atrous_rates=rates)
