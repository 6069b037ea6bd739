import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deeplabv3.prediction.upsampling import upsampled_argmax, upsampled_loss


def whole(grid_logits, size):
    """All classes at full size at once."""
    return F.interpolate(grid_logits[None], size, mode="bilinear", align_corners=False)[0]


@given(
    st.integers(0, 2**32),
    st.integers(1, 21),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 90),
    st.integers(1, 90),
)
def test_argmax_is_that_of_all_classes_at_once_to_the_bit(seed, classes, height, width, rows, columns):
    generator = torch.Generator().manual_seed(seed)
    grid_logits = torch.randn(classes, height, width, generator=generator)
    expected = whole(grid_logits, (rows, columns)).argmax(0)
    assert torch.equal(upsampled_argmax(grid_logits, (rows, columns)), expected.to(torch.uint8))


@pytest.mark.parametrize("stride", [8, 16])
def test_argmax_of_a_frame_with_close_classes_is_the_same(stride):
    """Logits of a large frame so close to each other that a difference in the last bit would show."""
    generator = torch.Generator().manual_seed(0)
    grid_logits = 1 + 1e-6 * torch.randn(19, 1024 // stride, 1536 // stride, generator=generator)
    expected = whole(grid_logits, (1024, 1536)).argmax(0).to(torch.uint8)
    assert torch.equal(upsampled_argmax(grid_logits, (1024, 1536)), expected)
    channels_last = grid_logits[None].contiguous(memory_format=torch.channels_last)[0]
    assert torch.equal(upsampled_argmax(channels_last, (1024, 1536)), expected)


def test_first_of_equal_classes_wins():
    assert upsampled_argmax(torch.zeros(3, 2, 2), (5, 5)).sum() == 0


def test_logits_are_left_as_they_were():
    grid_logits = torch.randn(4, 3, 3)
    before = grid_logits.clone()
    upsampled_argmax(grid_logits, (3, 3))
    upsampled_loss(grid_logits, torch.zeros(3, 3, dtype=torch.uint8))
    assert torch.equal(grid_logits, before)


def test_half_precision_is_widened_first():
    grid_logits = torch.randn(5, 4, 4).bfloat16()
    expected = whole(grid_logits.float(), (30, 30)).argmax(0).to(torch.uint8)
    assert torch.equal(upsampled_argmax(grid_logits, (30, 30)), expected)


@given(st.integers(0, 2**32), st.integers(1, 21))
def test_loss_is_the_cross_entropy(seed, classes):
    generator = torch.Generator().manual_seed(seed)
    grid_logits = 5 * torch.randn(classes, 4, 5, generator=generator)
    label = torch.randint(0, classes + 1, (31, 40), dtype=torch.uint8, generator=generator)
    label[label == classes] = 255
    logits = whole(grid_logits.double(), (31, 40))[None]
    expected = F.cross_entropy(logits, label[None].long(), ignore_index=255, reduction="sum")
    assert upsampled_loss(grid_logits, label) == pytest.approx(float(expected), rel=1e-5, abs=1e-3)


def test_loss_of_ignored_pixels_is_0():
    assert upsampled_loss(torch.randn(3, 2, 2), torch.full((6, 6), 255, dtype=torch.uint8)) == 0
