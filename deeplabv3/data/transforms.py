"""Augmentation: functions of `(image, label, rng)` to `(image, label)`, crop first, resize only the crop.

Images are RGB uint8 `(H, W, 3)`, labels trainIds uint8 `(H, W)`. All chance comes from the generator that is handed
in, so a sample is a function of its seed alone.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplabv3.config import TrainConfig
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import IGNORE_INDEX

Pair = tuple[Pixels, Pixels]

PADDING_COLOR = (124, 116, 104)
"""Mean colour of ImageNet in RGB, which the model's normalisation turns into nearly zero."""

# Bounds of mmsegmentation's PhotoMetricDistortion, each applied to half of the samples.
BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DEGREES = 18.0


def augment(image: Pixels, label: Pixels, rng: np.random.Generator, config: TrainConfig) -> Pair:
    """All the augmentation of a training sample, of the crop's size."""
    image, label = random_scale_crop(image, label, rng, config.crop_size, config.scale_range)
    if config.flip:
        image, label = random_flip(image, label, rng)
    if config.photometric_distortion:
        image = photometric_distortion(image, rng)
    return image, label


def random_scale_crop(
    image: Pixels,
    label: Pixels,
    rng: np.random.Generator,
    crop_size: tuple[int, int],
    scale_range: tuple[float, float],
) -> Pair:
    """Scale a frame by a random factor and cut a crop at a random place, as one step.

    The window that the crop shows is cut out of the frame first and only it is resized: the same picture as the other
    way round, for a fraction of the work. Where the window reaches over the frame's edge, the image is padded with
    `PADDING_COLOR` and the label with `IGNORE_INDEX`.

    Args:
        image: The frame.
        label: Its label.
        rng: Source of chance.
        crop_size: Height and width of the result in pixels.
        scale_range: Smallest and largest factor; 2 shows things twice as large.
    """
    scale = rng.uniform(*scale_range)
    height, width = (max(1, round(size / scale)) for size in crop_size)
    top, left = (_offset(rng, full, part) for full, part in zip(label.shape, (height, width), strict=True))
    image = cut(image, top, left, height, width, PADDING_COLOR)
    label = cut(label, top, left, height, width, IGNORE_INDEX)
    return resize(image, crop_size), resize_label(label, crop_size)


def _offset(rng: np.random.Generator, full: int, part: int) -> int:
    """A place for a window of `part` in a frame of `full`; negative if the window is the larger one."""
    low, high = sorted((0, full - part))
    return int(rng.integers(low, high + 1))


def cut(pixels: Pixels, top: int, left: int, height: int, width: int, padding: int | tuple[int, int, int]) -> Pixels:
    """A window of an image or label, filled with `padding` where it reaches over the edge."""
    inside = pixels[max(0, top) : top + height, max(0, left) : left + width]
    if inside.shape[:2] == (height, width):
        return inside
    window = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    window[...] = padding
    y, x = max(0, -top), max(0, -left)
    window[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return window


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Bilinear, over all source pixels that a target pixel covers; `size` is height and width."""
    return image if image.shape[:2] == size else _resize(image, size, Image.Resampling.BILINEAR)


def resize_label(label: Pixels, size: tuple[int, int]) -> Pixels:
    """The nearest pixel's class; on the same grid as `resize`, whose pixel centres it shares."""
    return label if label.shape == size else _resize(label, size, Image.Resampling.NEAREST)


def _resize(pixels: Pixels, size: tuple[int, int], method: Image.Resampling) -> Pixels:
    height, width = size
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def random_flip(image: Pixels, label: Pixels, rng: np.random.Generator) -> Pair:
    """Mirror half of the samples left to right."""
    return (image[:, ::-1], label[:, ::-1]) if rng.random() < 0.5 else (image, label)


def photometric_distortion(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Vary brightness, contrast, saturation and hue, each in half of the samples.

    Every one of the four is linear in RGB, so they are composed into one matrix and the pixels are visited once.
    """
    matrix = np.eye(3, 4)
    for change in (_brightness, _contrast, _saturation, _hue):
        applied, amount = rng.random() < 0.5, rng.random()
        if applied:
            matrix = _compose(change(amount), matrix)
    picture = Image.fromarray(image).convert("RGB", tuple(matrix.ravel().tolist()))  # rounds and clips
    return np.asarray(picture)


Matrix = npt.NDArray[np.float64]
"""`(3, 4)`: a linear map of RGB and an offset in 0..255."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def _compose(after: Matrix, before: Matrix) -> Matrix:
    linear = after[:, :3] @ before
    linear[:, 3] += after[:, 3]
    return linear


def _brightness(amount: float) -> Matrix:
    offset = BRIGHTNESS * (2 * amount - 1)
    return np.hstack([np.eye(3), np.full((3, 1), offset)])


def _contrast(amount: float) -> Matrix:
    return np.eye(3, 4) * (CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * amount)


def _saturation(amount: float) -> Matrix:
    factor = SATURATION[0] + (SATURATION[1] - SATURATION[0]) * amount
    return np.hstack([factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1)), np.zeros((3, 1))])


def _hue(amount: float) -> Matrix:
    """A turn of colour around the grey axis (Rodrigues' formula about (1, 1, 1) / sqrt 3)."""
    angle = math.radians(HUE_DEGREES) * (2 * amount - 1)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = math.cos(angle) * np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) / 3
    return np.hstack([turn, np.zeros((3, 1))])
