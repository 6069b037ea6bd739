import pytest
import torch
import torch.nn.functional as F

from deeplabv3.model.aspp import ASPP
from tests.model.test_resnet import normalised


def written_out(aspp: ASPP, x: torch.Tensor, rates: tuple[int, ...], image_pooling: bool) -> torch.Tensor:
    """Section 3.3 of the paper, line by line."""
    branches = [F.conv2d(x, aspp.branches[0][0].weight)]
    branches += [
        F.conv2d(x, branch[0].weight, padding=rate, dilation=rate)
        for branch, rate in zip(aspp.branches[1:], rates, strict=False)
    ]
    branches = [normalised(y, branch[1]).clamp(min=0) for y, branch in zip(branches, aspp.branches, strict=False)]
    if image_pooling:
        pooling = aspp.branches[-1]
        y = F.conv2d(x.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3]), pooling.conv.weight)
        y = normalised(y, pooling.bn).clamp(min=0)
        branches.append(y.repeat(1, 1, *x.shape[2:]))
    y = F.conv2d(torch.cat(branches, 1), aspp.project[0].weight)
    return normalised(y, aspp.project[1]).clamp(min=0)


@pytest.mark.parametrize("rates", [(), (2,), (1, 2, 3), (1, 2, 3, 5)])
@pytest.mark.parametrize("image_pooling", [True, False])
def test_aspp_is_its_formula(rates, image_pooling):
    torch.manual_seed(0)
    aspp = ASPP(6, 4, atrous_rates=rates, image_pooling=image_pooling, dropout=0.0).double()
    x = torch.randn(3, 6, 7, 5, dtype=torch.float64, requires_grad=True)
    ours, theirs = aspp(x), written_out(aspp, x, rates, image_pooling)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    inputs = [x, *aspp.parameters()]
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_image_pooling_is_the_same_all_over_an_image():
    pooled = ASPP(4, 3).eval().branches[-1](torch.randn(2, 4, 5, 6))
    assert torch.equal(pooled, pooled[..., :1, :1].expand_as(pooled))


def test_one_image_is_pooled_with_running_statistics():
    pooling = ASPP(4, 3).branches[-1]
    x = torch.randn(1, 4, 5, 6)
    assert torch.equal(pooling.train()(x), pooling.eval()(x))


def test_rate_beyond_the_grid_sees_the_centre_alone():
    """Where a rate exceeds the grid, a 3x3 convolution is its middle weight (section 3.3, figure 4)."""
    branch = ASPP(4, 3, atrous_rates=(9,)).double().branches[1]
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(branch[0](x), F.conv2d(x, branch[0].weight[:, :, 1:2, 1:2]))
