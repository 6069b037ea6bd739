"""What a step says it came to, how that is accounted for, and the batches that a stream of parts makes."""

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain, islice

import pytest
import torch

from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.errors import DatasetError, NonFiniteError
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.position import Position
from deeplabv3.training.step import Outcome, settle, step_batches, train_step
from deeplabv3.training.stopping import StopSignals
from tests.training.conftest import learner_of, random_batch, undivided

INF, NAN = float("inf"), float("nan")


def outcome(*numbers, is_scaled=False):
    return Outcome(7, 0.1, ("a", "b"), torch.tensor(numbers), is_scaled=is_scaled)


def test_finite_numbers_give_the_loss():
    assert outcome(2.0, 3.0, 4.0).value() == outcome(2.0, 3.0, 4.0, is_scaled=True).value() == 2.0


@pytest.mark.parametrize("gradient", [INF, NAN])
def test_only_a_scaled_gradient_may_overflow(gradient):
    assert outcome(2.0, gradient, 4.0, is_scaled=True).value() is None
    with pytest.raises(NonFiniteError, match=f"^step 7: the norm of the gradient is {gradient} at .* batch a, b; "):
        Outcome(7, 0.1, ("a", "b"), torch.tensor([2.0, gradient, 4.0])).value()


@pytest.mark.parametrize("is_scaled", [False, True])
@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ((NAN, 3.0, 4.0), "the loss is nan"),
        ((INF, INF, INF), "the loss is inf"),
        ((2.0, 3.0, NAN), "the norm of momentum, statistics and average is nan"),
    ],
)
def test_no_scale_excuses_the_others(numbers, what, is_scaled):
    with pytest.raises(NonFiniteError, match=f"^step 7: {what} at learning rate 0.1, "):
        outcome(*numbers, is_scaled=is_scaled).value()


def test_overflowed_gradient_does_not_hide_a_spoiled_average():
    with pytest.raises(NonFiniteError, match="^step 7: the norm of the gradient is inf at learning rate 0.1, "):
        outcome(2.0, INF, NAN, is_scaled=True).value()


def test_skipped_step_is_no_overflow():
    position = Position()
    settle([Outcome(7, 0.1, ("a",)), outcome(2.0, INF, 4.0, is_scaled=True), outcome(2.0, 3.0, 4.0)], position)
    assert (position.batch, position.num_skipped, position.num_overflowed) == (3, 2, 1)
    assert position.mean_loss == 2.0


def test_newest_is_left_unless_it_was_scaled():
    for is_scaled, num_left in ((False, 1), (True, 0)):
        outcomes = [outcome(2.0, 3.0, 4.0), outcome(2.0, 3.0, 4.0, is_scaled=is_scaled)]
        settle(outcomes, Position(), leave=1)
        assert len(outcomes) == num_left


def test_stream_ends_with_its_last_whole_batch():
    parts = [random_batch(number) for number in range(5)]
    taken = [batch.parts for batch in step_batches(iter(parts), 2, None, StopSignals())]
    assert list(map(id, chain(*taken))) == list(map(id, parts[:4]))


def test_part_that_cannot_be_read_is_told():
    def stream():
        yield random_batch()
        raise DatasetError("a.png cannot be read")

    batches = step_batches(stream(), 1, None, StopSignals())
    assert len(list(islice(batches, 1))) == 1
    with pytest.raises(DatasetError, match="^a.png cannot be read$"):
        next(batches)


def test_ignored_pixels_have_no_weight():
    first, second = random_batch(1), random_batch(2)
    first.label[...], second.label[...] = 3, 3
    second.label[0] = IGNORE_INDEX
    weights = torch.zeros(19)
    weights[3] = 0.5
    (batch,) = step_batches(iter([first, second]), 2, weights, StopSignals())
    assert batch.shares == pytest.approx([2 / 3, 1 / 3])
    second.label[...] = IGNORE_INDEX
    (batch,) = step_batches(iter([first, second]), 2, weights, StopSignals())
    assert batch.shares == [1.0, 0.0]


@pytest.mark.parametrize("is_fused", [True, False])
def test_update_waits_for_finite_numbers_however_it_is_made(tiny_config, train_config, is_fused):
    """Apple's devices have no fused one."""
    ends = []
    for factor in (1.0, INF):
        torch.manual_seed(0)
        learner = learner_of(DeepLabV3(replace(tiny_config, dropout=0.0)), train_config)
        learner.optimizer.defaults["fused"] = is_fused
        for group in learner.optimizer.param_groups:
            group["fused"] = is_fused
        learner.model.classifier.weight.register_hook(lambda gradient, factor=factor: gradient * factor)
        before = {name: value.clone() for name, value in learner.model.named_parameters()}
        made = train_step(learner, undivided(random_batch()), 0.1, 0, train_config)
        moved = [not torch.equal(value, before[name]) for name, value in learner.model.named_parameters()]
        ends.append((all(moved), any(moved)))
        with nullcontext() if factor == 1.0 else pytest.raises(NonFiniteError):
            assert made.value() is not None
    assert ends == [(True, True), (False, False)]
