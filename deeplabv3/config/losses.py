"""What a training run minimises."""

from __future__ import annotations

import math
from dataclasses import dataclass

from deeplabv3.config.checks import require, with_plain_types

MIN_KEPT = 100_000


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss: cross-entropy over all pixels or the hardest, and what is added to it.

    Attributes:
        class_weights: Weight of each class in the cross-entropy, in the order of the label set; or counts, for ENet's
            weights, 1 / ln(1.02 + share of the class among the labelled pixels of the training frames) (Paszke et al.
            2016, arXiv 1606.02147, section 5.2). Null weighs all alike.
        ohem_share: Share of a batch's labelled pixels that the cross-entropy is taken of, those with the highest
            (detectron2's and deeplab2's DeepLab have 0.2); 1 takes all.
        ohem_threshold: Take the cross-entropy only of pixels whose own class has a probability below this
            (mmsegmentation's examples have 0.7); null takes all.
        ohem_min_kept: With ohem_threshold, pixels that are taken at least, the hardest, times the images of the batch
            (mmsegmentation has 100000).
        dice_weight: Weight of the Dice loss that is added (Milletari et al. 2016, arXiv 1606.04797); 0 is none.
        lovasz_weight: Weight of Lovasz-softmax that is added (Berman et al. 2018, arXiv 1705.08790); 0 is none.
        auxiliary_weight: Weight of the auxiliary head's cross-entropy, over all pixels (Zhao et al. 2016, arXiv
            1612.01105, section 4.1, and mmsegmentation have 0.4; torchvision has 0.5).
    """

    class_weights: tuple[float, ...] | str | None = None
    ohem_share: float = 1.0
    ohem_threshold: float | None = None
    ohem_min_kept: int = MIN_KEPT
    dice_weight: float = 0.0
    lovasz_weight: float = 0.0
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InputError: A value is not possible, or two exclude each other.
        """
        with_plain_types(self)
        weights = self.class_weights
        if isinstance(weights, str):
            require(weights == "counts", "class_weights", weights, "give a list of numbers, counts, or null")
        elif weights is not None:
            ok = all(0 <= weight < math.inf for weight in weights) and any(weights)
            allowed = "give a finite number of at least 0 for each class, one of them above 0"
            require(ok, "class_weights", list(weights), allowed)
        require(0 < self.ohem_share <= 1, "ohem_share", self.ohem_share, "give above 0 and at most 1")
        threshold = self.ohem_threshold
        ok = threshold is None or 0 < threshold <= 1
        require(ok, "ohem_threshold", threshold, "give a probability above 0 and at most 1, or null")
        ok = threshold is None or self.ohem_share == 1
        require(
            ok, "ohem_threshold", threshold, f"it excludes ohem_share, which is {self.ohem_share}; give one of them"
        )
        require(
            0 <= self.ohem_min_kept < 2**40, "ohem_min_kept", self.ohem_min_kept, "give at least 0, and some pixels"
        )
        ok = threshold is not None or self.ohem_min_kept == MIN_KEPT
        require(ok, "ohem_min_kept", self.ohem_min_kept, "it belongs to ohem_threshold; give that too, or leave it out")
        for name in ("dice_weight", "lovasz_weight", "auxiliary_weight"):
            value = getattr(self, name)
            require(0 <= value < math.inf, name, value, "give a finite weight of at least 0")
