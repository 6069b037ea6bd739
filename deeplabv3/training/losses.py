"""Losses over logits and label maps.

A loss and its gradient are made together, a class at a time, from a few planes of one value a pixel: the softmax of a
class is the exponential of its logits less two planes. So nothing of the logits' size is made but their gradient, where
torch's cross-entropy keeps the logarithm of the softmax and makes two more on the way back (docs/training.md).

Shape letters: N images, K classes, H and W pixels. A plane is `(N, H, W)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeplabv3.config import LossConfig
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.data.sampling import ClassPixels
from deeplabv3.training.mining import kept_pixels
from deeplabv3.training.overlaps import dice_of, lovasz_of


def loss_of(
    logits: Tensor,
    auxiliary: Tensor | None,
    label: Tensor,
    config: LossConfig,
    class_weights: Tensor | None = None,
) -> Tensor:
    """What a training step minimises. 0 with a gradient of 0 where all pixels are ignored.

    Args:
        logits: `(N, K, H, W)`, float; narrower than float32 is computed in float32.
        auxiliary: Those of the auxiliary head, or None.
        label: trainIds or `IGNORE_INDEX`, `(N, H, W)`, any integer type.
        config: Which loss.
        class_weights: `(K,)`, at least 0, from `class_weights_of`; None weighs all alike.

    Returns:
        A scalar. Its gradient can be had once: the memory of the first is used for the last.
    """
    pixels = Pixels.of(logits, label)
    weights = pixel_weights(pixels, config, class_weights)
    loss = _loss(logits, pixels, weights, config.dice_weight, config.lovasz_weight)
    if auxiliary is not None:
        loss = loss + config.auxiliary_weight * cross_entropy(auxiliary, label, class_weights)
    return loss


def cross_entropy(logits: Tensor, label: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels that are not ignored, each with the weight of its class.

    Args and Returns are those of `loss_of`.
    """
    return loss_of(logits, None, label, LossConfig(), class_weights)


def class_weights_of(config: LossConfig, class_pixels: ClassPixels | None, device: torch.device) -> Tensor | None:
    """The weights of the classes, float32 `(K,)` on `device`, or None where all weigh alike.

    `counts` is ENet's formula (Paszke et al. 2016, arXiv 1606.02147, section 5.2): from 1.42 for a class that is all
    there is to 50.5 for one that never occurs.

    Args:
        config: `class_weights` matters.
        class_pixels: What the training frames show; needed for `counts`.
        device: Where they are used.
    """
    weights = config.class_weights
    if weights is None:
        return None
    if weights == "counts":
        assert class_pixels is not None
        pixels = class_pixels.sum(0)
        return torch.from_numpy(1 / np.log(1.02 + pixels / max(1, pixels.sum()))).float().to(device)
    return torch.tensor(weights, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class Pixels:
    """A batch as the losses look at it.

    Attributes:
        logits: `(N, K, H, W)`, float32 or wider, without a gradient.
        label: trainIds, int64 plane; 0 where a pixel is ignored.
        labelled: bool plane: what is not ignored.
        highest: Plane of the highest logit.
        log_total: Plane of the logarithm of the sum of exp(logit - highest).
    """

    logits: Tensor
    label: Tensor
    labelled: Tensor
    highest: Tensor
    log_total: Tensor

    @classmethod
    def of(cls, logits: Tensor, label: Tensor) -> Pixels:
        """Look at the logits once."""
        logits = _wide(logits.detach())
        labelled = label != IGNORE_INDEX
        highest = logits.amax(1)
        total = torch.zeros_like(highest)
        for one in logits.unbind(1):
            total += (one - highest).exp_()
        return cls(logits, label.long().masked_fill(~labelled, 0), labelled, highest, total.log_())

    def probability(self, train_id: int) -> Tensor:
        """Plane of the softmax of one class."""
        return (self.logits[:, train_id] - self.highest).sub_(self.log_total).exp_()

    def shows(self, train_id: int) -> Tensor:
        """Bool plane: the labelled pixels of one class."""
        return (self.label == train_id) & self.labelled

    def cross_entropy(self) -> Tensor:
        """Plane of the cross-entropy; 0 where a pixel is ignored."""
        own = self.logits.gather(1, self.label[:, None])[:, 0]
        return (self.highest - own).add_(self.log_total).masked_fill_(~self.labelled, 0)

    def counts(self) -> Tensor:
        """Labelled pixels of each class, int64 `(K,)`."""
        counts = torch.zeros(self.logits.shape[1], dtype=torch.int64, device=self.logits.device)
        return counts.scatter_add_(0, self.label.flatten(), self.labelled.flatten().long())


def pixel_weights(pixels: Pixels, config: LossConfig, class_weights: Tensor | None) -> Tensor:
    """Plane of what each pixel's cross-entropy weighs in the mean; they sum to 1, or to 0 if none is to be taken.

    Hard pixels are chosen by their cross-entropy before the weights of the classes, that is, by probability.
    """
    if config.ohem_share == 1 and config.ohem_threshold is None:
        kept = pixels.labelled
    else:
        kept = kept_pixels(pixels.cross_entropy(), pixels.labelled, config)
    weights = kept.to(pixels.logits.dtype)
    if class_weights is not None:
        weights *= class_weights.to(weights.dtype)[pixels.label]
    total = weights.sum()
    return weights.div_(torch.where(total > 0, total, 1))


def _loss(logits: Tensor, pixels: Pixels, weights: Tensor | None, dice_weight: float, lovasz_weight: float) -> Tensor:
    result: Tensor = _Loss.apply(_wide(logits), pixels, weights, dice_weight, lovasz_weight)  # type: ignore[no-untyped-call]
    return result


def _wide(logits: Tensor) -> Tensor:
    """Under autocast: 8 bits of mantissa are too few for a sum of exponentials."""
    return logits.float() if logits.dtype.itemsize < 4 else logits


class _Loss(torch.autograd.Function):
    """Value and gradient in one go; only the gradient is kept until it is asked for."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, pixels: Pixels, weights: Tensor | None, dice_weight: float, lovasz_weight: float
    ) -> Tensor:
        value = logits.new_zeros(())
        if weights is not None:
            value = value + (pixels.cross_entropy().mul_(weights)).sum()
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None  # (N, K, H, W)
        through = None  # plane of the sum over classes of probability times slope
        if dice_weight or lovasz_weight:
            overlap, through = _overlaps(pixels, dice_weight, lovasz_weight, gradient)
            value = value + overlap
        if gradient is not None:
            _through_softmax(pixels, weights, through, gradient)
            ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient.mul_(upstream), None, None, None, None  # torch refuses a second time, as it is changed here


def _overlaps(pixels: Pixels, dice_weight: float, lovasz_weight: float, slopes: Tensor | None) -> tuple[Tensor, Tensor]:
    """The weighted sum of Dice and Lovasz-softmax.

    Args:
        pixels: The batch.
        dice_weight: Of Dice.
        lovasz_weight: Of Lovasz-softmax.
        slopes: Receives the derivatives by the probabilities, `(N, K, H, W)`.

    Returns:
        The value, and the plane of the sum over classes of probability times slope.
    """
    counts = pixels.counts()
    num_shown = (counts > 0).sum().clamp(min=1)
    value, through = pixels.logits.new_zeros(()), torch.zeros_like(pixels.highest)
    for train_id, count in enumerate(counts):
        if slopes is not None:
            slopes[:, train_id] = 0
        if count.device.type == "cpu" and not count:  # elsewhere the question costs more than the answer
            continue
        probability, shown = pixels.probability(train_id), pixels.shows(train_id)
        for weight, loss in ((dice_weight, dice_of), (lovasz_weight, lovasz_of)):
            if weight:
                one, slope = loss(probability, shown, pixels.labelled, count)
                share = weight * (count > 0).to(value.dtype) / num_shown
                value = value + share * one
                if slopes is not None:
                    slopes[:, train_id] += slope.mul_(share)
        if slopes is not None:
            through += probability.mul_(slopes[:, train_id])
    return value, through


def _through_softmax(pixels: Pixels, weights: Tensor | None, through: Tensor | None, gradient: Tensor) -> None:
    """The derivatives by the logits, in the place of those by the probabilities.

    Of class k they are p_k (slope_k - sum_j p_j slope_j) for what depends on the probabilities, and w (p_k - [label is
    k]) for the cross-entropy of a pixel of weight w.

    Args:
        pixels: The batch.
        weights: Plane of the pixels' weights in the cross-entropy; None has none.
        through: Plane of the sum over j; None where there are no slopes, and `gradient` holds nothing yet.
        gradient: Slopes before, derivatives after, `(N, K, H, W)`.
    """
    common = pixels.log_total.new_zeros(()) if weights is None else weights
    for train_id, place in enumerate(gradient.unbind(1)):
        if through is None:
            torch.mul(pixels.probability(train_id), common, out=place)
        else:
            place.add_(common).sub_(through).mul_(pixels.probability(train_id))
    if weights is not None:
        gradient.scatter_add_(1, pixels.label[:, None], weights.neg()[:, None])
