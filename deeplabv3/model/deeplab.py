"""DeepLab V3: pixels in, logits out (Chen et al. 2017, arXiv 1706.05587).

Shape letters: N batch, K classes, H and W pixels, S output stride.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import ModelConfig
from deeplabv3.errors import InputError
from deeplabv3.model.aspp import ASPP
from deeplabv3.model.resnet import ResNet

# Mean and standard deviation of ImageNet's pixels in RGB, which all published backbone weights expect.
PIXEL_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
PIXEL_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)


class DeepLabV3(nn.Module):
    """Atrous ResNet, atrous spatial pyramid pooling and a 1x1 classifier.

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
        self.backbone = ResNet(config)
        self.aspp = ASPP(
            self.backbone.out_channels,
            config.aspp_channels,
            atrous_rates=config.aspp_rates,
            image_pooling=config.image_pooling,
            dropout=config.dropout,
        )
        self.classifier = nn.Conv2d(config.aspp_channels, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images of one size.

        Args:
            image: RGB pixels of 0..255, uint8 or float, `(N, 3, H, W)` with any H and W from 1 up.

        Returns:
            Logits at the size of the input, `(N, K, H, W)`, float.

        Raises:
            InputError: The shape is another one, or training is asked of too few pixels for batch normalisation.
        """
        logits = self.grid_logits(image)  # (N, K, ceil(H / S), ceil(W / S))
        if logits.dtype.itemsize < 4:  # under autocast: interpolation and softmax need more than 8 bits of mantissa
            logits = logits.float()
        # One plane a class: the loss runs over classes twice as fast, and the bits are those of `upsampled_argmax`.
        logits = logits.contiguous()
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=False)  # (N, K, H, W)

    def grid_logits(self, image: Tensor) -> Tensor:
        """Logits on the feature grid, before they are brought to the input's size.

        Args and Raises are those of `forward`.

        Returns:
            `(N, K, ceil(H / S), ceil(W / S))`, float.
        """
        self._check(image)
        x = (image.to(self.pixel_mean.dtype) - self.pixel_mean) / self.pixel_std  # (N, 3, H, W)
        features = self.backbone(x)  # (N, C, ceil(H / S), ceil(W / S))
        logits: Tensor = self.classifier(self.aspp(features))  # (N, K, ceil(H / S), ceil(W / S))
        return logits

    def _check(self, image: Tensor) -> None:
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
