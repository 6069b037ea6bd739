"""Which pixels the cross-entropy is taken of: the hardest (online hard example mining)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplabv3.config import LossConfig


def kept_pixels(cross_entropy: Tensor, labelled: Tensor, config: LossConfig) -> Tensor:
    """The pixels that are hard enough.

    With a share, exactly that share of the batch's labelled pixels, rounded, and at least one. (detectron2 and deeplab2
    take the share of all pixels, ignored ones too.) With a threshold, the pixels whose own class is less probable, and
    at least the hardest `ohem_min_kept` times the images, if so many are labelled; this is mmsegmentation's rule. Among
    equally hard pixels at the border, the first are taken.

    Args:
        cross_entropy: Of each pixel, `(N, H, W)`, float.
        labelled: Which are not ignored, bool `(N, H, W)`.
        config: The rule; one of share and threshold is given.

    Returns:
        bool `(N, H, W)`.
    """
    if config.ohem_threshold is None:
        # In whole numbers and on the device: float32 counts no further than 2 ** 24, and the host would have to wait.
        num_kept = (labelled.sum() * round(config.ohem_share * 10**6) + 500_000) // 10**6
        return _hardest(cross_entropy, labelled, num_kept.clamp(min=1))
    hard = cross_entropy > -math.log(config.ohem_threshold)
    return (hard & labelled) | _hardest(cross_entropy, labelled, config.ohem_min_kept * len(cross_entropy))


def _hardest(cross_entropy: Tensor, labelled: Tensor, num_kept: Tensor | int) -> Tensor:
    """The labelled pixels of the highest cross-entropy, so many at most."""
    hardness = cross_entropy.masked_fill(~labelled, -1).flatten()  # after all others: a cross-entropy is at least 0
    order = hardness.sort(descending=True, stable=True).indices
    taken = torch.arange(len(order), device=order.device) < num_kept
    kept = torch.zeros_like(taken).scatter_(0, order, taken)
    return kept.view_as(labelled) & labelled
