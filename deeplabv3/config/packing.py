"""How a data set is packed, and unpacked again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deeplabv3.config.checks import require_num_workers, require_splits, with_plain_types


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Write a data set as flat files, which training reads many times faster.

    Attributes:
        data_dir: Data set in the Cityscapes layout.
        out: Folder of the packed data set, which goes wherever a data set does. What was interrupted goes on.
        labels: YAML file of own classes; null is Cityscapes.
        splits: Folders of the splits that are packed.
        num_workers: Processes that decode; null chooses.
        skip_bad: Leave defective files out and go on, instead of stopping at them.
        overwrite: Replace what is packed there already, once the new one is whole.
    """

    data_dir: Path
    out: Path
    labels: Path | None = None
    splits: tuple[str, ...] = ("train", "val")
    num_workers: int | None = None
    skip_bad: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_splits(self.splits)
        require_num_workers(self.num_workers)


@dataclass(frozen=True, kw_only=True)
class UnpackConfig:
    """Write a packed data set as plain files again: images as PNG, labels as they were.

    Attributes:
        data_dir: The packed data set; all of its splits are unpacked.
        out: Folder of the plain one. Files that are there already and hold the same stay.
        num_workers: Processes that encode; null chooses.
    """

    data_dir: Path
    out: Path
    num_workers: int | None = None

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_num_workers(self.num_workers)
