from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplabv3.config import BACKBONES, ModelConfig
from deeplabv3.errors import InputError
from deeplabv3.model.deeplab import DeepLabV3


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return DeepLabV3(tiny_config)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 33), (64, 64)])
@pytest.mark.parametrize("batch", [1, 3])
def test_logits_have_the_size_of_the_input(model, size, batch):
    image = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8)
    assert model.eval()(image).shape == (batch, 19, *size)


def test_uint8_and_float_pixels_are_the_same(model):
    image = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    assert torch.equal(model.eval()(image), model(image.float()))


def test_pixels_are_normalised_inside(model):
    seen = []
    model.backbone.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(seen[0][0, :, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_parameter_gets_a_gradient(backbone):
    torch.manual_seed(0)
    width = {} if backbone == "mobilenet_v3_large" else {"width": 16}
    model = DeepLabV3(ModelConfig(backbone=backbone, **width, aspp_channels=4, num_classes=3))
    logits = model(torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8))
    assert bool(logits.isfinite().all())
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool(parameter.grad.any()), name


OPTIONS = (
    {"stem": "deep"},
    {"aspp_projection": "1x1+3x3"},
    {"aspp_projection": "3x3", "auxiliary_channels": 4},
    {"decoder": "conv", "low_level_channels": 6},
    {"decoder": "separable", "aspp_separable": True, "align_corners": True},
    {"block_rates": ((2,) * 4, (4,) * 4)},
)


@pytest.mark.parametrize("options", OPTIONS)
def test_every_parameter_gets_a_gradient_with_every_option(tiny_config, options):
    torch.manual_seed(0)
    model = DeepLabV3(replace(tiny_config, **options))
    logits, auxiliary = model.forward_with_auxiliary(torch.randint(0, 256, (2, 3, 40, 56), dtype=torch.uint8))
    assert logits.shape == (2, 19, 40, 56)
    (logits.square().mean() + (0 if auxiliary is None else auxiliary.square().mean())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
def test_epsilon_reaches_every_normalisation_but_mobilenets_own(backbone):
    model = DeepLabV3(ModelConfig(backbone=backbone, aspp_channels=4, auxiliary_channels=4, batch_norm_eps=0.5))
    found = {name: module.eps for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    own = 1e-3 if backbone == "mobilenet_v3_large" else 0.5
    assert {eps for name, eps in found.items() if name.startswith("backbone.")} == {own}
    assert {eps for name, eps in found.items() if not name.startswith("backbone.")} == {0.5}


def test_corners_are_aligned_with_corners(tiny_config):
    """The first and the last pixel of the grid are the first and the last of the image."""
    model = DeepLabV3(replace(tiny_config, align_corners=True)).eval()
    image = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    with torch.inference_mode():
        grid, logits = model.grid_logits(image), model(image)
    torch.testing.assert_close(logits[..., ::39, ::55], grid[..., :: grid.shape[2] - 1, :: grid.shape[3] - 1])


def test_same_weights_run_at_another_output_stride(model, tiny_config):
    finer = DeepLabV3(tiny_config.at_output_stride(8)).eval()
    finer.load_state_dict(model.state_dict())
    image = torch.randint(0, 256, (1, 3, 65, 97), dtype=torch.uint8)
    assert finer.grid_logits(image).shape[-2:] == (9, 13)
    assert model.eval().grid_logits(image).shape[-2:] == (5, 7)


def test_atrous_consistency_of_the_whole_network(model, tiny_config):
    """Without image pooling, whose mean is over another grid, logits at 8 subsampled are those at 16."""
    config = replace(tiny_config, image_pooling=False)
    coarse = DeepLabV3(config).double().eval()
    fine = DeepLabV3(config.at_output_stride(8)).double().eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.rand(1, 3, 97, 129, dtype=torch.float64) * 255
    with torch.inference_mode():
        torch.testing.assert_close(fine.grid_logits(image)[..., ::2, ::2], coarse.grid_logits(image))


def test_training_with_one_image_works(model):
    assert model.train()(torch.zeros(1, 3, 17, 16)).shape == (1, 19, 17, 16)


def test_training_with_one_grid_value_says_why(model):
    with pytest.raises(InputError, match="raise batch_size to 2, or crop_size above 16"):
        model.train()(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_wrong_shape_is_named(model, shape):
    with pytest.raises(InputError, match=r"\(N, 3, H, W\) is needed"):
        model(torch.zeros(shape))


def test_logits_are_float32_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        assert model.eval()(torch.zeros(1, 3, 8, 8)).dtype == torch.float32


def test_state_dict_keys(golden):
    with torch.device("meta"):
        model = DeepLabV3(ModelConfig(backbone="resnet50"))
    lines = [f"{name} {list(value.shape)}" for name, value in model.state_dict().items()]
    golden("state_dict_resnet50.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large"])
def test_features_that_nobody_reads_are_not_kept(backbone):
    for channels in (0, 4):
        config = ModelConfig(backbone=backbone, aspp_channels=8, auxiliary_channels=channels)
        features = DeepLabV3(config).eval().backbone.features(torch.zeros(1, 3, 32, 32))
        assert features.low_level is None
        assert (features.auxiliary is None) == (channels == 0)
