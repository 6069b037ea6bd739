import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as official

from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, UNKNOWN, LabelClass, LabelSet, read_label_set
from deeplabv3.errors import DatasetError

OWN = """
name: yard
classes:
  - {name: path, id: 4, color: [1, 2, 3]}
  - {name: grass, id: 9, color: [4, 5, 6]}
ignored_ids: [0, 255]
"""


def test_table_is_the_official_one():
    theirs = [row for row in official if row.id >= 0]
    assert len(theirs) == len(CITYSCAPES.classes) == 34
    for ours, row in zip(CITYSCAPES.classes, theirs, strict=True):
        assert (ours.name, ours.id, ours.train_id, ours.category) == (row.name, row.id, row.trainId, row.category)
        assert (ours.has_instances, ours.color) == (row.hasInstances, row.color)


def test_id_to_train_id_and_back():
    ids = CITYSCAPES.id_of_train_id
    assert CITYSCAPES.train_id_of_id[ids].tolist() == list(range(19))


def test_every_value_is_a_class_ignored_or_unknown():
    table = CITYSCAPES.train_id_of_id
    assert (table[:34] != UNKNOWN).all()
    assert (table[34:] == UNKNOWN).all()
    assert (table == IGNORE_INDEX).sum() == 15


def test_own_classes(tmp_path):
    path = tmp_path / "yard.yaml"
    path.write_text(OWN)
    labels = read_label_set(path)
    assert (labels.name, labels.num_classes, labels.names) == ("yard", 2, ("path", "grass"))
    assert labels.train_id_of_id[[4, 9, 0, 255, 5]].tolist() == [0, 1, IGNORE_INDEX, IGNORE_INDEX, UNKNOWN]
    np.testing.assert_array_equal(labels.palette, [[1, 2, 3], [4, 5, 6]])


def test_classes_are_left_out_by_name():
    labels = CITYSCAPES.without(["sidewalk"])
    assert labels.num_classes == 18
    assert labels.train_id_of_id[[7, 8, 11]].tolist() == [0, IGNORE_INDEX, 1]
    assert LabelSet.from_dict(labels.to_dict()) == labels
    assert CITYSCAPES.without([]) is CITYSCAPES
    with pytest.raises(DatasetError, match="trains no class 'moon' to ignore; it has road"):
        CITYSCAPES.without(["moon"])


def test_one_class_is_left():
    with pytest.raises(DatasetError, match="^all 19 classes of cityscapes are ignored; leave one to train$"):
        CITYSCAPES.without(CITYSCAPES.names)


def test_two_ids_may_share_a_train_id():
    rows = [{"name": "car", "id": 1, "color": [0, 0, 1]}, {"name": "van", "id": 2, "color": [0, 0, 2], "train_id": 0}]
    labels = LabelSet.from_dict({"classes": rows})
    assert labels.num_classes == 1
    assert labels.id_of_train_id.tolist() == [1]


@pytest.mark.parametrize(
    "labels", [CITYSCAPES, LabelSet.from_dict({"classes": [{"name": "a", "id": 0, "color": [0, 0, 0]}]})]
)
def test_dictionary_round_trip(labels):
    assert LabelSet.from_dict(labels.to_dict()) == labels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [", "not a YAML file"),
        ("- a", "lists no classes"),
        ("classes: []", "lists no classes"),
        ("classes: [{name: a, id: 0}]", "does not fit .'color'"),
        ("classes: [{name: a, id: 0, color: [0, 0]}]", "does not fit .a value of another type"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0], colour: 1}]", "does not fit .*colour"),
        ("classes: [{name: a, id: 256, color: [0, 0, 0]}]", "id 256 of 'a' is not in 0..255"),
        ("classes: [{name: a, id: 0, color: [0, 0, 256]}]", "not three values"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0]}]\nignored_ids: [0]", "id 0 is given twice"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0], train_id: 1}]", "run from 0 without a gap"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0]}]\nvoid: 3", "unknown key 'void'"),
        (
            "classes: ["
            + ", ".join(f"{{name: c{i}, id: {i}, color: [0, 0, 0], train_id: {i % 9}}}" for i in range(256))
            + "]",
            "all 256 ids are classes, and none is left for no class",
        ),
        ("classes: 5", "classes is 5; write a list"),
        ("classes: [road]", "does not fit"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0]}]\nignored_ids: 255", "ignored_ids is 255; write a list"),
        ("classes: [{name: a, id: 0, color: [0, 0, 0]}]\nignored_ids: [x]", "'x' in ignored_ids is not a whole number"),
        ("classes: [{name: a, id: seven, color: [0, 0, 0]}]", "does not fit .a value of another type"),
        ("classes: [{name: a, id: 1.5, color: [0, 0, 0]}]", "does not fit .a value of another type"),
        ("classes: [{name: 5, id: 1, color: [0, 0, 0]}]", "does not fit .a value of another type"),
        ("classes: [{name: a, id: 1, color: '123'}]", "does not fit .a value of another type"),
        ("classes: [{name: a, id: 1, color: [0, 0, 0], train_id: x}]", "does not fit .a value of another type"),
    ],
)
def test_unusable_table(tmp_path, text, message):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_label_set(path)


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        read_label_set(tmp_path / "none.yaml")


@pytest.mark.parametrize(("dropped", "left", "table"), [("a", ["c"], [255, 0]), ("b", ["a", "c"], [0, 1])])
def test_class_goes_with_all_that_counts_as_it(dropped, left, table):
    """Labels in trainIds cannot tell what is merged, so there a class stays while one of its rows does."""
    rows = [
        LabelClass(name, id_, train_id, (0, 0, 0)) for name, id_, train_id in (("a", 1, 0), ("b", 2, 0), ("c", 3, 1))
    ]
    labels = LabelSet("own", tuple(rows)).without([dropped])
    assert list(labels.names) == left
    assert labels.train_id_of_id[2] == IGNORE_INDEX
    assert labels.train_id_of_file[:2].tolist() == table
