"""Label tables: which classes there are, how files number them, and how the network does.

Two numberings exist side by side. A *label id* is the value stored in a `_gtFine_labelIds.png`; a *trainId* is the
channel of the network that stands for the class, `0..num_classes - 1`, or `IGNORE_INDEX`. A `LabelSet` holds both
and turns one into the other. `CITYSCAPES` is the table of cityscapesScripts (helpers/labels.py); other data sets are
read from one YAML file:

    name: my-streets
    classes:                      # trainId = position in this list, unless train_id says otherwise
      - {name: road, id: 7, color: [128, 64, 128]}
      - {name: car, id: 26, color: [0, 0, 142]}
    ignored_ids: [0, 255]         # ids that occur in files and are neither trained nor scored
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplabv3.errors import DatasetError, InputError, printable
from deeplabv3.records import read_yaml

IGNORE_INDEX = 255
"""The trainId of pixels that are neither trained nor scored."""

UNKNOWN = 254
"""What `LabelSet.train_id_of_id` holds for values that no file may contain; never reaches the network."""


@dataclass(frozen=True)
class LabelClass:
    """One row of a label table.

    Attributes:
        name: What people call it; unique in its table.
        id: Value in label-id PNGs, 0..255.
        train_id: Channel of the network, or `IGNORE_INDEX`.
        color: RGB, each 0..255, of colour masks and legends.
        category: The coarse group it is scored in ("vehicle"), or "".
        has_instances: Whether single objects are told apart in instance-id PNGs.
        file_train_id: Value in `_labelTrainIds.png` files where it is not `train_id`, because classes before it were
            left out of the table; None where it is.
    """

    name: str
    id: int
    train_id: int
    color: tuple[int, int, int]
    category: str = ""
    has_instances: bool = False
    file_train_id: int | None = None


@dataclass(frozen=True)
class LabelSet:
    """A table of classes and its look-up tables.

    Attributes:
        name: Short name for records and messages.
        classes: All rows, ignored ones included.
    """

    name: str
    classes: tuple[LabelClass, ...]

    def __post_init__(self) -> None:
        """Check the table once, so that nothing after it has to.

        Raises:
            DatasetError: A value is out of range, used twice, or the trainIds leave a gap.
        """
        where = f"label set {short(self.name)}"
        for row in self.classes:
            for what, value in (("id", row.id), ("file_train_id", row.file_train_id)):
                if value is not None and not 0 <= value <= 255:
                    text = f"{what} {short(value)} of {short(row.name)} is not in 0..255; a PNG holds one byte"
                    raise DatasetError(f"{where}: {text}")
            if len(row.color) != 3 or not all(0 <= value <= 255 for value in row.color):
                raise DatasetError(
                    f"{where}: color {short(row.color)} of {short(row.name)} is not three values of 0..255"
                )
        for what in ("id", "name"):
            values = [getattr(row, what) for row in self.classes]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise DatasetError(f"{where}: {what} {short(twice[0])} is given twice; each {what} names one class")
        train_ids = sorted({row.train_id for row in self.classes} - {IGNORE_INDEX})
        if not train_ids or train_ids != list(range(len(train_ids))) or len(train_ids) >= UNKNOWN:
            raise DatasetError(
                f"{where}: trainIds {short(train_ids)} must run from 0 without a gap and number 1 to {UNKNOWN - 1}; "
                "a class without train_id takes its position in the list, so those with one stand last"
            )

        if len(self.classes) == 256 and all(row.train_id != IGNORE_INDEX for row in self.classes):
            raise DatasetError(
                f"{where}: all 256 ids are classes, and none is left for no class; ignore one, or merge two"
            )

    @cached_property
    def evaluated(self) -> tuple[LabelClass, ...]:
        """The classes that are trained and scored, by trainId; the first row of a trainId stands for it."""
        first: dict[int, LabelClass] = {}
        for row in self.classes:
            if row.train_id != IGNORE_INDEX:
                first.setdefault(row.train_id, row)
        return tuple(first[train_id] for train_id in sorted(first))

    @property
    def num_classes(self) -> int:
        """Number of trainIds, which is the number of channels of the network's logits."""
        return len(self.evaluated)

    @cached_property
    def train_id_of_id(self) -> npt.NDArray[np.uint8]:
        """uint8 `(256,)`: label id to trainId, `IGNORE_INDEX`, or `UNKNOWN` for ids outside the table."""
        table = np.full(256, UNKNOWN, np.uint8)
        for row in self.classes:
            table[row.id] = row.train_id
        return table

    @cached_property
    def train_id_of_file(self) -> npt.NDArray[np.uint8]:
        """uint8 `(256,)`: value of a `_labelTrainIds.png` to trainId, `IGNORE_INDEX`, or `UNKNOWN`."""
        table = np.full(256, UNKNOWN, np.uint8)
        table[IGNORE_INDEX] = IGNORE_INDEX
        for row in sorted(self.classes, key=lambda row: row.train_id != IGNORE_INDEX):  # what is trained has the say
            table[row.train_id if row.file_train_id is None else row.file_train_id] = row.train_id
        return table

    def train_id_of(self, *, train_ids: bool) -> npt.NDArray[np.uint8]:
        """The table for the values of a file: `train_id_of_file` if it holds trainIds, else `train_id_of_id`."""
        return self.train_id_of_file if train_ids else self.train_id_of_id

    @cached_property
    def train_id_or_ignored(self) -> npt.NDArray[np.uint8]:
        """uint8 `(256,)`: label id to trainId, and `IGNORE_INDEX` for ids outside the table too."""
        return np.where(self.train_id_of_id == UNKNOWN, np.uint8(IGNORE_INDEX), self.train_id_of_id)

    @cached_property
    def void_id(self) -> int:
        """The label id of pixels without a class: that of the first ignored row, or else the smallest free id."""
        ignored = [row.id for row in self.classes if row.train_id == IGNORE_INDEX]
        return ignored[0] if ignored else min(set(range(256)) - {row.id for row in self.classes})

    @cached_property
    def num_ids(self) -> int:
        """One more than the largest label id: the height and width of a confusion matrix over label ids."""
        return max(self.void_id, *(row.id for row in self.classes)) + 1

    @cached_property
    def id_of_file(self) -> npt.NDArray[np.uint8]:
        """uint8 `(256,)`: value of a `_labelTrainIds.png` to label id; `void_id` where it is ignored or unknown."""
        ids = np.full(256, self.void_id, np.uint8)
        counted = self.train_id_of_file < self.num_classes
        ids[counted] = self.id_of_train_id[self.train_id_of_file[counted]]
        return ids

    @cached_property
    def id_of_train_id(self) -> npt.NDArray[np.uint8]:
        """uint8 `(num_classes,)`: trainId to the label id that predictions are written with."""
        return np.array([row.id for row in self.evaluated], np.uint8)

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """uint8 `(num_classes, 3)`: RGB by trainId."""
        return np.array([row.color for row in self.evaluated], np.uint8)

    @property
    def names(self) -> tuple[str, ...]:
        """Names by trainId."""
        return tuple(row.name for row in self.evaluated)

    @property
    def numbering(self) -> list[tuple[object, ...]]:
        """What a network that was trained depends on: of each row its name, its values in files and its trainId."""
        return [(row.name, row.id, row.train_id, row.file_train_id) for row in self.classes]

    def without(self, names: Iterable[str]) -> LabelSet:
        """The same table with some classes ignored; the trainIds above them move down.

        Args:
            names: A class that is evaluated goes with all rows that count as it, any other row alone.

        Raises:
            DatasetError: A name is not that of a trained class, or no class would be left.
        """
        dropped = set(names)
        if not dropped:
            return self
        unknown = sorted(dropped - {row.name for row in self.classes if row.train_id != IGNORE_INDEX})
        if unknown:
            raise DatasetError(f"{self.name} trains no class {unknown[0]!r} to ignore; it has {', '.join(self.names)}")
        whole = {row.train_id for row in self.evaluated if row.name in dropped}
        dropped |= {row.name for row in self.classes if row.train_id in whole}
        kept = sorted({row.train_id for row in self.classes if row.name not in dropped} - {IGNORE_INDEX})
        if not kept:
            raise DatasetError(f"all {self.num_classes} classes of {self.name} are ignored; leave one to train")
        moved = {train_id: position for position, train_id in enumerate(kept)}
        rows = [
            replace(
                row,
                train_id=IGNORE_INDEX if row.name in dropped else moved.get(row.train_id, IGNORE_INDEX),
                file_train_id=row.train_id if row.file_train_id is None else row.file_train_id,
            )
            for row in self.classes
        ]
        return LabelSet(self.name, tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as stored in checkpoints; `from_dict` reads them back."""
        return {"name": self.name, "classes": [asdict(row) for row in self.classes]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LabelSet:
        """Build from the values of a YAML file or of `to_dict`.

        Args:
            values: `name`, `classes` (rows with `name`, `id`, `color`, and optionally `train_id`, `category`,
                `has_instances`) and optionally `ignored_ids`.

        Raises:
            DatasetError: A key is missing or unknown, or the table is inconsistent.
        """
        name = values.get("name", "own")
        if not isinstance(name, (str, int, float)):
            raise DatasetError(f"the name of a label set is {short(name)}; give a text")
        name = str(name)
        where = f"label set {short(name)}"
        unknown = sorted(map(str, values.keys() - {"name", "classes", "ignored_ids"}))
        if unknown:
            raise DatasetError(f"{where}: unknown key {short(unknown[0])}; allowed are name, classes, ignored_ids")
        listed, ignored = values.get("classes") or [], values.get("ignored_ids") or []
        for key, value in (("classes", listed), ("ignored_ids", ignored)):
            if not isinstance(value, list):
                raise DatasetError(f"{where}: {key} is {short(value)}; write a list")
        rows = [_row(where, position, row) for position, row in enumerate(listed)]
        for value in ignored:
            if not _is_whole(value):
                raise DatasetError(f"{where}: {short(value)} in ignored_ids is not a whole number")
            rows.append(LabelClass(f"ignored {value}", value, IGNORE_INDEX, (0, 0, 0)))
        return cls(name, tuple(rows))


def _row(where: str, position: int, row: Any) -> LabelClass:
    """One class of a YAML file, its types checked."""
    try:
        result = LabelClass(**{"train_id": position, **row, "color": tuple(row["color"])})
        whole = [result.id, result.train_id, *result.color]
        if result.file_train_id is not None:
            whole.append(result.file_train_id)
        texts = isinstance(result.name, str) and isinstance(result.category, str)
        if (
            len(result.color) != 3
            or not all(map(_is_whole, whole))
            or not texts
            or type(result.has_instances) is not bool
        ):
            raise TypeError("a value of another type")
        return result
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: class {position} ({short(row)}) does not fit ({printable(error)}); "
            "write {name: road, id: 7, color: [128, 64, 128]}"
        ) from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def read_label_set(path: str | Path) -> LabelSet:
    """Read the label set of a data set with own classes.

    Args:
        path: A YAML file of the form shown at the top of this module.

    Raises:
        DatasetError: There is no such file, it is not YAML, or its table is inconsistent.
    """
    try:
        values = read_yaml(Path(path))
    except OSError as error:
        raise DatasetError(
            f"label set {path} cannot be read: {error.strerror}; give the path of a YAML file"
        ) from error
    except InputError as error:
        raise DatasetError(f"label set {error}") from error
    if not isinstance(values, dict) or not values.get("classes"):
        raise DatasetError(f"label set {path} lists no classes; write 'classes:' with one row a class")
    return LabelSet.from_dict({"name": Path(path).stem, **values})


# name, id, trainId, category, has_instances, colour; "license plate" has id -1 in the original table and occurs in
# no PNG, so it has no row here.
_CITYSCAPES = (
    ("unlabeled", 0, IGNORE_INDEX, "void", False, (0, 0, 0)),
    ("ego vehicle", 1, IGNORE_INDEX, "void", False, (0, 0, 0)),
    ("rectification border", 2, IGNORE_INDEX, "void", False, (0, 0, 0)),
    ("out of roi", 3, IGNORE_INDEX, "void", False, (0, 0, 0)),
    ("static", 4, IGNORE_INDEX, "void", False, (0, 0, 0)),
    ("dynamic", 5, IGNORE_INDEX, "void", False, (111, 74, 0)),
    ("ground", 6, IGNORE_INDEX, "void", False, (81, 0, 81)),
    ("road", 7, 0, "flat", False, (128, 64, 128)),
    ("sidewalk", 8, 1, "flat", False, (244, 35, 232)),
    ("parking", 9, IGNORE_INDEX, "flat", False, (250, 170, 160)),
    ("rail track", 10, IGNORE_INDEX, "flat", False, (230, 150, 140)),
    ("building", 11, 2, "construction", False, (70, 70, 70)),
    ("wall", 12, 3, "construction", False, (102, 102, 156)),
    ("fence", 13, 4, "construction", False, (190, 153, 153)),
    ("guard rail", 14, IGNORE_INDEX, "construction", False, (180, 165, 180)),
    ("bridge", 15, IGNORE_INDEX, "construction", False, (150, 100, 100)),
    ("tunnel", 16, IGNORE_INDEX, "construction", False, (150, 120, 90)),
    ("pole", 17, 5, "object", False, (153, 153, 153)),
    ("polegroup", 18, IGNORE_INDEX, "object", False, (153, 153, 153)),
    ("traffic light", 19, 6, "object", False, (250, 170, 30)),
    ("traffic sign", 20, 7, "object", False, (220, 220, 0)),
    ("vegetation", 21, 8, "nature", False, (107, 142, 35)),
    ("terrain", 22, 9, "nature", False, (152, 251, 152)),
    ("sky", 23, 10, "sky", False, (70, 130, 180)),
    ("person", 24, 11, "human", True, (220, 20, 60)),
    ("rider", 25, 12, "human", True, (255, 0, 0)),
    ("car", 26, 13, "vehicle", True, (0, 0, 142)),
    ("truck", 27, 14, "vehicle", True, (0, 0, 70)),
    ("bus", 28, 15, "vehicle", True, (0, 60, 100)),
    ("caravan", 29, IGNORE_INDEX, "vehicle", True, (0, 0, 90)),
    ("trailer", 30, IGNORE_INDEX, "vehicle", True, (0, 0, 110)),
    ("train", 31, 16, "vehicle", True, (0, 80, 100)),
    ("motorcycle", 32, 17, "vehicle", True, (0, 0, 230)),
    ("bicycle", 33, 18, "vehicle", True, (119, 11, 32)),
)

CITYSCAPES = LabelSet(
    "cityscapes",
    tuple(
        LabelClass(name, id_, train_id, color, category, has_instances)
        for name, id_, train_id, category, has_instances, color in _CITYSCAPES
    ),
)
"""The 34 ids and 19 evaluated classes of Cityscapes, after cityscapesScripts 2.3 (helpers/labels.py)."""
