"""Recomputation changes what is kept and nothing of what is computed."""

from copy import deepcopy
from unittest import mock

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from deeplabv3.config import ModelConfig
from deeplabv3.model.checkpoint import digest
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast

BACKBONES = ("resnet18", "resnet50", "mobilenet_v3_large")
each_backbone = pytest.mark.parametrize("backbone", BACKBONES)


def network_of(backbone):
    """Its auxiliary head and decoder read what is between the blocks."""
    torch.manual_seed(0)
    resnet = {"width": 16, "decoder": "conv"} if backbone.startswith("resnet") else {}
    return DeepLabV3(ModelConfig(backbone=backbone, aspp_channels=8, auxiliary_channels=4, num_classes=3, **resnet))


def images():
    return torch.randint(0, 256, (2, 3, 49, 65), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def stepped(model, precision="float32"):
    """Loss, gradients, weights and statistics after two passes forth and back, and the bytes kept between them."""
    kept = {}

    def keep(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    losses = []
    for _ in range(2):
        with saved_tensors_hooks(keep, lambda value: value), autocast(torch.device("cpu"), precision):
            logits, auxiliary = model.forward_with_auxiliary(images())
        losses.append(logits.square().mean() + auxiliary.square().mean())
        losses[-1].backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return losses, digest(gradients, ""), digest(model.state_dict(), ""), sum(kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@each_backbone
def test_recomputed_is_the_same_to_the_bit(backbone, precision):
    plain = network_of(backbone)
    before, other = digest(plain.state_dict(), ""), deepcopy(plain)
    other.backbone.recompute = True
    expected, seen = stepped(plain, precision), stepped(other, precision)
    assert seen[:3] == expected[:3]
    assert seen[2] != before  # statistics moved
    assert seen[3] < 0.6 * expected[3]


@each_backbone
def test_statistics_count_each_batch_once(backbone):
    model = network_of(backbone)
    model.backbone.recompute = True
    stepped(model)
    counts = {int(value) for name, value in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {2}


@each_backbone
def test_frozen_norms_are_recomputed_too(backbone):
    plain = network_of(backbone).eval()
    other = deepcopy(plain)
    other.backbone.recompute = True
    assert stepped(other)[:3] == stepped(plain)[:3]


def test_nothing_is_recomputed_without_a_gradient():
    model = network_of("resnet18").eval()
    model.backbone.recompute = True
    with mock.patch("deeplabv3.model.recompute.checkpoint", side_effect=checkpoint) as called:
        with torch.inference_mode():
            model(images())
        assert not called.called
        model(images())
        assert called.call_count == 8  # one a block
