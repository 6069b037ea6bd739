import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.errors import InputError
from deeplabv3.evaluation.confusion import count_pixels, no_counts
from deeplabv3.evaluation.scores import class_iou, scores_from

labels = hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, IGNORE_INDEX]))
predictions = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 3))


@given(labels, predictions)
def test_counts_are_those_of_a_loop(label, prediction):
    counts = np.zeros((4, 4), np.int64)
    for row, column in zip(label.ravel(), prediction.ravel(), strict=True):
        if row != IGNORE_INDEX:
            counts[row, column] += 1
    np.testing.assert_array_equal(count_pixels(label, prediction, 4), counts)


@given(labels, predictions)
def test_iou_is_intersection_over_union_of_sets(label, prediction):
    iou = class_iou(count_pixels(label, prediction, 4))
    seen = label != IGNORE_INDEX
    for train_id in range(4):
        here, there = seen & (label == train_id), seen & (prediction == train_id)
        union = (here | there).sum()
        expected = (here & there).sum() / union if union else math.nan
        np.testing.assert_equal(iou[train_id], expected)


@given(labels, predictions)
def test_counts_of_parts_add_up(label, prediction):
    parts = sum(count_pixels(label[rows], prediction[rows], 4) for rows in (slice(0, 2), slice(2, 6)))
    np.testing.assert_array_equal(parts, count_pixels(label, prediction, 4))


def test_absent_class_is_nan_and_left_out_of_the_mean():
    counts = no_counts(CITYSCAPES)
    counts[0, 0], counts[1, 0], counts[1, 1] = 6, 2, 2
    scores = scores_from(counts, CITYSCAPES, num_frames=1)
    assert scores.class_iou["road"] == 6 / 8
    assert scores.class_iou["sidewalk"] == 2 / 4
    assert math.isnan(scores.class_iou["train"])
    assert scores.miou == (6 / 8 + 2 / 4) / 2
    assert scores.pixel_accuracy == 8 / 10


def test_predicted_class_without_a_label_counts_as_0():
    counts = no_counts(CITYSCAPES)
    counts[0, 0], counts[0, 16] = 1, 1
    scores = scores_from(counts, CITYSCAPES, num_frames=1)
    assert scores.class_iou["train"] == 0
    assert scores.miou == 0.25


def test_nothing_counted_is_nan_and_null():
    scores = scores_from(no_counts(CITYSCAPES), CITYSCAPES, num_frames=0)
    assert math.isnan(scores.miou)
    record = scores.to_json()
    assert record["averageScoreClasses"] is None
    assert record["classScores"]["road"] is None


@pytest.mark.parametrize(("label", "prediction", "what"), [(0, 4, "prediction"), (4, 0, "label")])
def test_value_out_of_range_is_never_a_wrong_cell(label, prediction, what):
    with pytest.raises(InputError, match=f"a {what} holds 4; allowed are the trainIds 0..3"):
        count_pixels(np.array([label], np.uint8), np.array([prediction], np.uint8), 4)


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"prediction is \(2, 3\) and its label \(2, 2\)"):
        count_pixels(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 4)
