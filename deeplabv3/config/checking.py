"""What is looked at before a data set is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deeplabv3.config.checks import require, require_num_workers, require_splits, require_suffix, with_plain_types


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Find every defect of a data set, and count its classes.

    Attributes:
        data_dir: Data set in the Cityscapes layout.
        labels: YAML file of own classes; null is Cityscapes.
        splits: Folders of the splits that are looked at. Of what is in two of them, the earlier one's file is named.
        num_workers: Processes that decode; null chooses.
        out: JSON file for defects and counts; null writes none.
        picture: PNG file for a chart of the class balance; null draws none.
        overwrite: Replace both if they are there already.
    """

    data_dir: Path
    labels: Path | None = None
    splits: tuple[str, ...] = ("train", "val")
    num_workers: int | None = None
    out: Path | None = None
    picture: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        require_splits(self.splits)
        require_num_workers(self.num_workers)
        require_suffix("out", self.out, ".json")
        require_suffix("picture", self.picture, ".png")
        allowed = "out is that file too; give another one"
        require(self.picture is None or self.picture != self.out, "picture", str(self.picture), allowed)
