"""What a loss makes on the way: of the logits' size, only their gradient."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from deeplabv3.config import LossConfig
from deeplabv3.training.losses import loss_of


class LargeTensors(TorchDispatchMode):
    """The memory of every tensor of at least so many bytes that an operation gives back."""

    def __init__(self, num_bytes):
        super().__init__()
        self.num_bytes, self.held = num_bytes, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() >= self.num_bytes:
            self.held[result.untyped_storage().data_ptr()] = result  # held, so that no address is used again
        return result


@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(ohem_share=0.2),
        LossConfig(ohem_threshold=0.7),
        LossConfig(dice_weight=1.0, lovasz_weight=1.0),
    ],
    ids=["cross_entropy", "share", "threshold", "dice_and_lovasz"],
)
def test_nothing_of_the_logits_size_is_made_but_the_gradient(config):
    torch.manual_seed(0)
    logits = torch.randn(2, 19, 8, 8, requires_grad=True)
    label = torch.randint(0, 19, (2, 8, 8)).to(torch.uint8)
    with LargeTensors(logits.untyped_storage().nbytes() // 4) as large:  # a plane of int64 has 2 of 19
        (gradient,) = torch.autograd.grad(loss_of(logits, None, label, config, torch.ones(19)), logits)
    assert set(large.held) == {logits.data_ptr(), gradient.data_ptr()}


def test_a_softmax_would_be_noticed():
    logits = torch.randn(2, 19, 8, 8)
    with LargeTensors(logits.untyped_storage().nbytes() // 4) as large:
        logits.softmax(1)
    assert len(large.held) == 1
