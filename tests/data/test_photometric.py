import math

import numpy as np
import pytest
import torch

from deeplabv3.data import photometric
from deeplabv3.data.photometric import draw_color, recolored


@pytest.mark.parametrize(
    ("change", "amount", "before", "after"),
    [
        ("_brightness", 0.0, (10, 20, 30), (-22, -12, -2)),
        ("_brightness", 1.0, (10, 20, 30), (42, 52, 62)),
        ("_contrast", 0.0, (10, 20, 30), (5, 10, 15)),
        ("_contrast", 1.0, (10, 20, 30), (15, 30, 45)),
        ("_saturation", 0.0, (100, 0, 0), (64.95, 14.95, 14.95)),  # halfway to its grey of 29.9
        ("_saturation", 0.5, (10, 20, 30), (10, 20, 30)),
        ("_saturation", 1.0, (100, 0, 0), (135.05, -14.95, -14.95)),
        ("_hue", 0.5, (10, 20, 30), (10, 20, 30)),
        # 100 / 3 of grey, and 200 / 3 of what is turned, of which red has the cosine of the angle to its axis.
        ("_hue", 0.0, (100, 0, 0), [100 / 3 + 200 / 3 * math.cos(math.radians(36 + axis)) for axis in (0, 120, 240)]),
        ("_hue", 1.0, (100, 0, 0), [100 / 3 + 200 / 3 * math.cos(math.radians(36 + axis)) for axis in (0, 240, 120)]),
    ],
)
def test_each_change_is_its_formula(change, amount, before, after):
    matrix = getattr(photometric, change)(amount)
    np.testing.assert_allclose(matrix[:, :3] @ before + matrix[:, 3], after, atol=1e-9)


@pytest.mark.parametrize("change", ["_saturation", "_hue"])
@pytest.mark.parametrize("amount", [0.0, 0.3, 1.0])
def test_grey_stays_grey(change, amount):
    matrix = getattr(photometric, change)(amount)
    np.testing.assert_allclose(matrix[:, :3] @ (90, 90, 90) + matrix[:, 3], 90, atol=1e-9)


@pytest.mark.parametrize("amount", [0.0, 1.0])
def test_hue_turns_by_at_most_36_degrees(amount):
    """Around the grey axis, seen along it; mmsegmentation adds 18 to hues that OpenCV keeps as 0 to 179."""
    along = np.array([[1, -0.5, -0.5], [0, 3**0.5 / 2, -(3**0.5) / 2]])
    seen = [complex(*(along @ color)) for color in ([90.0, 40.0, 30.0], photometric._hue(amount)[:, :3] @ [90, 40, 30])]
    assert abs(np.angle(seen[1] / seen[0], deg=True)) == pytest.approx(36)


@pytest.mark.parametrize("amount", [0.0, 0.5, 1.0])
def test_changes_are_composed_in_their_order(amount):
    """Contrast is of what brightness made, saturation of that, and hue is last."""

    class Chance:
        def __init__(self):
            self.drawn = iter([0.0, amount] * 4)

        def random(self):
            return next(self.drawn)

    wanted = np.array([10.0, 200.0, 60.0])
    for change in ("_brightness", "_contrast", "_saturation", "_hue"):
        matrix = getattr(photometric, change)(amount)
        wanted = matrix[:, :3] @ wanted + matrix[:, 3]
    matrix = draw_color(Chance())
    np.testing.assert_allclose(matrix[:, :3] @ (10, 200, 60) + matrix[:, 3], wanted)


def test_half_of_the_samples_are_changed_by_each():
    matrices = [draw_color(np.random.default_rng(seed)) for seed in range(400)]
    unchanged = sum(bool((matrix == np.eye(3, 4)).all()) for matrix in matrices)
    assert 10 < unchanged < 45  # one in sixteen


def test_batch_is_recolored_frame_by_frame(rng):
    image = rng.integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    colors = np.stack([draw_color(np.random.default_rng(seed)) for seed in range(3)])
    batch = torch.from_numpy(image).permute(0, 3, 1, 2)
    changed = recolored(batch, torch.from_numpy(colors).float()).permute(0, 2, 3, 1).numpy()
    for pixels, color, seen in zip(image, colors, changed, strict=True):
        wanted = (pixels.astype(float) @ color[:, :3].T + color[:, 3]).clip(0, 255)
        np.testing.assert_allclose(seen, wanted, atol=1e-3)


def test_no_change_is_the_same_picture(rng):
    image = torch.from_numpy(rng.integers(0, 256, (2, 3, 4, 5), dtype=np.uint8))
    assert torch.equal(recolored(image, torch.eye(3, 4).expand(2, 3, 4)), image.float())
