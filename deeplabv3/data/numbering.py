"""Which of the two numberings the values of a map are in, where its file's name may be wrong."""

from __future__ import annotations

from collections.abc import Iterable

from deeplabv3.data.labels import IGNORE_INDEX, LabelSet


def looks_like_train_ids(seen: Iterable[int], label_set: LabelSet) -> bool:
    """Whether the values of a map are those of trainIds, and hardly those of label ids.

    That is so if all are trainIds or 255, and either 255 is among them and no label id, or three or more of them are
    label ids of ignored classes, which hardly any program predicts: in trainIds, sidewalk, building and sky are three.
    """
    values = set(map(int, seen))
    ids, predicted = {row.id for row in label_set.classes}, {row.id for row in label_set.evaluated}
    is_marked = IGNORE_INDEX in values and IGNORE_INDEX not in ids
    return values <= {*range(label_set.num_classes), IGNORE_INDEX} and (is_marked or len(values - predicted) >= 3)


def may_be_train_ids(seen: Iterable[int], label_set: LabelSet) -> bool:
    """Whether the values of a map could be trainIds and one of them is odd as a label id, which is weak evidence.

    All are trainIds or 255, and one of them is, as a label id, of a class that is never trained, the void id apart.
    """
    values = set(map(int, seen))
    train_ids = {*range(label_set.num_classes), IGNORE_INDEX}
    predicted = {row.id for row in label_set.evaluated}
    return values <= train_ids and bool(values - predicted - {label_set.void_id})
