import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import Labelled, read_labels
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.streets import write_streets
from deeplabv3.errors import DatasetError, InputError
from deeplabv3.evaluation.confusion import count_pixels, no_counts
from deeplabv3.evaluation.frames import combined, count_frame, why_no_iiou_of
from deeplabv3.evaluation.instances import MEAN_INSTANCE_PIXELS, count_instances
from deeplabv3.evaluation.scores import scores_from
from tests.conftest import REPOSITORY
from tests.evaluation.oracle import official, script

CAMVID = REPOSITORY.parent / "shared" / "camvid"
IDS = [row.id for row in CITYSCAPES.classes]
IGNORED = [row.id for row in CITYSCAPES.classes if row.train_id == 255]
THINGS = [row.id for row in CITYSCAPES.classes if row.has_instances]
OFFICIAL_KEYS = [
    "confMatrix",
    "priors",
    "labels",
    "classScores",
    "classInstScores",
    "categoryScores",
    "categoryInstScores",
    "averageScoreClasses",
    "averageScoreInstClasses",
    "averageScoreCategories",
    "averageScoreInstCategories",
]


def ours(frames):
    """Our scores of (label ids, prediction ids, instance ids) of each frame."""
    counted = [
        count_frame(Labelled(str(place), label, instance), prediction, CITYSCAPES)
        for place, (label, prediction, instance) in enumerate(frames)
    ]
    return combined(sum(counts for counts, _ in counted), [record for _, record in counted], CITYSCAPES)


def assert_equal(ours, theirs, where=""):
    """Every number within 1e-12, and null where the official script has NaN."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list):
        np.testing.assert_array_equal(ours, theirs)
    elif math.isnan(theirs):
        assert ours is None, where
    else:
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12), where


@st.composite
def frames(draw):
    """One to three frames of any small size, each with few or many ids, things with and without numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    result = []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.sampled_from([(1, 1), (1, 7), (5, 3), (16, 24)]))
        pool = draw(st.sampled_from([IDS, IGNORED, THINGS, [7, 26], [24, 25, 29, 30, 26]]))
        label = rng.choice(pool, shape).astype(np.uint8)
        guess = rng.choice(draw(st.sampled_from([IDS, pool, THINGS])), shape).astype(np.uint8)
        prediction = np.where(rng.random(shape) < draw(st.sampled_from([0, 0.5, 1])), label, guess)
        numbered = np.isin(label, THINGS) & (rng.random(shape) < draw(st.sampled_from([0, 0.7, 1])))
        number = rng.integers(0, draw(st.sampled_from([1, 4])), shape)
        instance = np.where(numbered, label.astype(np.uint16) * 1000 + number, label).astype(np.uint16)
        result.append((label, prediction, instance))
    return result


@given(frames())
@settings(max_examples=400)
def test_every_number_is_the_official_one(frames):
    record, theirs = ours(frames).to_json(), official(frames)
    assert_equal({key: record[key] for key in OFFICIAL_KEYS}, {key: theirs[key] for key in OFFICIAL_KEYS})


def test_scores_of_scenes_are_the_official_ones(tmp_path, rng):
    write_streets(tmp_path, num_train=0, num_val=4, height=128, width=256, seed=3)
    scenes = []
    for sample in find_samples(tmp_path, "val"):
        scene = read_labels(sample, CITYSCAPES, instances=True)
        label = scene.label_ids
        guess = np.where(rng.random(label.shape) < 0.6, label, np.roll(label, 9, 1))
        scenes.append((label, guess, scene.instance_ids))
    record, theirs = ours(scenes).to_json(), official(scenes)
    assert_equal({key: record[key] for key in OFFICIAL_KEYS}, {key: theirs[key] for key in OFFICIAL_KEYS})
    assert record["averageScoreInstClasses"] > 0.3


@pytest.mark.skipif(not CAMVID.is_dir(), reason="needs the CamVid frames")
def test_scores_of_real_frames_are_the_official_ones(rng):
    pairs = []
    for sample in find_samples(CAMVID, "val")[:20]:
        label = read_labels(sample, CITYSCAPES).label_ids
        pairs.append((label, np.where(rng.random(label.shape) < 0.6, label, np.roll(label, 15, 1)), None))
    scores, theirs = ours(pairs), official(pairs, instances=False)
    wanted = [key for key in OFFICIAL_KEYS if "Inst" not in key]
    assert_equal({key: scores.to_json()[key] for key in wanted}, {key: theirs[key] for key in wanted})
    assert 0.3 < scores.miou < 0.9


def test_mean_sizes_are_the_official_ones():
    assert MEAN_INSTANCE_PIXELS == script.args.avgClassSize


labels = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, 4))


@given(labels, labels)
def test_counts_are_those_of_a_loop(label, prediction):
    counts = np.zeros((5, 5), np.int64)
    for row, column in zip(label.ravel(), prediction.ravel(), strict=True):
        counts[row, column] += 1
    np.testing.assert_array_equal(count_pixels(label, prediction, 5), counts)


@given(labels, labels)
def test_counts_of_parts_add_up(label, prediction):
    parts = sum(count_pixels(label[rows], prediction[rows], 5) for rows in (slice(0, 2), slice(2, 6)))
    np.testing.assert_array_equal(parts, count_pixels(label, prediction, 5))


def test_counts_reach_the_last_cell():
    last = np.full((2, 2), 255, np.uint8)
    counts = count_pixels(last, last, 256)
    assert counts[255, 255] == counts.sum() == 4
    assert counts.dtype == np.int64


def test_absent_class_is_nan_and_left_out_of_the_mean():
    counts = no_counts(CITYSCAPES)
    counts[7, 7], counts[8, 7], counts[8, 8] = 6, 2, 2
    scores = scores_from(counts, CITYSCAPES)
    assert scores.class_iou["road"] == 6 / 8
    assert scores.class_iou["sidewalk"] == 2 / 4
    assert math.isnan(scores.class_iou["train"])
    assert scores.miou == (6 / 8 + 2 / 4) / 2
    assert scores.category_iou["flat"] == 1
    assert scores.pixel_accuracy == 8 / 10


def test_predicted_class_without_a_label_counts_as_0():
    counts = no_counts(CITYSCAPES)
    counts[7, 7], counts[7, 31] = 1, 1
    scores = scores_from(counts, CITYSCAPES)
    assert scores.class_iou["train"] == 0
    assert scores.miou == 0.25


def test_prediction_on_an_ignored_label_is_no_false_positive():
    counts = no_counts(CITYSCAPES)
    counts[7, 7], counts[0, 7] = 1, 100
    assert scores_from(counts, CITYSCAPES).class_iou["road"] == 1


def test_ignored_id_as_a_prediction_is_a_false_negative():
    counts = no_counts(CITYSCAPES)
    counts[7, 7], counts[7, 0] = 1, 3
    scores = scores_from(counts, CITYSCAPES)
    assert (scores.class_iou["road"], scores.pixel_accuracy) == (0.25, 0.25)


def test_nothing_counted_is_nan_and_null():
    scores = scores_from(no_counts(CITYSCAPES), CITYSCAPES)
    assert math.isnan(scores.miou)
    record = scores.to_json()
    assert record["averageScoreClasses"] is None
    assert record["classScores"]["road"] is None
    assert record["priors"]["road"] is None


def test_small_object_weighs_as_much_as_a_large_one():
    instance = np.array([[26000] * 8 + [26001] * 2], np.uint16)
    prediction = np.array([[26] * 8 + [7] * 2], np.uint8)
    scores = ours([(np.full((1, 10), 26, np.uint8), prediction, instance)])
    assert scores.class_iou["car"] == 0.8
    assert scores.class_iiou is not None
    assert scores.class_iiou["car"] == pytest.approx(0.5)


def test_order_of_the_objects_does_not_change_a_bit(rng):
    objects = np.stack([rng.choice(THINGS, 300), rng.integers(50, 90, 300), *rng.integers(0, 50, (2, 300))], 1)
    results = [scores_from(no_counts(CITYSCAPES), CITYSCAPES, instances=rng.permutation(objects)) for _ in range(4)]
    seen = {repr((result.class_iiou, result.category_iiou)) for result in results}  # some are no number
    assert len(seen) == 1


def test_object_outside_the_table_is_refused():
    with pytest.raises(DatasetError, match="it holds 40001, an object of label id 40, which cityscapes has not"):
        count_instances(np.full((1, 1), 40001, np.uint16), np.zeros((1, 1), np.uint8), CITYSCAPES)


@pytest.mark.parametrize("value", [5001, 7001, 29001])
def test_objects_that_are_not_scored_are_left_out(value):
    assert len(count_instances(np.full((1, 1), value, np.uint16), np.zeros((1, 1), np.uint8), CITYSCAPES)) == 0


def test_ids_of_one_class_have_its_mean_size():
    rows = [("car", 26, 0), ("van", 27, 0)]
    table = [
        {"name": name, "id": id_, "train_id": train_id, "color": [0, 0, 0], "has_instances": True}
        for name, id_, train_id in rows
    ]
    own = LabelSet.from_dict({"name": "own", "classes": table, "ignored_ids": [0]})
    instance = np.array([[26000, 27000]], np.uint16)
    frame, guess = Labelled("a", np.array([[26, 27]], np.uint8), instance), np.array([[26, 26]], np.uint8)
    counts, record = count_frame(frame, guess, own)
    assert combined(counts, [record], own).class_iiou == {"car": 1}


def test_counts_of_a_frame_are_in_the_json():
    label, guess = np.array([[7, 7, 8, 0]], np.uint8), np.array([[7, 8, 8, 8]], np.uint8)
    frame = ours([(label, guess, None)]).to_json()["perImageScores"]["0"]
    assert (frame["nbNotIgnoredPixels"], frame["nbCorrectPixels"], frame["averageScoreClasses"]) == (3, 2, 0.5)


def test_ids_of_one_train_id_are_one_class():
    rows = [("grass", 9, 0, "green"), ("weeds", 10, 0, "green"), ("path", 4, 1, "flat")]
    table = [
        {"name": name, "id": id_, "train_id": train_id, "category": category, "color": [0, 0, 0]}
        for name, id_, train_id, category in rows
    ]
    yard = LabelSet.from_dict({"name": "yard", "classes": table, "ignored_ids": [0]})
    label, prediction = np.array([[9, 10, 4, 0]], np.uint8), np.array([[9, 9, 9, 9]], np.uint8)
    counts, record = count_frame(Labelled("a", label), prediction, yard)
    scores = combined(counts, [record], yard)
    assert scores.class_iou == {"grass": 2 / 3, "path": 0}
    assert scores.category_iou == {"green": 2 / 3, "flat": 0}
    assert scores.class_iiou == {}
    assert why_no_iiou_of([], yard) == "yard has no class whose instances have a known mean size"


@pytest.mark.parametrize(("label", "prediction", "what"), [(0, 34, "prediction"), (34, 0, "label")])
def test_value_out_of_range_is_never_a_wrong_cell(label, prediction, what):
    with pytest.raises(InputError, match=f"a {what} holds 34; allowed are the label ids 0..33"):
        count_pixels(np.array([label], np.uint8), np.array([prediction], np.uint8), 34)


def test_sizes_must_agree():
    with pytest.raises(InputError, match=r"prediction is \(2, 3\) and its label \(2, 2\)"):
        count_pixels(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 34)
