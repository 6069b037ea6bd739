"""Batch normalisation folded into the convolutions before it: the same function in inference, with fewer steps."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Model = TypeVar("Model", bound=nn.Module)


def folded(model: Model) -> Model:
    """A copy of a network in evaluation mode, each convolution scaled and shifted as the batch norm behind it did.

    In every module here, a batch norm that is registered right behind a convolution is also applied right behind it.
    Values differ from the network's own by rounding alone.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
                setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(module, name, nn.Identity())
            before = name, child
    return model
