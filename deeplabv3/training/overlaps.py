"""Losses of one class that look at all its pixels together, each with its derivative by the probabilities.

Args of both: the class's softmax `(N, H, W)`, float; the labelled pixels of the class and all labelled pixels, bool
`(N, H, W)`; how many the class has, an int64 scalar. Returns: the loss, a scalar from 0 to 1, and its derivative,
`(N, H, W)`. Of a class without a pixel they are numbers without a meaning, and finite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def dice_of(probability: Tensor, shown: Tensor, labelled: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """1 - 2 sum(p g) / (sum(p) + sum(g)) over the labelled pixels; g is 1 at the pixels of the class and 0 elsewhere.

    The Dice loss of Milletari et al. 2016 (arXiv 1606.04797, section 3) has squares in the denominator; plain sums are
    what most libraries have since (Sudre et al. 2017, arXiv 1707.03237, section 2). No constant is added: a class that
    is shown has a denominator above 0.
    """
    both = (probability * shown).sum()
    either = ((probability * labelled).sum() + count).clamp(min=1)
    slope = labelled * (2 * both / either**2) - shown * (2 / either)
    return 1 - 2 * both / either, slope


def lovasz_of(probability: Tensor, shown: Tensor, labelled: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The Lovasz extension of the Jaccard loss at the errors |g - p| (Berman et al. 2018, equations 8 and 9).

    With the errors in descending order, each weighs what the Jaccard loss grows by when its pixel is wrong too. The
    growth is written out (1 / U for a pixel of the class, I / (U (U - 1)) for another, where I and U are intersection
    and union after it), because the difference of two neighbouring values loses its digits in float32.
    """
    error = torch.where(shown, 1 - probability, probability).masked_fill_(~labelled, -1)  # ignored ones come last
    error, order = error.flatten().sort(descending=True)
    own = shown.flatten()[order]
    own_before = own.cumsum(0)
    intersection = count - own_before
    union = count + torch.arange(1, len(own) + 1, device=own.device) - own_before
    dtype = probability.dtype
    others = intersection.to(dtype) / union.to(dtype) / (union - 1).clamp_(min=1).to(dtype)
    growth = torch.where(own, 1 / union.to(dtype), others).masked_fill_(error < 0, 0)
    slope = torch.empty_like(growth).scatter_(0, order, torch.where(own, -growth, growth))
    return (error * growth).sum(), slope.view_as(probability)
