"""How far an exported file is from the network that it was made from, measured on the file itself.

Shape letters: N batch, K classes, H and W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplabv3.errors import InputError
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.exported import ExportedModel
from deeplabv3.prediction.predictor import WHOLE_FRAME, mean_probabilities

SHAPES = ((1, 65, 97), (3, 129, 257), (2, 96, 64))
"""Batch, height and width of what is looked at: odd sizes, an even one, one image and several."""

MAX_DIFFERENCE = 1e-3
"""Of a probability. Another order of rounding moves it by about 1e-6, a wrong rate or corner by 1e-2 and more."""

MAX_SHARE = 1e-3
"""Of the pixels that get another class, which only those may whose two best classes are closer than rounding."""


@dataclass(frozen=True)
class Parity:
    """What was measured.

    Attributes:
        num_pixels: How many were compared.
        share_differing: Share of them, 0..1, that got another class.
        largest_difference: Of a probability, 0..1. Of a file of labels, which has none, it is what the network's own
            probabilities say: by how much a pixel's best class beats the one that the file chose.
    """

    num_pixels: int
    share_differing: float
    largest_difference: float

    def require_close(self, name: str) -> None:
        """Refuse a file that computes something else.

        Raises:
            InputError: A bound is passed, or a value is no number.
        """
        # Written so that NaN is refused too.
        if self.share_differing <= MAX_SHARE and self.largest_difference <= MAX_DIFFERENCE:
            return
        raise InputError(
            f"{name} would differ from its checkpoint: {self.share_differing:.2%} of the pixels, and probabilities by "
            f"up to {self.largest_difference:.2g}; at most {MAX_SHARE:.1%} and {MAX_DIFFERENCE:g} are allowed, so it "
            "was not written: please report this with the checkpoint's configuration"
        )


@torch.inference_mode()
def compare(model: DeepLabV3, exported: ExportedModel) -> Parity:
    """Both on the same pixels of several shapes.

    Args:
        model: In evaluation mode, on the CPU.
        exported: What was made from it.
    """
    num_pixels = num_differing = 0
    largest = torch.zeros(())
    for place, shape in enumerate(SHAPES):
        image = pixels(*shape, seed=place)
        expected = mean_probabilities(model, image, WHOLE_FRAME)  # (N, K, H, W)
        label = exported.labels(image)  # (N, H, W)
        best = expected.max(1)
        if exported.output == "probabilities":
            differences = (exported.probabilities(image) - expected).abs()
        else:
            differences = best.values - expected.gather(1, label[:, None].long())[:, 0]
        num_pixels += label.numel()
        num_differing += int((label != best.indices).sum())
        largest = torch.maximum(largest, differences.max())  # which keeps NaN
    return Parity(num_pixels, num_differing / num_pixels, float(largest))


def pixels(num_images: int, height: int, width: int, seed: int) -> Tensor:
    """Smooth patches with noise, which move all of a network: uint8 `(N, 3, H, W)`."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand((num_images, 3, 7, 11), generator=generator)
    noise = torch.rand((num_images, 3, height, width), generator=generator)
    image = F.interpolate(patches, (height, width), mode="bicubic") * 200 + noise * 55
    return image.clamp(0, 255).to(torch.uint8)
