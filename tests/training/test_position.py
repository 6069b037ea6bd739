"""How far a run is, as it is counted."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from deeplabv3.errors import CheckpointError
from deeplabv3.model.checkpoint import Checkpoint
from deeplabv3.training.position import MAX_COUNT, Position, position_of


def stored(**values):
    """A checkpoint with a position of these values."""
    return Checkpoint(Path("last.safetensors"), {}, {"position": {**asdict(Position()), **values}})


def test_run_begins_with_nothing():
    assert Position() == Position(0, 0, 0.0, 0, 0, 0, None, [])
    assert (Position().mean_loss, Position().num_overflowed_before, Position().best_so_far) == (0.0, 0, -1.0)


def test_batches_are_counted():
    position = Position()
    position.advance(2.0)
    position.advance(None)
    position.advance(4.0)
    assert (position.batch, position.num_skipped, position.loss_sum, position.mean_loss) == (3, 1, 6.0, 3.0)
    assert (position.overflows_in_a_row, position.num_overflowed) == (0, 0)
    for row, has_overflowed in ((1, True), (2, True), (0, False), (1, True)):
        position.advance(None if has_overflowed else 1.0, has_overflowed=has_overflowed)
        assert position.overflows_in_a_row == row
    assert (position.num_overflowed, position.num_skipped) == (3, 4)


def test_next_epoch_counts_anew_what_is_of_an_epoch():
    position = Position(2, 5, 3.0, 1, 2, 4, 0.5, [{"num_overflowed": 1}])
    assert position.next_epoch({"num_overflowed": 4}) == Position(
        3, 0, 0.0, 0, 2, 4, 0.5, [{"num_overflowed": 1}, {"num_overflowed": 4}]
    )
    assert position.num_overflowed_before == 1


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1, 1.0, None])
def test_best_score_is_a_share(value):
    assert position_of(stored(best_miou=value)).best_miou == value


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_other_best_scores_are_refused(value):
    with pytest.raises(CheckpointError, match="best_miou is .*; it is a share, or null"):
        position_of(stored(best_miou=value))


def test_counts_are_exact_numbers():
    assert MAX_COUNT == float(MAX_COUNT) == float(MAX_COUNT + 1)  # the first that a double cannot tell from the next
    assert position_of(stored(batch=MAX_COUNT)).batch == MAX_COUNT
    for value in (-1, MAX_COUNT + 1):
        with pytest.raises(CheckpointError, match=f"batch is {value}; it is a count"):
            position_of(stored(batch=value))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_skipped": 1}, "num_skipped is 1; it is of the batches that are done"),
        ({"overflows_in_a_row": 1}, "num_overflowed is 0; it is of all steps that overflowed"),
        ({"epoch": 1}, "epoch is 1; it is what history has, 0"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(CheckpointError, match=message):
        position_of(stored(**values))


@pytest.mark.parametrize("count", ["num_skipped", "num_overflowed"])
def test_counts_of_an_epoch_are_numbers(count):
    entry = {"epoch": 1, "step": 2, "learning_rate": 0.1, "train_loss": 1.0}
    assert position_of(stored(epoch=1, num_overflowed=9, history=[{**entry, count: 9}])).reopened(1).batch == 1
    with pytest.raises(CheckpointError, match=f"history has 'x' as {count} of epoch 1; it is a number"):
        position_of(stored(epoch=1, history=[{**entry, count: "x"}]))


def test_early_releases_named_a_count_otherwise():
    checkpoint = stored()
    record = checkpoint.record["position"]
    del record["overflows_in_a_row"], record["num_overflowed"]
    assert position_of(checkpoint) == Position()
    record["num_overflows"] = 3
    assert position_of(checkpoint) == replace(Position(), overflows_in_a_row=3, num_overflowed=3)
