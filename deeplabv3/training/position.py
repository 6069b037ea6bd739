"""How far a run is, and whether what a checkpoint says about it can be true."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from deeplabv3.config.checks import require
from deeplabv3.errors import InputError
from deeplabv3.model.checkpoint import Checkpoint, recorded, using_record
from deeplabv3.records import from_record
from deeplabv3.report.curves import require_history

MAX_COUNT = 2**53
"""More steps than any run has; what is counted stays exact in every type."""

_LATER = ("overflows_in_a_row", "num_overflowed")  # what the first checkpoints did not have yet


@dataclass
class Position:
    """How far a run is: what a checkpoint adds to the tensors.

    Attributes:
        epoch: Epochs that are finished, validation included.
        batch: Batches of the epoch under way that are done.
        loss_sum: Of the losses of those batches.
        num_skipped: Batches of the epoch under way that updated nothing: without any labelled pixel, or float16
            overflowed.
        overflows_in_a_row: Steps in a row until now in which float16 overflowed.
        num_overflowed: Steps of the run in which it did; the schedule waited for them.
        best_miou: The best validation so far.
        history: An entry for each finished epoch.
    """

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    num_skipped: int = 0
    overflows_in_a_row: int = 0
    num_overflowed: int = 0
    best_miou: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean_loss(self) -> float:
        """Over the batches of the epoch under way that updated something; 0 before the first."""
        return self.loss_sum / max(1, self.batch - self.num_skipped)

    @property
    def num_overflowed_before(self) -> int:
        """`num_overflowed` when the epoch under way began."""
        return int(self.history[-1].get("num_overflowed") or 0) if self.history else 0

    @property
    def last_step(self) -> int:
        """The step that the last finished epoch ended at; 0 before the first."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def best_so_far(self) -> float:
        """The best validation mIoU, below all that there are before the first."""
        return -1.0 if self.best_miou is None else self.best_miou

    def advance(self, loss: float | None, *, has_overflowed: bool = False) -> None:
        """Count a batch: its loss, or None where it updated nothing."""
        self.batch += 1
        self.loss_sum += loss or 0.0
        self.num_skipped += loss is None
        self.overflows_in_a_row = self.overflows_in_a_row + 1 if has_overflowed else 0
        self.num_overflowed += has_overflowed

    def next_epoch(self, entry: dict[str, Any]) -> Position:
        """The beginning of the epoch after the one under way, whose `entry` is finished."""
        return Position(
            self.epoch + 1,
            overflows_in_a_row=self.overflows_in_a_row,
            num_overflowed=self.num_overflowed,
            best_miou=self.best_miou,
            history=[*self.history, entry],
        )

    def begun_anew(self) -> Position:
        """At the beginning of the epoch under way."""
        return replace(self, batch=0, loss_sum=0.0, num_skipped=0)

    def reopened(self, batch: int) -> Position:
        """Within the last finished epoch, behind its first `batch` batches."""
        *before, entry = self.history
        num_skipped = min(batch, int(entry.get("num_skipped") or 0))
        return Position(
            self.epoch - 1,
            batch,
            entry["train_loss"] * (batch - num_skipped),
            num_skipped,
            self.overflows_in_a_row,
            self.num_overflowed,
            self.best_miou,
            before,
        )


def position_of(checkpoint: Checkpoint) -> Position:
    """Where the run of a checkpoint stands.

    Raises:
        CheckpointError: The file is of no run, or what it says contradicts itself.
    """
    record = dict(recorded(checkpoint, "position", dict))
    if "num_overflows" in record:  # what it was called in early releases
        record["overflows_in_a_row"] = record.pop("num_overflows")
    with using_record(checkpoint, "position"):
        known = [item.name for item in fields(Position)]
        lacking = [name for name in known if name not in record and name not in _LATER]
        if lacking:
            raise InputError(f"{lacking[0]} is missing")
        # Before there was a sum of all steps that overflowed, those in a row are what is known of it.
        position = from_record(Position, {"num_overflowed": record.get("overflows_in_a_row", 0), **record})
        require_history(position.history)
        for name in ("epoch", "batch", "num_skipped", *_LATER):
            require(0 <= getattr(position, name) <= MAX_COUNT, name, getattr(position, name), "it is a count")
        allowed = "it is of the batches that are done"
        require(position.num_skipped <= position.batch, "num_skipped", position.num_skipped, allowed)
        allowed = "it is of all steps that overflowed"
        ok = max(position.overflows_in_a_row, position.num_overflowed_before) <= position.num_overflowed
        require(ok, "num_overflowed", position.num_overflowed, allowed)
        ok = position.best_miou is None or 0 <= position.best_miou <= 1
        require(ok, "best_miou", position.best_miou, "it is a share, or null")
        allowed = f"it is what history has, {len(position.history)}"
        require(position.epoch == len(position.history), "epoch", position.epoch, allowed)
    return position
