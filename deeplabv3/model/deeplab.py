"""DeepLab V3 and V3+: pixels in, logits out (Chen et al. 2017, arXiv 1706.05587; 2018, arXiv 1802.02611).

Shape letters: N batch, K classes, H and W pixels, S output stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import RESNETS, InferenceConfig, ModelConfig
from deeplabv3.errors import InputError
from deeplabv3.model.aspp import ASPP, ConvBNReLU
from deeplabv3.model.decoder import Decoder
from deeplabv3.model.device import choose_device
from deeplabv3.model.mobilenet import MobileNetV3
from deeplabv3.model.resnet import Features, ResNet

# Mean and standard deviation of ImageNet's pixels in RGB, which all published backbone weights expect.
PIXEL_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
PIXEL_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
BATCH_NORM_EPS = nn.BatchNorm2d(1).eps  # what a config replaces


class DeepLabV3(nn.Module):
    """Atrous backbone, atrous spatial pyramid pooling, a decoder if it is V3+, and a 1x1 classifier.

    Args:
        config: What to build; `config.aspp_rates` and the backbone's rates follow the output stride, so the same
            weights load at any stride (section 4.1: train at 16, evaluate at 8).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("pixel_mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(PIXEL_STD).view(3, 1, 1), persistent=False)
        channels, classes = config.aspp_channels, config.num_classes
        self.backbone = ResNet(config) if config.backbone in RESNETS else MobileNetV3(config)
        self.aspp = ASPP(
            self.backbone.out_channels,
            channels,
            atrous_rates=config.aspp_rates,
            image_pooling=config.image_pooling,
            dropout=config.dropout,
            projection=config.aspp_projection,
            separable=config.aspp_separable,
        )
        self.decoder = None
        if config.decoder != "none":
            assert isinstance(self.backbone, ResNet)  # a configuration has no decoder with another backbone
            self.decoder = Decoder(self.backbone.low_level_channels, config)
        self.classifier = nn.Conv2d(channels, classes, 1)
        self.auxiliary_head = None
        if config.auxiliary_channels:
            self.auxiliary_head = nn.Sequential(
                ConvBNReLU(self.backbone.auxiliary_channels, config.auxiliary_channels, rate=1),
                nn.Dropout(config.dropout),
                nn.Conv2d(config.auxiliary_channels, classes, 1),
            )
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.eps == BATCH_NORM_EPS:
                module.eps = config.batch_norm_eps

    def set_output_stride(self, output_stride: int) -> None:
        """Run on another grid from here on, with the same weights.

        Raises:
            InputError: This network has no such stride.
        """
        config = self.config.at_output_stride(output_stride)
        with torch.device("meta"):
            other = DeepLabV3(config)
        for ours, theirs in zip(self.modules(), other.modules(), strict=True):
            if isinstance(ours, nn.Conv2d) and isinstance(theirs, nn.Conv2d):
                ours.stride, ours.padding, ours.dilation = theirs.stride, theirs.padding, theirs.dilation
        self.config = config

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images of one size.

        Args:
            image: RGB pixels of 0..255, uint8 or float, `(N, 3, H, W)` with any H and W from 1 up.

        Returns:
            Logits at the size of the input, `(N, K, H, W)`, float.

        Raises:
            InputError: The shape is another one, or training is asked of too few pixels for batch normalisation.
        """
        return self._upsampled(self.grid_logits(image), image)  # (N, K, H, W)

    def forward_with_auxiliary(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """`forward`, and the logits of the auxiliary head at the same size, or None without one."""
        features = self._features(image)
        logits = self._upsampled(self._grid_logits(features), image)  # (N, K, H, W)
        if self.auxiliary_head is None:
            return logits, None
        return logits, self._upsampled(self.auxiliary_head(features.auxiliary), image)  # (N, K, H, W)

    def grid_logits(self, image: Tensor) -> Tensor:
        """Logits on the feature grid, before they are brought to the input's size.

        Args and Raises are those of `forward`.

        Returns:
            `(N, K, ceil(H / S), ceil(W / S))`, float; with a decoder, S is 4.
        """
        return self._grid_logits(self._features(image))

    def _features(self, image: Tensor) -> Features:
        self._check(image)
        if image.device.type == "mps":  # see `device.place`
            image = image.contiguous()
        # Without a name of their own, normalised pixels are free once the first convolution has seen them.
        return self.backbone.features((image.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std)

    def _grid_logits(self, features: Features) -> Tensor:
        x = self.aspp(features.last)  # (N, C, ceil(H / S), ceil(W / S))
        if self.decoder is not None:
            assert features.low_level is not None
            x = self.decoder(x, features.low_level)  # (N, C, ceil(H / 4), ceil(W / 4))
        logits: Tensor = self.classifier(x)  # (N, K, h, w)
        return logits

    def _upsampled(self, logits: Tensor, image: Tensor) -> Tensor:
        if logits.dtype.itemsize < 4:  # under autocast: interpolation and softmax need more than 8 bits of mantissa
            logits = logits.float()
        # One plane a class: the loss runs over classes twice as fast, and the bits are those of `upsampled_argmax`.
        logits = logits.contiguous()
        return F.interpolate(
            logits, image.shape[-2:], mode="bilinear", align_corners=self.config.align_corners
        )  # (N, K, H, W)

    def require(self, inference: InferenceConfig) -> None:
        """Refuse what this network is not made ready for.

        Raises:
            InputError: It runs at another output stride, or is on another device; or there is no such device.
        """
        stride, ours = inference.output_stride, self.config.output_stride
        if stride not in (None, ours):
            raise InputError(
                f"output_stride is {stride} and the network runs at {ours}; call set_output_stride({stride})"
            )
        if inference.device != "auto" and choose_device(inference.device) != self.device:
            raise InputError(f"device is {inference.device!r} and the network is on {self.device}; move it there first")

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.pixel_mean.device

    def _check(self, image: Tensor) -> None:
        if torch.compiler.is_exporting():  # a size is a symbol there, and each comparison would become a bound on it
            return
        shape = tuple(image.shape)
        if image.ndim != 4 or shape[1] != 3 or min(shape) < 1:
            raise InputError(f"an image batch of shape {shape} was given; (N, 3, H, W) is needed, RGB of 0..255")
        stride = self.config.output_stride
        grid_values = shape[0] * -(-shape[2] // stride) * -(-shape[3] // stride)
        if self.training and grid_values == 1:
            raise InputError(
                f"training with 1 image of {shape[2]}x{shape[3]} pixels gives batch normalisation a single value a "
                f"channel; raise batch_size to 2, or crop_size above {stride} in one direction"
            )
