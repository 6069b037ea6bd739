"""A folded network computes the same without batch norms."""

import pytest
import torch
from torch import nn

from deeplabv3.config import ModelConfig
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.folding import folded
from tests.deployment.conftest import with_statistics

CONFIGS = {
    "basic blocks": ModelConfig(backbone="resnet18", width=16, aspp_channels=8, auxiliary_channels=8),
    "bottlenecks, deep stem": ModelConfig(backbone="resnet50", width=16, aspp_channels=8, stem="deep"),
    "V3+": ModelConfig(backbone="resnet18", width=16, aspp_channels=8, decoder="separable", aspp_separable=True),
    "MobileNet": ModelConfig(backbone="mobilenet_v3_large", aspp_channels=8),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_folded_network_computes_the_same_without_batch_norms(config):
    torch.manual_seed(0)
    model = with_statistics(DeepLabV3(config)).double()
    image = torch.randint(0, 256, (2, 3, 33, 49), dtype=torch.uint8)
    before = model(image)
    ours = folded(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in ours.modules())
    torch.testing.assert_close(ours(image), before.detach(), rtol=1e-9, atol=1e-9)
    assert torch.equal(model(image), before)
