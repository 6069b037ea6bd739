"""Photometric distortion: chance is drawn with the sample, pixels are changed in the batch, on the device.

Brightness, contrast, saturation and hue vary, each in half of the samples and within the bounds of mmsegmentation's
PhotoMetricDistortion. Every one of the four is linear in RGB, so they are composed into one matrix and the pixels are
visited once.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BRIGHTNESS = 32.0
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE_DEGREES = 36.0  # theirs is 18 in OpenCV's hues of 8 bits, which count half degrees

Matrix = npt.NDArray[np.float64]
"""`(3, 4)`: a linear map of RGB and an offset in 0..255."""

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def draw_color(rng: np.random.Generator) -> Matrix:
    """A random change of brightness, contrast, saturation and hue, `(3, 4)`."""
    matrix = np.eye(3, 4)
    for change in (_brightness, _contrast, _saturation, _hue):
        applied, amount = rng.random() < 0.5, rng.random()
        if applied:
            matrix = _compose(change(amount), matrix)
    return matrix


def recolored(image: Tensor, color: Tensor) -> Tensor:
    """Images with their colours changed.

    Args:
        image: RGB of 0..255, `(N, 3, H, W)`, uint8.
        color: For each, what `draw_color` draws, float32 `(N, 3, 4)` on the same device.

    Returns:
        RGB of 0..255, `(N, 3, H, W)`, float32, not rounded. Each value is the same sum in the same order everywhere.
    """
    red, green, blue = image.float().unsqueeze(1).unbind(2)  # (N, 1, H, W) each
    weights = color[..., None, None]  # (N, 3, 4, 1, 1)
    changed = weights[:, :, 0] * red + weights[:, :, 3]  # (N, 3, H, W)
    changed += weights[:, :, 1] * green
    changed += weights[:, :, 2] * blue
    return changed.clamp_(0, 255).contiguous(memory_format=torch.channels_last)


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
