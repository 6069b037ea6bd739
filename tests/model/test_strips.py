"""Frames in strips have the features of whole frames."""

import ctypes
from dataclasses import replace

import pytest
import torch

from deeplabv3.config import ModelConfig
from deeplabv3.model import strips
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.resnet import Features, ResNet
from deeplabv3.prediction.predictor import predict_image

SMALL = ModelConfig(backbone="resnet18", width=16, aspp_channels=4, auxiliary_channels=4, decoder="conv")
PLAIN = replace(SMALL, auxiliary_channels=0, decoder="none")


def network(config: ModelConfig, dtype: torch.dtype = torch.float64) -> ResNet:
    torch.manual_seed(0)
    net = ResNet(config).to(dtype).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # every channel counts, and statistics are not the trivial ones
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


def frame(height: int, width: int = 24, num: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(num, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.fixture
def limit(monkeypatch):
    """Sets how many pixels are computed as one."""
    return lambda pixels: monkeypatch.setattr(strips, "STRIP_PIXELS", pixels)


@pytest.fixture
def kept(monkeypatch):
    """Rows of each strip that is computed."""
    rows: list[strips.Strip] = []

    def listed(height, **options):
        for strip in original(height, **options):
            rows.append(strip)
            yield strip

    original = strips.strips
    monkeypatch.setattr(strips, "strips", listed)
    return rows


@torch.inference_mode()
def features(net: ResNet, x: torch.Tensor) -> Features:
    return net.features(x)


def assert_same(found: Features, expected: Features, tolerance: float = 1e-12) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if ours is None or theirs is None:
            assert ours is theirs
        else:
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_stride": 8},
        {"output_stride": 32},
        {"stem": "deep"},
        {"multi_grid": (1, 2), "output_stride": 8},
        {"backbone": "resnet50"},
        {"decoder": "none", "auxiliary_channels": 0},
    ],
    ids=str,
)
def test_strips_have_the_features_of_the_frame(options, limit, kept):
    net, x = network(replace(SMALL, **options)), frame(301, 21, num=2)
    whole = features(net, x)
    assert not kept
    limit(1)
    assert_same(features(net, x), whole)
    assert len(kept) > 2


@pytest.mark.parametrize("num_strips", [2, 3, 4, 5])
def test_any_number_of_strips(num_strips, limit, kept):
    net, x = network(PLAIN), frame(601, 9)
    whole = features(net, x)
    limit(-(-601 // (8 * num_strips)) * 8 * 9)
    assert_same(features(net, x), whole)
    assert len(kept) == num_strips


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_float32_differs_by_rounding_alone(order, limit):
    net, x = network(SMALL, torch.float32), frame(301, 53, dtype=torch.float32).contiguous(memory_format=order)
    whole = features(net, x)
    limit(1)
    found = features(net, x)
    assert_same(found, whole, 1e-5)
    assert found.low_level.stride() == whole.low_level.stride()


def test_stride_set_later_counts(limit):
    model = DeepLabV3(replace(SMALL, decoder="none")).eval()
    model.set_output_stride(8)
    image = torch.randint(0, 256, (1, 3, 301, 40), dtype=torch.uint8)
    with torch.inference_mode():
        whole = model(image)
        limit(1)
        torch.testing.assert_close(model(image), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("edge", ["top", "bottom"])
@pytest.mark.parametrize("options", [{}, {"stem": "deep"}, {"backbone": "resnet50"}], ids=str)
def test_smaller_halo_fails(edge, options, limit, monkeypatch):
    net, x = network(replace(PLAIN, **options)), frame(301)
    whole = features(net, x)
    limit(1)
    original = strips.strips

    def cut(height, **others):
        for strip in original(height, **others):
            if edge == "top" and strip.top:
                strip = strip._replace(top=strip.top + 8)
            if edge == "bottom" and strip.bottom < height:
                strip = strip._replace(bottom=strip.bottom - 8)
            yield strip

    monkeypatch.setattr(strips, "strips", cut)
    with pytest.raises(AssertionError, match="not close"):
        assert_same(features(net, x), whole)


@pytest.mark.parametrize(
    ("options", "radius"),
    [
        ({}, 3 + 2 + 4 * 4 + 4 + 3 * 8),
        ({"stem": "deep"}, 1 + 2 + 2 + 2 + 4 * 4 + 4 + 3 * 8),
        ({"backbone": "resnet101"}, 3 + 2 + 3 * 4 + 4 + 3 * 8),
        ({"backbone": "resnet152"}, 3 + 2 + 3 * 4 + 4 + 7 * 8),
    ],
    ids=str,
)
def test_receptive_radius(options, radius):
    with torch.device("meta"):
        net = ResNet(replace(SMALL, **options))
    stem = net.stem if net.is_deep else net.conv1
    assert strips.receptive_radius([stem, net.maxpool, net.layer1, net.layer2]) == radius


@pytest.mark.parametrize("height", [1, 8, 95, 96, 97, 300, 1024])
def test_each_row_is_kept_once(height):
    found = list(strips.strips(height, rows=96, stride=8, radius=45))
    assert [row for strip in found for row in range(strip.first, strip.last)] == list(range(height))
    assert all(strip.top % 8 == 0 and strip.first - strip.top in (0, 48, strip.first) for strip in found)
    assert all(strip.bottom - strip.last in (38, height - strip.last) for strip in found)
    assert max(strip.last - strip.first for strip in found) <= 96


def test_small_frames_and_training_stay_whole(limit, kept):
    net = network(SMALL)
    limit(301 * 24)
    features(net, frame(301))
    net.features(frame(302))  # with a gradient
    with torch.no_grad():
        net.train().features(frame(302))
    assert not kept
    with torch.no_grad():
        net.eval().features(frame(302))
    assert len(kept) > 1


def test_batch_has_the_strips_of_one_frame(limit, kept):
    net = network(PLAIN)
    limit(301 * 24)
    features(net, frame(301, num=3))
    assert not kept


def test_exported_graph_has_no_strips(limit):
    limit(1)
    net, x = network(PLAIN, torch.float32), frame(301, dtype=torch.float32)
    with torch.no_grad():
        program = torch.export.export(net, (x,))
    convolutions = [node for node in program.graph.nodes if "conv2d" in str(node.target)]
    assert len(convolutions) == sum(isinstance(module, torch.nn.Conv2d) for module in net.modules())


def test_prediction_of_a_large_frame_is_that_of_the_network(limit, kept):
    torch.manual_seed(0)
    model = DeepLabV3(PLAIN).eval()
    image = torch.randint(0, 256, (3, 301, 40), dtype=torch.uint8)
    limit(1)
    with torch.inference_mode():
        expected = model(image[None]).argmax(1)[0]
    assert len(kept) > 2
    assert torch.equal(torch.from_numpy(predict_image(model, image.permute(1, 2, 0).numpy())).long(), expected)


@pytest.mark.parametrize("reason", [TypeError("Windows"), AttributeError("musl")], ids=str)
def test_other_c_libraries_keep_their_memory(reason, limit, monkeypatch):
    def refuse(_):
        raise reason

    net, x = network(PLAIN), frame(301)
    whole = features(net, x)
    limit(1)
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert_same(features(net, x), whole)
