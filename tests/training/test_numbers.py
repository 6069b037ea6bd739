"""A NaN or an infinite number, wherever it arises, is told of before the optimizer has used it."""

import math
import re
from dataclasses import replace

import pytest
import torch

from deeplabv3.errors import NonFiniteError
from deeplabv3.model.checkpoint import digest
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import loop, step
from deeplabv3.training.learner import make_learner, momentum_of
from deeplabv3.training.loop import train
from deeplabv3.training.losses import loss_of
from deeplabv3.training.position import Position
from deeplabv3.training.state import RunPaths
from deeplabv3.training.step import Outcome, settle, train_step
from tests.training.conftest import learner_of, random_batch, undivided


@pytest.fixture
def learner(tiny_config, train_config):
    """Two steps old, with momentum, an average and an auxiliary head."""
    model = replace(tiny_config, auxiliary_channels=4)
    config = replace(train_config, model=model, average_decay=0.9)
    torch.manual_seed(0)
    made = learner_of(DeepLabV3(model), config)
    for number in range(2):
        assert take_step(made, config, number=number) > 0
    return made, config


def take_step(learner, config, batch=None, rate=0.01, number=2):
    return train_step(learner, undivided(batch or random_batch()), rate, number, config).value()


def spoil(tensor, value):
    with torch.no_grad():
        tensor[(0,) * tensor.ndim] = value


def in_image(learner, patch, value):
    patch.setattr(step, "recolored", lambda image, _: image * torch.full((), value))


def in_weight(learner, patch, value):
    spoil(learner.model.backbone.layer2[0].conv1.weight, value)


def in_activation(learner, patch, value):
    learner.model.aspp.register_forward_hook(lambda _module, _inputs, output: output * value)


def in_loss(learner, patch, value):
    patch.setattr(step, "loss_of", lambda *arguments: loss_of(*arguments) * value)


def in_gradient(learner, patch, value):
    learner.model.backbone.layer3[1].conv2.weight.register_hook(lambda gradient: gradient * value)


def in_statistic(learner, patch, value):
    spoil(learner.model.backbone.layer1[0].bn1.running_var, value)


def in_momentum(learner, patch, value):
    spoil(momentum_of(learner)["classifier.weight"], value)


def in_average(learner, patch, value):
    spoil(learner.average.backbone.layer4[0].conv1.weight, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (in_image, r"the loss is \S+ \(first in the image\)"),
        (in_weight, r"the loss is \S+ \(first in the weight backbone.layer2.0.conv1.weight\)"),
        (in_activation, r"the loss is \S+ \(first in the output of aspp\)"),
        (in_loss, r"the loss is \S+ \(first in the loss\)"),
        (in_gradient, r"the norm of the gradient is \S+ \(first in the gradient of backbone.layer3.1.conv2.weight\)"),
        (
            in_statistic,
            r"the norm of momentum, .* is \S+ \(first in the statistic backbone.layer1.0.bn1.running_var\)",
        ),
        (
            in_momentum,
            r"the norm of momentum, .* is \S+ \(first in the momentum of classifier.weight\)",
        ),
        (
            in_average,
            r"the norm of momentum, .* is \S+ \(first in the average of backbone.layer4.0.conv1.weight\)",
        ),
    ],
)
def test_it_is_caught_before_the_optimizer_writes(learner, monkeypatch, happens, message, value):
    learner, config = learner
    happens(learner, monkeypatch, value)
    batch = random_batch()
    if happens is in_image:
        batch = replace(batch, color=torch.zeros(1))
    before = written(learner)
    with pytest.raises(NonFiniteError) as error:
        take_step(learner, config, batch)
    where = rf"at learning rate 0.01, batch {', '.join(batch.names)}; .*these files"
    assert re.fullmatch(rf"step 2: {message} {where}", str(error.value))
    assert written(learner) == before


def written(learner):
    """What the optimizer writes."""
    return digest(dict(learner.model.named_parameters()), ""), digest(momentum_of(learner), "")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rate_is_caught(learner, value):
    learner, config = learner
    before = written(learner)
    with pytest.raises(NonFiniteError, match=r"step 2: the learning rate is (nan|inf), batch frame_0_0, frame_0_1; "):
        take_step(learner, config, rate=value)
    assert written(learner) == before


def test_labels_that_are_all_ignored_update_nothing(learner):
    learner, config = learner
    batch = random_batch(ignored=1.0)
    before = written(learner)
    assert take_step(learner, config, batch) is None
    assert written(learner) == before


def test_step_without_any_is_taken(learner):
    """What the tests above would not see if nothing were ever written."""
    learner, config = learner
    before = written(learner)
    take_step(learner, config)
    assert all(one != two for one, two in zip(written(learner), before, strict=True))


def test_network_is_left_without_hooks(learner, monkeypatch):
    learner, config = learner
    in_gradient(learner, monkeypatch, math.nan)
    with pytest.raises(NonFiniteError):
        take_step(learner, config)
    assert not any(module._forward_hooks for module in learner.model.modules())


def test_statistic_that_breaks_in_a_run_is_never_saved(train_config, monkeypatch):
    """Batch norm does not use its statistics while it learns, so no loss shows it."""
    steps = []

    def spoiled(learner, *arguments):
        steps.append(learner)
        if len(steps) == 4:
            in_statistic(learner, monkeypatch, math.nan)
        return train_step(learner, *arguments)

    monkeypatch.setattr(loop, "train_step", spoiled)
    with pytest.raises(NonFiniteError, match=r"step 3: .*first in the statistic backbone.layer1.0.bn1.running_var\)"):
        train(train_config)
    assert RunPaths(train_config).last.is_file()


@pytest.fixture
def overflowing(train_config, monkeypatch):
    """A float16 run whose scale overflows in its first five steps, and the rates of its steps."""
    made, rates = [], []

    def scaled(*arguments):
        made.append(make_learner(*arguments))
        scale = 2.0**127  # halved five times, and then set to one that fits
        made[0].scaler.load_state_dict({**made[0].scaler.state_dict(), "scale": scale})
        return made[0]

    def noted(learner, batch, rate, number, *arguments):
        rates.append(rate)
        if number == 5:
            learner.scaler.update(256.0)
        return train_step(learner, batch, rate, number, *arguments)

    monkeypatch.setattr(loop, "make_learner", scaled)
    monkeypatch.setattr(loop, "train_step", noted)
    return replace(train_config, precision="float16", average_decay=0.9), rates, made


def test_schedule_waits_for_steps_that_overflowed(overflowing):
    config, rates, _ = overflowing
    history = train(config)
    assert rates[:6] == [rates[0]] * 6
    assert rates[6] < rates[5]
    assert [entry["num_skipped"] for entry in history] == [2, 2, 1, 0]
    assert [entry["num_overflowed"] for entry in history] == [2, 4, 5, 5]
    assert [entry["learning_rate"] for entry in history] == [rates[0], rates[0], rates[0], rates[6]]


def test_average_waits_too(overflowing):
    config, _, made = overflowing
    train(config)
    assert made[0].num_averaged == 3


def test_settled_overflows_are_counted():
    outcome = Outcome(0, 0.1, ("a",), torch.tensor([1.0, math.inf, 1.0]), is_scaled=True)
    position = Position()
    settle([outcome, outcome], position)
    assert (position.overflows_in_a_row, position.num_overflowed, position.num_skipped) == (2, 2, 2)
