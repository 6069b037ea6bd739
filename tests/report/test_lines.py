import math
import re

import pytest

from deeplabv3.report.curves import epoch_ticks, loss_limit, nice_step, points_of
from deeplabv3.report.lines import curves
from tests.report.conftest import HISTORY


def test_values_are_on_hover():
    assert "<title>epoch 3: validation loss 1.7500</title>" in curves(HISTORY)
    assert "<title>epoch 1: validation loss 1,897.6000</title>" in curves(HISTORY)


def test_a_first_loss_that_is_far_off_does_not_flatten_the_others():
    assert loss_limit(HISTORY) == 4.0
    assert "above the scale" in curves(HISTORY)
    assert "above the scale" not in curves(HISTORY[1:])


def test_the_last_validation_loss_is_on_the_scale():
    history = [{"epoch": n, "train_loss": 0.5, "val_loss": float(n), "miou": None} for n in range(1, 10)]
    assert loss_limit(history) == 9.0


def test_epochs_without_validation_are_no_points():
    assert points_of(HISTORY, "val_loss") == [(1, 1897.6), (3, 1.75)]
    assert points_of([{"epoch": 1, "val_loss": math.inf}], "val_loss") == []


@pytest.mark.parametrize("history", [HISTORY[:1], HISTORY[1:2], [{"epoch": 5, "train_loss": 0.0, "miou": 0.0}]])
def test_one_epoch_is_a_point(history):
    drawing = curves(history)
    assert "<circle" in drawing
    assert "nan" not in drawing


def test_everything_is_drawn_within_its_frame():
    for x, y in re.findall(r'c[x]="([\d.-]+)" cy="([\d.-]+)"', curves(HISTORY)):
        assert 0 <= float(x) <= 520
        assert 0 <= float(y) <= 270


def test_no_history_has_no_charts():
    assert curves([]) == ""


@pytest.mark.parametrize(("limit", "step"), [(0, 1), (1, 0.2), (4, 1), (9, 2), (24, 5), (0.03, 0.01)])
def test_steps_are_round(limit, step):
    assert nice_step(limit, 5) == pytest.approx(step)


def test_epochs_at_the_axis_are_round():
    assert epoch_ticks(1, 70) == [1, 10, 20, 30, 40, 50, 60, 70]
    assert epoch_ticks(1, 6) == [1, 2, 3, 4, 5, 6]
    assert epoch_ticks(3, 3) == [3]
