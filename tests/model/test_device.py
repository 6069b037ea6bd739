"""Which device a name means; accelerators are pretended."""

import pytest
import torch

from deeplabv3.config import InferenceConfig, ModelConfig
from deeplabv3.errors import InputError
from deeplabv3.model import device
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import choose_device


@pytest.fixture
def two_accelerators(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "wanted"), [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")]
)
def test_accelerator_has_its_number(two_accelerators, name, wanted):
    """`torch.cuda.set_device`, with which training begins, takes none without."""
    assert str(choose_device(name)) == wanted


@pytest.mark.parametrize(("rank", "wanted"), [(0, "cuda:0"), (1, "cuda:1"), (2, "cuda:0")])
def test_each_process_has_its_own(two_accelerators, monkeypatch, rank, wanted):
    monkeypatch.setattr(device, "num_processes", lambda: 3)
    monkeypatch.setattr(device, "local_rank", lambda: rank)
    assert str(choose_device("auto")) == wanted


@pytest.mark.parametrize("name", ["auto", "mps"])
def test_mps_is_called_as_its_tensors_say(no_accelerator, monkeypatch, name):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert str(choose_device(name)) == "mps:0"


@pytest.mark.parametrize("name", ["gpu", "cuda", "cuda:0", "mps"])
def test_what_is_not_there_is_refused(no_accelerator, name):
    with pytest.raises(InputError, match=f"device is '{name}'; this machine has cpu"):
        choose_device(name)


def test_auto_is_the_processor_where_there_is_nothing_else(no_accelerator):
    assert str(choose_device("auto")) == "cpu"


def test_network_is_not_looked_for_elsewhere(two_accelerators):
    model = DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8))
    model.require(InferenceConfig(device="cpu"))
    with pytest.raises(InputError, match="device is 'cuda:1' and the network is on cpu; move it there first"):
        model.require(InferenceConfig(device="cuda:1"))
    with pytest.raises(InputError, match="device is 'gpu'; this machine has cuda, cuda:0, cuda:1, "):
        model.require(InferenceConfig(device="gpu"))
