"""A step: the parts of a batch, what float16 cannot hold, and when its outcome is asked for."""

import os
import signal
from dataclasses import replace

import pytest
import torch

from deeplabv3.config import LossConfig, Phase
from deeplabv3.data.batches import Batch
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.errors import DatasetError, NonFiniteError
from deeplabv3.model.checkpoint import digest
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import loop, step
from deeplabv3.training.learner import make_learner
from deeplabv3.training.loop import train
from deeplabv3.training.losses import class_weights_of
from deeplabv3.training.position import Position
from deeplabv3.training.schedule import learning_rate
from deeplabv3.training.state import RunPaths, write_history
from deeplabv3.training.step import Outcome, settle, step_batches, train_step
from deeplabv3.training.stopping import Stopped, StopSignals
from tests.training.conftest import CPU, final_state, learner_of, random_batch, undivided

FROZEN = (Phase(epochs=1, learning_rate=0.01, frozen_batch_norm=True),)


@pytest.fixture
def double_learner(tiny_config, train_config):
    """A network in float64 with frozen norms, an auxiliary head and weights of classes; each call begins alike."""
    model = replace(tiny_config, dropout=0.0, auxiliary_channels=4)
    loss = LossConfig(class_weights=tuple(0.1 + train_id % 5 for train_id in range(19)))
    config = replace(train_config, model=model, loss=loss, phases=FROZEN)

    def make():
        torch.manual_seed(0)
        return learner_of(DeepLabV3(model).double(), config), config, class_weights_of(loss, None, CPU)

    return make


def uneven_batch(seed):
    """Six images, of which the first two are ignored almost wholly, and the next two wholly."""
    batch = random_batch(seed, images=6, ignored=0.1)
    batch.label[:2, 5:] = IGNORE_INDEX
    batch.label[2:4] = IGNORE_INDEX
    return batch


def in_parts(batch, num_parts, class_weights):
    """The step that a stream of parts makes."""
    size = len(batch.names) // num_parts
    places = [slice(first, first + size) for first in range(0, len(batch.names), size)]
    parts = [Batch(batch.image[place], batch.label[place], batch.names[place]) for place in places]
    return next(step_batches(iter(parts), num_parts, class_weights, StopSignals()))


def test_signal_comes_before_a_reader_that_it_ended(monkeypatch):
    """One to the whole group of processes ends those that read, too."""

    def stream():
        raise DatasetError("a process that reads images was ended by SIGTERM")
        yield

    stop = StopSignals()
    with pytest.raises(DatasetError):
        next(step_batches(stream(), 1, None, stop))
    monkeypatch.setattr(StopSignals, "number", signal.SIGTERM)
    with pytest.raises(Stopped):
        next(step_batches(stream(), 1, None, stop))


def distance(ours, theirs):
    """The largest relative difference of two lists of tensors."""
    pairs = [(one.detach(), two.detach()) for one, two in zip(ours, theirs, strict=True)]
    return max(float((one - two).norm() / two.norm()) for one, two in pairs)


def trainable(learner):
    return [value for value in learner.model.parameters() if value.requires_grad]


def trained(begun, num_parts, change=lambda step: step):
    """Gradients of each of ten steps, the losses, and the weights in the end."""
    learner, config, class_weights = begun
    gradients, losses = [], []
    for number in range(10):
        made = change(in_parts(uneven_batch(number), num_parts, class_weights))
        losses.append(train_step(learner, made, 1e-3, number, config, class_weights).value())
        gradients += [value.grad.clone() for value in trainable(learner)]
    return gradients, torch.tensor(losses, dtype=torch.float64), trainable(learner)


@pytest.mark.parametrize("num_parts", [2, 3, 6])
def test_parts_are_the_whole_batch(double_learner, num_parts):
    whole, parts = trained(double_learner(), 1), trained(double_learner(), num_parts)
    assert distance(parts[0], whole[0]) < 1e-12
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-12, atol=0)
    assert distance(parts[2], whole[2]) < 1e-12
    assert distance(whole[2], trainable(double_learner()[0])) > 1e-4  # it was trained


def test_equal_shares_are_not_the_whole_batch(double_learner):
    """What the test above would not see if it were too lenient."""
    whole = trained(double_learner(), 1)
    equal = trained(double_learner(), 3, lambda made: replace(made, shares=[1 / 3] * 3))
    assert distance(equal[0], whole[0]) > 0.1
    assert distance(equal[2], whole[2]) > 1e-6


def test_shares_are_those_of_the_labelled_pixels():
    label = torch.full((2, 4, 4), IGNORE_INDEX, dtype=torch.uint8)
    label[0, :3], label[1, 0] = 0, 1
    batch = Batch(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), label, ("a", "b"))
    assert in_parts(batch, 2, None).shares == [0.75, 0.25]
    assert in_parts(batch, 2, torch.tensor([1.0, 3.0])).shares == [0.5, 0.5]
    assert in_parts(batch, 2, torch.tensor([0.0, 3.0])).shares == [0.0, 1.0]


def test_batch_without_a_labelled_pixel_is_empty():
    batch = random_batch(ignored=1.1)
    made = in_parts(batch, 2, None)
    assert (made.shares, made.is_empty) == ([0.0, 0.0], True)


def test_run_in_parts_is_the_run(train_config, tmp_path):
    """Of whole steps and of three parts each, which differ in the order of sums alone."""
    model = replace(train_config.model, dropout=0.0)
    config = replace(train_config, model=model, phases=(replace(FROZEN[0], learning_rate=1e-3),))
    histories = [
        train(replace(config, accumulation=parts, run_dir=tmp_path / f"run_{parts}", eval_batch_size=3))
        for parts in (1, 3)
    ]
    losses = [[entry[name] for entry in history for name in ("train_loss", "val_loss")] for history in histories]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.fixture
def half_learner(tiny_config, train_config):
    """A network whose convolutions are float16."""
    config = replace(train_config, precision="float16", average_decay=0.9)
    torch.manual_seed(0)
    return learner_of(DeepLabV3(tiny_config), config), config


def set_scale(scaler, scale):
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale})


def test_float16_learns(half_learner):
    learner, config = half_learner
    set_scale(learner.scaler, 256.0)
    before = digest(dict(learner.model.named_parameters()), "")
    loss = train_step(learner, undivided(random_batch()), 0.1, 0, config).value()
    assert loss == pytest.approx(3, abs=2)
    assert learner.scaler.get_scale() == 256
    assert digest(dict(learner.model.named_parameters()), "") != before


def test_overflow_updates_nothing_and_halves_the_scale(half_learner):
    learner, config = half_learner
    set_scale(learner.scaler, 2.0**127)
    momentum = [state["momentum_buffer"] for state in learner.optimizer.state.values()]
    before = [digest(dict(model.named_parameters()), "") for model in (learner.model, learner.average)]
    outcome = train_step(learner, undivided(random_batch()), 1.0, 0, config)
    assert not torch.isfinite(outcome.numbers[1])
    assert outcome.value() is None
    assert [digest(dict(model.named_parameters()), "") for model in (learner.model, learner.average)] == before
    assert not any(buffer.any() for buffer in momentum)
    assert learner.scaler.get_scale() == 2.0**126
    position = Position()
    settle([outcome], position)
    assert (position.batch, position.num_skipped, position.overflows_in_a_row) == (1, 1, 1)


def test_forward_pass_that_overflows_is_an_error(half_learner):
    """Its statistics are spoiled whatever the scale of the loss, so there is nothing to go on with."""
    learner, config = half_learner
    with torch.no_grad():
        learner.model.classifier.bias[0] = float("inf")
    with pytest.raises(NonFiniteError, match="step 3: the loss is"):
        train_step(learner, undivided(random_batch()), 1.0, 3, config).value()


def test_a_step_that_holds_ends_the_row_of_overflows(half_learner):
    learner, config = half_learner
    position = Position(overflows_in_a_row=step.MAX_OVERFLOWS)
    set_scale(learner.scaler, 256.0)
    settle([train_step(learner, undivided(random_batch()), 0.1, 0, config)], position)
    assert (position.num_skipped, position.overflows_in_a_row) == (0, 0)


def test_too_many_overflows_are_one_error(train_config, monkeypatch):
    """They are counted on from epoch to epoch, of two steps each."""
    learners = []

    def scaled(*arguments):
        learners.append(make_learner(*arguments))
        set_scale(learners[0].scaler, 2.0**127)
        return learners[0]

    monkeypatch.setattr(loop, "make_learner", scaled)
    monkeypatch.setattr(step, "MAX_OVERFLOWS", 4)
    config = replace(train_config, precision="float16", eval_interval=9, phases=(Phase(epochs=9, learning_rate=0.01),))
    with pytest.raises(NonFiniteError, match="step 4: .* float16 in 5 steps in a row .* lower the learning rate") as e:
        train(config)
    assert "\n" not in str(e.value)
    assert len(learners) == 1


@pytest.fixture(scope="module")
def half_run(whole_run, tmp_path_factory):
    config = replace(whole_run[0], run_dir=tmp_path_factory.mktemp("half") / "run", precision="float16")
    config = replace(config, phases=(Phase(steps=5, learning_rate=0.01),), eval_interval=9)
    history = train(config)
    assert [entry["num_skipped"] for entry in history] == [2, 0, 0]
    return config


def stopped_after(config, which, tmp_path, stop_at):
    """The same run in another folder, stopped and about to be resumed."""
    config = replace(config, run_dir=tmp_path / "run")
    stop_at(which)
    with pytest.raises(Stopped):
        train(config)
    stop_at(-1)
    return replace(config, resume=True)


@pytest.mark.parametrize("which", [1, 3])
def test_scale_survives_a_stop(half_run, tmp_path, stop_at, which):
    config = stopped_after(half_run, which, tmp_path, stop_at)
    train(config)
    assert final_state(config) == final_state(half_run)


@pytest.fixture
def spoiled_third_step(monkeypatch):
    """The loss of the third step is NaN; gives the outcomes of the steps taken so far."""
    outcomes: list[Outcome] = []

    def spoiled(*arguments):
        outcome = train_step(*arguments)
        outcomes.append(
            replace(outcome, numbers=torch.tensor([torch.nan, 1.0, 1.0])) if len(outcomes) == 2 else outcome
        )
        return outcomes[-1]

    monkeypatch.setattr(loop, "train_step", spoiled)
    return outcomes


def test_outcome_is_asked_for_one_step_later(train_config, spoiled_third_step):
    with pytest.raises(NonFiniteError) as error:
        train(train_config)
    assert len(spoiled_third_step) == 4
    bad = spoiled_third_step[2]
    assert str(error.value).startswith("step 2: the loss is nan (first in ")
    assert f") at learning rate {bad.rate:.3g}, batch " in str(error.value)
    assert all(name in str(error.value) for name in bad.names)


def test_nothing_is_saved_of_an_epoch_that_broke(train_config, spoiled_third_step, monkeypatch):
    def files():
        return {path: path.read_bytes() for path in train_config.run_dir.rglob("*") if path.is_file()}

    written = []

    def write_and_note(*arguments):
        write_history(*arguments)
        written.append(files())

    monkeypatch.setattr(loop, "write_history", write_and_note)
    with pytest.raises(NonFiniteError):
        train(train_config)
    assert RunPaths(train_config).last in written[0]
    assert written == [files()]


def test_stop_right_behind_it_saves_nothing(train_config, spoiled_third_step, monkeypatch):
    """The signal comes when the third step has begun, whose outcome nobody has asked for yet."""

    def rate_and_stop(step, *arguments):
        if step == len(spoiled_third_step) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return learning_rate(step, *arguments)

    monkeypatch.setattr(loop, "learning_rate", rate_and_stop)
    with pytest.raises(NonFiniteError, match="step 2: "):
        train(train_config)
    assert len(spoiled_third_step) == 3
