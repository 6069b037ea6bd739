import math

import numpy as np
import pytest

from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.evaluation.scores import FrameScore
from deeplabv3.report.gallery import frame_article, legend
from deeplabv3.report.worst import FILE_SIDE, IGNORED, PAGE_SIDE, WRONG, error_map, lowest, panels_of, strip
from tests.report.conftest import YARD, frame_of


def test_worst_frames_are_the_lowest():
    scores = [0.5, math.nan, 0.1, 0.5, 0.3]
    frames = [FrameScore(f"{score}", score, 1, 1) for score in scores]
    assert lowest(frames, 3) == [2, 4, 0]
    assert lowest(frames, 99) == [2, 4, 0, 3]
    assert lowest(frames, 0) == []


def test_error_map_tells_right_wrong_and_ignored_apart(rng):
    image = rng.integers(0, 256, (1, 4, 3), dtype=np.uint8)
    label = np.array([[0, 1, IGNORE_INDEX, 2]], np.uint8)
    prediction = np.array([[0, 2, 2, IGNORE_INDEX]], np.uint8)
    right, wrong, ignored, missed = error_map(image, label, prediction)[0].tolist()
    assert right[0] == right[1] == right[2] > 190
    assert wrong == missed == list(WRONG)
    assert tuple(ignored) in IGNORED


@pytest.mark.parametrize("size", [(1, 1), (9, 4), (1, 700), (1300, 8), (640, 640)])
def test_frames_of_any_size_are_shown(size, rng):
    ids = np.array([255, 3, 9, 70, 0], np.uint8)
    frame, _ = frame_of(ids[rng.integers(0, 5, size)], ids[rng.integers(0, 5, size)])
    panels = panels_of(frame, YARD, PAGE_SIDE)
    assert all(picture.shape[:2] == panels.label.shape for picture in panels)
    assert max(panels.label.shape) == min(PAGE_SIDE, max(size))
    assert set(np.unique(panels.label)) <= {0, 1, 2, IGNORE_INDEX}
    article = frame_article(frame, YARD)
    assert article.count("<img") == 4
    assert len(article) < 1_500_000
    assert strip(frame, YARD).shape[1] <= 2 * FILE_SIDE + 200


def test_picture_of_a_frame_holds_its_pixels():
    frame, _ = frame_of(np.full((4, 6), 3), np.full((4, 6), 70))
    picture = strip(frame, YARD)
    assert picture.shape[1] >= 2 * 6 * (480 // 6)
    for color in ((107, 142, 35), (70, 130, 180), WRONG):
        assert (picture == color).all(-1).sum() >= 480 * 320


def test_classes_that_went_wrong_the_most_are_named():
    article = frame_article(frame_of([[3, 3, 3, 255]], [[70, 70, 255, 255]])[0], YARD)
    first, second = article.split("<li")[1:]
    assert all(word in first for word in ("grass", "pond", "50.0 %", "2 pixels"))
    assert "25.0 %" in second


def test_legend_has_every_class():
    text = legend(YARD)
    assert "weeds" not in text  # counted as grass
    assert all(f"</i>{name}</li>" in text for name in ("grass", "pond", "ignored", "wrong", "right"))
