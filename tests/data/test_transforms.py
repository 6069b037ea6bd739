import colorsys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplabv3.config import TrainConfig
from deeplabv3.data import transforms
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.data.transforms import (
    PADDING_COLOR,
    augment,
    cut,
    photometric_distortion,
    random_flip,
    random_scale_crop,
    resize,
    resize_label,
)

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and a label that both say which column and row a pixel came from."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x * 4, y * 4, np.zeros_like(x)], 2), (x // 8 + 5 * (y // 8)).astype(np.uint8)


@given(sizes, sizes, st.integers(0, 9))
def test_crop_has_its_size(frame, crop, seed):
    image, label = random_scale_crop(*coordinates(*frame), np.random.default_rng(seed), crop, (0.5, 2.0))
    assert (image.shape, label.shape) == ((*crop, 3), crop)


@given(st.integers(0, 200))
def test_crop_keeps_image_and_label_aligned(seed):
    image, label = coordinates(40, 40)
    image, label = random_scale_crop(image, label, np.random.default_rng(seed), (24, 32), (0.5, 2.0))
    inside = label != IGNORE_INDEX
    x, y = image[..., 0] / 4, image[..., 1] / 4
    # A pixel's colour tells its source within 2 pixels (bilinear), so its label's cell must reach there.
    near_x = np.abs(x - (label % 5 * 8 + 3.5)) <= 4 + 2
    near_y = np.abs(y - (label // 5 * 8 + 3.5)) <= 4 + 2
    edge = np.zeros_like(inside)
    edge[1:-1, 1:-1] = True  # the outermost pixels blend with the padding
    padded = ~inside
    near_padding = padded.copy()
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            near_padding |= np.roll(padded, step, axis)
    checked = inside & ~near_padding & edge
    assert (near_x & near_y)[checked].all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_scale_is_the_size_of_things(scale, rng):
    image, label = coordinates(40, 40)
    image, _ = random_scale_crop(image, label, rng, (16, 16), (scale, scale))
    columns_per_pixel = np.diff(image[8, 4:12, 0].astype(float)).mean() / 4
    assert columns_per_pixel == pytest.approx(1 / scale, rel=0.1)


def test_scale_1_and_the_frames_size_changes_nothing(rng):
    image, label = coordinates(12, 9)
    for ours, theirs in zip(random_scale_crop(image, label, rng, (12, 9), (1, 1)), (image, label), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_window_over_the_edge_is_padded():
    image, label = coordinates(2, 2)
    assert cut(label, -1, -2, 4, 5, IGNORE_INDEX).tolist() == [
        [255, 255, 255, 255, 255],
        [255, 255, 0, 0, 255],
        [255, 255, 0, 0, 255],
        [255, 255, 255, 255, 255],
    ]
    assert cut(image, -1, 0, 3, 3, PADDING_COLOR)[0, 0].tolist() == list(PADDING_COLOR)


def test_resized_label_holds_no_new_class(rng):
    label = rng.choice(np.array([3, 17, 255], np.uint8), (20, 30))
    assert set(np.unique(resize_label(label, (7, 41)))) <= {3, 17, 255}


def test_label_and_image_share_their_pixel_centres():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None], 8, 0)
    image = np.repeat(ramp[..., None], 3, 2)
    for size in ((8, 8), (8, 72), (8, 31)):  # at a factor of 2 two pixels are equally near
        difference = resize(image, size)[..., 0].astype(int) - resize_label(ramp, size)
        assert abs(difference[:, 1:-1].mean()) < 1.5


def test_flip_turns_image_and_label_alike():
    image, label = coordinates(3, 9)
    flipped = [random_flip(image, label, np.random.default_rng(seed)) for seed in range(20)]
    turned = [(a, b) for a, b in flipped if b[0, 0] != label[0, 0]]
    assert 0 < len(turned) < 20
    for a, b in turned:
        np.testing.assert_array_equal(a[:, ::-1], image)
        np.testing.assert_array_equal(b[:, ::-1], label)


def test_photometric_distortion_without_effect(rng, monkeypatch):
    image = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)

    class Never:
        def random(self):
            return 0.5

    np.testing.assert_array_equal(photometric_distortion(image, Never()), image)


@pytest.mark.parametrize(
    ("change", "amount", "before", "after"),
    [
        ("_brightness", 1.0, (10, 20, 30), (42, 52, 62)),
        ("_contrast", 0.0, (10, 20, 30), (5, 10, 15)),
        ("_saturation", 0.5, (10, 20, 30), (10, 20, 30)),
        ("_hue", 0.5, (10, 20, 30), (10, 20, 30)),
    ],
)
def test_each_change_is_its_formula(change, amount, before, after):
    matrix = getattr(transforms, change)(amount)
    np.testing.assert_allclose(matrix[:, :3] @ before + matrix[:, 3], after, atol=1e-9)


@pytest.mark.parametrize("change", ["_saturation", "_hue"])
@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0])
def test_grey_stays_grey(change, amount):
    matrix = getattr(transforms, change)(amount)
    np.testing.assert_allclose(matrix[:, :3] @ (90, 90, 90) + matrix[:, 3], 90, atol=1e-9)


def test_hue_turns_by_at_most_18_degrees():
    before = np.array([0.6, 0.4, 0.3])
    after = transforms._hue(1.0)[:, :3] @ before
    turned = (colorsys.rgb_to_hsv(*after)[0] - colorsys.rgb_to_hsv(*before)[0]) * 360
    assert abs(turned) == pytest.approx(18, abs=3)


def test_sample_is_a_function_of_its_seed():
    config = TrainConfig(data_dir=Path(), run_dir=Path(), crop_size=(16, 24), photometric_distortion=True)
    pair = coordinates(40, 40)
    first, again, other = (augment(*pair, np.random.default_rng(seed), config) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
