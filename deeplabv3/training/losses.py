"""Losses over logits and label maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from deeplabv3.data.labels import IGNORE_INDEX

AUXILIARY_WEIGHT = 0.4
"""Weight of the auxiliary head in the loss (Zhao et al. 2016, arXiv 1612.01105, section 4.1; mmsegmentation too)."""


def cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored; 0, not NaN, where all are.

    Args:
        logits: `(N, K, H, W)`, float.
        label: trainIds, `(N, H, W)`, any integer type.

    Returns:
        A scalar.
    """
    label = label.long()
    total = F.cross_entropy(logits, label, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (label != IGNORE_INDEX).sum().clamp(min=1)
