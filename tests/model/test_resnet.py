from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from deeplabv3.config import ModelConfig
from deeplabv3.model.resnet import BasicBlock, Bottleneck, ResNet, stage_rates


def features(config: ModelConfig, output_stride: int, image: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    net = ResNet(replace(config, output_stride=output_stride)).double()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # every channel counts, and statistics are not the trivial ones
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    with torch.inference_mode():
        return net.eval()(image)


# 32 * 3 + 1 pixels: the grids of all strides have their points in common.
IMAGE = torch.randn(1, 3, 97, 129, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("backbone", "width"), [("resnet18", 16), ("resnet50", 16)])
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "multi_grid"])
def test_features_at_8_subsampled_are_those_at_16(backbone, width, plain):
    multi_grid = None if plain else (1, 2, 4)[: 2 if backbone == "resnet18" else 3]
    config = ModelConfig(backbone=backbone, width=width, multi_grid=multi_grid)
    fine, coarse = features(config, 8, IMAGE), features(config, 16, IMAGE)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("backbone", "width"), [("resnet18", 16), ("resnet50", 16)])
def test_features_at_16_subsampled_are_those_at_32(backbone, width):
    config = ModelConfig(backbone=backbone, width=width)
    fine, coarse = features(config, 16, IMAGE), features(config, 32, IMAGE)
    torch.testing.assert_close(fine[..., ::2, ::2], coarse, rtol=1e-12, atol=1e-12)


def test_consistency_test_can_fail():
    """A first block that takes the new rate, as in other implementations, breaks the property."""
    config = ModelConfig(backbone="resnet18", width=16)
    fine = features(replace(config, multi_grid=(1, 1)), 16, IMAGE)
    assert not torch.allclose(fine[..., ::2, ::2], features(config, 32, IMAGE))


@pytest.mark.parametrize(
    ("stride", "multi_grid", "third", "fourth"),
    [
        (32, None, [1] * 6, [1, 1, 1]),
        (16, None, [1] * 6, [1, 2, 2]),
        (8, None, [1, 2, 2, 2, 2, 2], [2, 4, 4]),
        (16, (1, 2, 4), [1] * 6, [2, 4, 8]),
        (8, (1, 2, 4), [1, 2, 2, 2, 2, 2], [4, 8, 16]),
    ],
)
def test_rates_of_the_last_stages(stride, multi_grid, third, fourth):
    config = ModelConfig(backbone="resnet50", output_stride=stride, multi_grid=multi_grid)
    rates = [[first for first, _ in stage] for stage in stage_rates(config)]
    assert rates == [[1] * 3, [1] * 4, third, fourth]
    net = ResNet(replace(config, width=16))
    assert [block.conv2.dilation[0] for block in net.layer4] == fourth
    assert "| " + " ".join(map(str, fourth)) in repr(net)


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("size", [(1, 1), (33, 50), (64, 96)])
def test_grid_is_the_size_over_the_stride_rounded_up(stride, size):
    net = ResNet(ModelConfig(backbone="resnet18", width=16, output_stride=stride)).eval()
    assert net(torch.zeros(1, 3, *size)).shape == (1, 128, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048)])
def test_out_channels(backbone, channels):
    with torch.device("meta"):
        assert ResNet(ModelConfig(backbone=backbone)).out_channels == channels


@pytest.mark.parametrize(
    ("backbone", "millions"),
    [("resnet18", 11.177), ("resnet34", 21.285), ("resnet50", 23.508), ("resnet101", 42.500), ("resnet152", 58.144)],
)
def test_number_of_parameters(backbone, millions):
    """torchvision's counts without the ImageNet classifier."""
    with torch.device("meta"):
        net = ResNet(ModelConfig(backbone=backbone))
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 3) == pytest.approx(millions, abs=1e-3)


def normalised(x, bn):
    """Batch normalisation with the batch's own statistics, written out."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)


def written_out(block, x, stride, rates):
    if isinstance(block, Bottleneck):
        y = normalised(F.conv2d(x, block.conv1.weight), block.bn1).clamp(min=0)
        y = F.conv2d(y, block.conv2.weight, stride=stride, padding=rates[0], dilation=rates[0])
        y = normalised(y, block.bn2).clamp(min=0)
        y = normalised(F.conv2d(y, block.conv3.weight), block.bn3)
    else:
        y = F.conv2d(x, block.conv1.weight, stride=stride, padding=rates[0], dilation=rates[0])
        y = normalised(y, block.bn1).clamp(min=0)
        y = F.conv2d(y, block.conv2.weight, padding=rates[1], dilation=rates[1])
        y = normalised(y, block.bn2)
    if block.downsample is not None:
        x = normalised(F.conv2d(x, block.downsample[0].weight, stride=stride), block.downsample[1])
    return (y + x).clamp(min=0)


@pytest.mark.parametrize("block_class", [BasicBlock, Bottleneck])
@pytest.mark.parametrize(("in_channels", "stride", "rates"), [(12, 1, (1, 1)), (12, 1, (2, 4)), (5, 2, (1, 2))])
def test_block_is_its_formula(block_class, in_channels, stride, rates):
    torch.manual_seed(0)
    channels = 3 if block_class is Bottleneck else 12
    block = block_class(in_channels, channels, stride=stride, rates=rates).double()
    x = torch.randn(2, in_channels, 9, 7, dtype=torch.float64, requires_grad=True)
    ours, theirs = block(x), written_out(block, x, stride, rates)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    inputs = [x, *block.parameters()]
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
