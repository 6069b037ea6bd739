from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deeplabv3.config import TrainConfig
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.data.transforms import (
    PADDING_COLOR,
    _shown,
    augment,
    largest_share,
    random_window,
    resize,
    resize_label,
)

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def coordinates(height: int, width: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """An image and a label that both say which column and row a pixel came from."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([x * 4, y * 4, np.zeros_like(x)], 2), (x // 8 + 5 * (y // 8)).astype(np.uint8)


def sample(image, label, rng, options):
    """A sample of the crop's size."""
    crop = np.empty((*options.crop_size, 3), np.uint8), np.empty(options.crop_size, np.uint8)
    augment(image, label, rng, options, crop)
    return crop


def shown(pixels, window, size, resized, padding, mirrored=False):
    crop = np.empty((*size, *pixels.shape[2:]), np.uint8)
    _shown(pixels, window, crop, resized, padding, mirrored)
    return crop


def resized(pixels, size, method=resize, mirrored=False):
    result = np.empty((*size, *pixels.shape[2:]), np.uint8)
    method(pixels, result, mirrored)
    return result


def part(label, window):
    """What lies in a window."""
    top, left, height, width = window
    return label[max(0, top) : top + height, max(0, left) : left + width]


def config(**options) -> TrainConfig:
    return TrainConfig(data_dir=Path(), run_dir=Path(), **{"flip": False, **options})


@given(sizes, sizes, st.integers(0, 9))
def test_crop_has_its_size(frame, crop, seed):
    image, label = sample(*coordinates(*frame), np.random.default_rng(seed), config(crop_size=crop))
    assert (image.shape, label.shape) == ((*crop, 3), crop)


@given(st.integers(0, 200))
def test_crop_keeps_image_and_label_aligned(seed):
    image, label = coordinates(40, 40)
    image, label = sample(image, label, np.random.default_rng(seed), config(crop_size=(24, 32)))
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
    image, _ = sample(image, label, rng, config(crop_size=(16, 16), scale_range=(scale, scale)))
    for line in (image[8, 4:12, 0], image[4:12, 8, 1]):
        assert abs(np.diff(line.astype(float)).mean()) / 4 == pytest.approx(1 / scale, rel=0.1)


def test_every_scale_of_the_range_occurs(rng):
    image, label = coordinates(40, 40)
    seen = []
    for _ in range(200):
        pixels, _ = sample(image, label, rng, config(crop_size=(16, 16), scale_range=(0.5, 2.0)))
        seen.append(4 / abs(np.diff(pixels[8, 4:12, 0].astype(float)).mean()))
    assert min(seen) < 0.6
    assert max(seen) > 1.8


def test_scale_1_and_the_frames_size_changes_nothing(rng):
    image, label = coordinates(12, 9)
    same = config(crop_size=(12, 9), scale_range=(1, 1))
    for ours, theirs in zip(sample(image, label, rng, same), (image, label), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_window_over_the_edge_is_padded():
    image, label = coordinates(2, 2)
    assert shown(label, (-1, -2, 4, 5), (4, 5), resize_label, IGNORE_INDEX).tolist() == [
        [255, 255, 255, 255, 255],
        [255, 255, 0, 0, 255],
        [255, 255, 0, 0, 255],
        [255, 255, 255, 255, 255],
    ]
    assert shown(image, (-1, 0, 3, 3), (3, 3), resize, PADDING_COLOR)[0, 0].tolist() == list(PADDING_COLOR)


def test_padding_is_not_blended_into_the_picture():
    image = np.full((8, 8, 3), 200, np.uint8)
    crop = shown(image, (-4, -4, 16, 16), (24, 24), resize, PADDING_COLOR)
    inside = (crop == 200).all(2)
    assert inside.sum() == 12 * 12
    assert (crop[~inside] == PADDING_COLOR).all()


@given(sizes, sizes, st.integers(0, 99))
def test_image_and_label_are_padded_alike(frame, crop, seed):
    image, label = np.full((*frame, 3), 9, np.uint8), np.zeros(frame, np.uint8)
    image, label = sample(image, label, np.random.default_rng(seed), config(crop_size=crop))
    np.testing.assert_array_equal((image == 9).all(2), label == 0)
    assert (label == 0).any()


def test_resized_label_holds_no_new_class(rng):
    label = rng.choice(np.array([3, 17, 255], np.uint8), (20, 30))
    assert set(np.unique(resized(label, (7, 41), resize_label))) <= {3, 17, 255}


def test_label_and_image_share_their_pixel_centres():
    ramp = np.repeat(np.arange(0, 240, 10, dtype=np.uint8)[None], 8, 0)
    image = np.repeat(ramp[..., None], 3, 2)
    for size in ((8, 8), (8, 72), (8, 31)):  # at a factor of 2 two pixels are equally near
        difference = resized(image, size)[..., 0].astype(int) - resized(ramp, size, resize_label)
        assert abs(difference[:, 1:-1].mean()) < 1.5


def test_half_of_the_samples_are_mirrored():
    image, label = coordinates(40, 60)
    whole = config(crop_size=(40, 60), scale_range=(1, 1), flip=True)
    samples = [sample(image, label, np.random.default_rng(seed), whole) for seed in range(100)]
    turned = [np.array_equal(made[:, ::-1], image) and np.array_equal(kind[:, ::-1], label) for made, kind in samples]
    straight = [np.array_equal(made, image) and np.array_equal(kind, label) for made, kind in samples]
    assert all(a != b for a, b in zip(turned, straight, strict=True))
    assert 35 < sum(turned) < 65


@given(sizes, sizes, st.integers(0, 9))
def test_mirrored_crop_is_the_mirror_of_the_crop(frame, crop, seed):
    image, label = coordinates(*frame)
    window = random_window(label, np.random.default_rng(seed), config(), crop)
    straight, turned = (shown(image, window, crop, resize, PADDING_COLOR, mirrored) for mirrored in (False, True))
    assert abs(turned[:, ::-1].astype(int) - straight).max() <= 1
    straight, turned = (shown(label, window, crop, resize_label, 255, mirrored) for mirrored in (False, True))
    np.testing.assert_array_equal(turned[:, ::-1], straight)


def test_sample_is_a_function_of_its_seed():
    pair = coordinates(40, 40)
    options = config(crop_size=(16, 24), flip=True)
    first, again, other = (sample(*pair, np.random.default_rng(seed), options) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()


@given(sizes, sizes, st.integers(0, 9))
def test_resized_image_is_that_of_pillow(before, after, seed):
    image = np.random.default_rng(seed).integers(0, 256, (*before, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize(after[::-1], Image.Resampling.BILINEAR)).astype(int)
    assert abs(resized(image, after) - theirs).max() <= 1


def test_share_counts_labelled_pixels_alone():
    assert largest_share(np.array([[3, 3, 3, 7], [255, 255, 255, 255]], np.uint8)) == 0.75
    assert largest_share(np.full((2, 2), IGNORE_INDEX, np.uint8)) == 1


def test_crops_of_one_class_are_drawn_again():
    label = np.zeros((40, 400), np.uint8)
    label[:, 360:] = 1
    options = config(crop_size=(40, 40), scale_range=(1, 1))

    def mixed(cat_max_ratio):
        limited = replace(options, cat_max_ratio=cat_max_ratio)
        windows = [random_window(label, np.random.default_rng(seed), limited, limited.crop_size) for seed in range(200)]
        return sum(largest_share(part(label, window)) < 0.75 for window in windows)

    assert 0 < mixed(1.0) < 20 < mixed(0.75)


def test_place_is_changed_by_the_rule_of_mmsegmentation():
    """One place and up to ten others; a place without any labelled pixel is as bad as one of a single class."""
    label = np.full((40, 400), IGNORE_INDEX, np.uint8)
    label[:, 150:380] = 3
    label[:, 380:] = 4
    options = config(crop_size=(40, 40), scale_range=(1, 1), cat_max_ratio=0.75)

    def is_mixed(left):
        counts = [(label[:, left : left + 40] == kind).sum() for kind in (3, 4)]
        return min(counts) > 0 and max(counts) < 0.75 * sum(counts)

    tries = []
    for seed in range(300):
        rng, other = (np.random.default_rng(seed) for _ in range(2))
        other.uniform(1, 1)  # the scale
        places = [(int(other.integers(1)), int(other.integers(361)))[1] for _ in range(11)]
        tries.append(next((number for number, left in enumerate(places) if is_mixed(left)), 10))
        assert random_window(label, rng, options, (40, 40)) == (0, places[tries[-1]], 40, 40)
    assert set(tries) == set(range(11))


def test_first_place_that_is_mixed_is_taken():
    label = np.arange(1600, dtype=np.uint8).reshape(40, 40) % 2
    windows = [
        random_window(label, np.random.default_rng(5), config(cat_max_ratio=ratio), (16, 16)) for ratio in (1.0, 0.75)
    ]
    assert windows[0] == windows[1]


@given(st.integers(0, 200), sizes)
def test_crop_shows_the_wanted_class(seed, crop):
    label = np.zeros((40, 60), np.uint8)
    row, column = divmod(seed * 37 % 2400, 60)
    label[row, column] = 9
    window = random_window(label, np.random.default_rng(seed), config(), crop, 9)
    assert (part(label, window) == 9).any()


def test_class_that_is_not_there_changes_nothing():
    label = np.zeros((40, 60), np.uint8)
    options = config(crop_size=(16, 16))
    windows = [random_window(label, np.random.default_rng(3), options, (16, 16), wanted) for wanted in (None, 9)]
    assert windows[0] == windows[1]
