"""A tiny network, and what is exported of it once for all tests."""

from pathlib import Path

import pytest
import torch

from deeplabv3.cli import main
from deeplabv3.config import ModelConfig
from deeplabv3.deployment.parity import pixels
from deeplabv3.model.exported import ExportedModel, read_exported
from deeplabv3.prediction.segmenter import DeepLabV3


def with_statistics(model):
    """Batch norms that change what they see, and logits of some units, as in a trained network.

    Logits of thousands, as a deep network of random weights has, would make rounding visible in probabilities.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2.0),
                (module.weight.data, 0.7, 1.4),
                (module.bias.data, -0.2, 0.2),
            ):
                value.uniform_(low, high, generator=generator)
    with torch.no_grad():
        scale = 4 / model.eval().grid_logits(pixels(1, 65, 97, seed=0)).std()
        for value in model.classifier.parameters():
            value.mul_(scale)
    return model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """Narrow and of random weights."""
    path = tmp_path_factory.mktemp("exported") / "tiny.safetensors"
    torch.manual_seed(0)
    with_statistics(DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8))).save(path)
    return path


@pytest.fixture(scope="session")
def labels_onnx(checkpoint) -> Path:
    path = checkpoint.with_name("labels.onnx")
    assert main(["export", str(checkpoint), str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def probabilities_pt2(checkpoint) -> Path:
    path = checkpoint.with_name("probabilities.pt2")
    assert main(["export", str(checkpoint), str(path), "--output", "probabilities"]) == 0
    return path


@pytest.fixture(scope="session")
def network(checkpoint) -> DeepLabV3:
    """What was exported; read only."""
    return DeepLabV3.from_pretrained(checkpoint)


@pytest.fixture(scope="session")
def onnx_model(labels_onnx) -> ExportedModel:
    return read_exported(labels_onnx, ExportedModel)


@pytest.fixture(scope="session")
def program_model(probabilities_pt2) -> ExportedModel:
    return read_exported(probabilities_pt2, ExportedModel)
