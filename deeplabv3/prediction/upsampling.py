"""From logits on the feature grid to the class of each pixel, one class after the other.

All K classes at full size take K times the frame: 2.5 GB of float32 for 19 classes at 4320x7680. A class at a time
takes a few times the frame whatever K is, and is faster, as it stays closer to the cache. The strips are classes and
not rows: bilinear interpolation treats each channel by itself, so each value has the bits it would have among the
others, while rows cut out of the frame would have source coordinates that are rounded differently.

Shape letters: K classes, h and w the feature grid, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplabv3.data.labels import IGNORE_INDEX


def upsampled_argmax(grid_logits: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """`F.interpolate(grid_logits, size, mode="bilinear").argmax` over K, to the bit.

    Args:
        grid_logits: `(K, h, w)`, K below 256.
        size: H and W.
        align_corners: As the model has it.

    Returns:
        trainIds, uint8 `(H, W)`, on the device of the logits.
    """
    prediction = torch.zeros(size, dtype=torch.uint8, device=grid_logits.device)  # (H, W)
    best = None
    for train_id, logit in enumerate(_classes(grid_logits, size, align_corners)):
        if best is None:
            best = logit
            continue
        prediction.masked_fill_(logit > best, train_id)
        torch.maximum(best, logit, out=best)
    return prediction


def upsampled_loss(grid_logits: Tensor, label: Tensor, *, align_corners: bool = False) -> float:
    """Cross-entropy of `F.interpolate(grid_logits, ...)`, summed over all pixels that are not ignored.

    Args:
        grid_logits: `(K, h, w)`.
        label: trainIds or `IGNORE_INDEX`, uint8 `(H, W)`, on the same device.
        align_corners: As the model has it.
    """
    height, width = label.shape
    total = own = None
    for train_id, logit in enumerate(_classes(grid_logits, (height, width), align_corners)):
        if total is None or own is None:
            total, own = logit, torch.where(label == train_id, logit, 0)  # (H, W)
            continue
        torch.logaddexp(total, logit, out=total)
        torch.where(label == train_id, logit, own, out=own)
    assert total is not None
    assert own is not None
    return float((total - own)[label != IGNORE_INDEX].cpu().double().sum())


def _classes(grid_logits: Tensor, size: tuple[int, int], align_corners: bool) -> Iterator[Tensor]:
    """Each class's logits at full size, `(H, W)`."""
    grid_logits = grid_logits.contiguous()
    if grid_logits.dtype.itemsize < 4:  # as in DeepLabV3.forward
        grid_logits = grid_logits.float()
    for train_id in range(len(grid_logits)):
        one = grid_logits[None, train_id : train_id + 1]  # (1, 1, h, w)
        yield F.interpolate(one, size, mode="bilinear", align_corners=align_corners)[0, 0]  # (H, W)
