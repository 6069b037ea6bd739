import math

import pytest
import torch

from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.training.losses import cross_entropy


def written_out(logits, label):
    total, count = logits.new_zeros(()), 0
    for n, y, x in torch.cartesian_prod(*map(torch.arange, label.shape)).tolist():
        if label[n, y, x] != IGNORE_INDEX:
            values = logits[n, :, y, x]
            total, count = total - (values[int(label[n, y, x])] - values.exp().sum().log()), count + 1
    return total / max(1, count)


@pytest.mark.parametrize("ignored", [0.0, 0.4, 1.0])
def test_cross_entropy_is_its_formula(ignored):
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 4, (2, 3, 5)).to(torch.uint8)
    label[torch.rand(label.shape) < ignored] = IGNORE_INDEX
    ours, theirs = cross_entropy(logits, label), written_out(logits, label)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    if ignored < 1:
        torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, logits))


def test_all_ignored_is_0_with_a_gradient_of_0():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), IGNORE_INDEX))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_even_logits_cost_the_logarithm_of_the_classes():
    assert float(cross_entropy(torch.zeros(1, 19, 4, 4), torch.zeros(1, 4, 4))) == pytest.approx(math.log(19))
