"""What learns: groups of the optimizer, frozen batch norm, and the moving average that a run is judged by."""

from dataclasses import replace
from math import prod

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from deeplabv3.config import Phase
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.model.checkpoint import digest, load_weights, model_from, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import load_model
from deeplabv3.training.learner import enter_phase, make_learner, update_average
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from deeplabv3.training.step import train_step
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import CPU, final_state, learner_of, random_batch, undivided

RATE = 0.01
each_grouping = pytest.mark.parametrize(
    ("factor", "has_decay"), [(1.0, True), (10.0, True), (1.0, False), (10.0, False)]
)


@pytest.fixture
def double(tiny_config):
    """A network in float64, with an auxiliary head so that each kind of module is there."""
    torch.manual_seed(0)
    return DeepLabV3(replace(tiny_config, auxiliary_channels=4, decoder="conv")).double()


def copies(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@each_grouping
def test_update_is_that_of_its_group(double, train_config, factor, has_decay):
    """Each weight moves by its rate times gradient and decay; norms and biases are what has one dimension."""
    config = replace(
        train_config, momentum=0.0, weight_decay=0.1, head_rate_factor=factor, decay_norm_and_bias=has_decay
    )
    learner, before = learner_of(double, config), copies(double)
    train_step(learner, undivided(random_batch()), RATE, 0, config)
    for name, value in double.named_parameters():
        rate = RATE if name.startswith("backbone.") else RATE * factor
        decay = 0.1 if has_decay or value.ndim == 4 else 0.0
        expected = before[name] - rate * (value.grad + decay * before[name])
        torch.testing.assert_close(value.detach(), expected, rtol=1e-12, atol=1e-15)


@each_grouping
def test_each_weight_is_in_one_group(double, train_config, factor, has_decay):
    config = replace(train_config, head_rate_factor=factor, decay_norm_and_bias=has_decay)
    groups = learner_of(double, config).optimizer.param_groups
    seen = [id(value) for group in groups for value in group["params"]]
    assert sorted(seen) == sorted(id(value) for value in double.parameters())


def norms_of(model):
    """All that a batch norm has, by name."""
    norms = [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    return {name: value for name, value in copies(model).items() if name.rpartition(".")[0] in norms}


def test_frozen_norms_stay_and_all_else_moves(double, train_config):
    config = replace(train_config, phases=(Phase(epochs=1, learning_rate=0.1, frozen_batch_norm=True),))
    learner, before = learner_of(double, config), copies(double)
    norms = set(norms_of(double))
    for number in range(2):
        train_step(learner, undivided(random_batch(number)), 0.1, number, config)
    after = copies(double)
    assert {name for name in after if torch.equal(after[name], before[name])} == norms


def test_norms_are_trained_again_by_the_next_phase(double, train_config):
    free = Phase(epochs=1, learning_rate=0.1)
    learner, before = learner_of(double, train_config), norms_of(double)
    for number, frozen in enumerate((True, False)):
        enter_phase(learner, replace(free, frozen_batch_norm=frozen), train_config)
        train_step(learner, undivided(random_batch(number)), 0.1, number, train_config)
    after = norms_of(double)
    assert not any(torch.equal(after[name], before[name]) for name in after)


def test_momentum_outlasts_a_frozen_phase(double, train_config):
    learner = learner_of(double, train_config)
    train_step(learner, undivided(random_batch()), 0.1, 0, train_config)
    norm = double.backbone.bn1.weight
    momentum = learner.optimizer.state[norm]["momentum_buffer"].clone()
    enter_phase(learner, Phase(epochs=1, learning_rate=0.1, frozen_batch_norm=True), train_config)
    train_step(learner, undivided(random_batch(1)), 0.1, 1, train_config)
    assert bool(momentum.any())
    assert torch.equal(learner.optimizer.state[norm]["momentum_buffer"], momentum)
    before = norm.detach().clone()
    enter_phase(learner, Phase(epochs=1, learning_rate=0.1), replace(train_config, weight_decay=0.0))
    train_step(learner, undivided(random_batch(2)), 0.1, 2, train_config)
    expected = before - 0.1 * (0.9 * momentum + norm.grad + train_config.weight_decay * before)
    torch.testing.assert_close(norm.detach(), expected, rtol=1e-12, atol=1e-15)


def test_average_is_the_closed_form(double, train_config):
    """A sum of the states that it saw; the decay is 0.1, 2/11, 1/4 and then 0.3. Statistics are averaged too."""
    config = replace(train_config, average_decay=0.3)
    learner, states = learner_of(double, config), [copies(double)]
    for number in range(6):
        train_step(learner, undivided(random_batch(number)), 0.1, number, config)
        states.append(copies(double))
    decays = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3, 0.3]
    shares = [prod(decays)] + [(1 - decay) * prod(decays[place + 1 :]) for place, decay in enumerate(decays)]
    assert learner.num_averaged == 6
    for name, value in learner.average.state_dict().items():
        seen = [state[name] for state in states]
        moving = value.is_floating_point()
        expected = sum(share * one for share, one in zip(shares, seen, strict=True)) if moving else seen[-1]
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15)


def test_late_average_has_the_whole_decay(double, train_config):
    learner = learner_of(double, replace(train_config, average_decay=0.999))
    learner.num_averaged = 10_000
    with torch.no_grad():
        double.classifier.bias += 1
    before = learner.average.classifier.bias.clone()
    update_average(learner, 0.999)
    torch.testing.assert_close(learner.average.classifier.bias - before, torch.full_like(before, 0.001))


def test_average_neither_trains_nor_drops(double, train_config):
    learner = learner_of(double, replace(train_config, average_decay=0.9))
    assert learner.judged is learner.average
    assert not any(module.training for module in learner.average.modules())
    assert not any(value.requires_grad for value in learner.average.parameters())
    assert make_learner(double, train_config, CPU).judged is double


@pytest.fixture(scope="module")
def averaged_run(whole_run, tmp_path_factory):
    """Three epochs of two steps, of which an average is kept."""
    config = replace(whole_run[0], run_dir=tmp_path_factory.mktemp("averaged") / "run", average_decay=0.9)
    config = replace(config, phases=(Phase(epochs=3, learning_rate=0.05),), eval_interval=3)
    return config, train(config)


def test_checkpoint_is_used_with_the_average(averaged_run):
    path = RunPaths(averaged_run[0]).last
    checkpoint = read_checkpoint(path)
    average, weights = checkpoint.part("average/"), checkpoint.part("model/")
    assert digest(average, "") != digest(weights, "")
    for model in (model_from(checkpoint)[0], load_model(path)[0]):
        assert digest(model.state_dict(), "") == digest(average, "")


def test_run_is_judged_by_the_average(averaged_run):
    config, history = averaged_run
    checkpoint = read_checkpoint(RunPaths(config).last)
    average = model_from(checkpoint)[0]
    weights = DeepLabV3(average.config).eval()
    load_weights(weights, checkpoint)
    samples = find_samples(config.data_dir, "val")
    scores = [score_model(model, samples, CITYSCAPES).miou for model in (average, weights)]
    assert scores == pytest.approx([history[-1]["miou"], history[-1]["unaveraged_miou"]], abs=1e-12)
    assert abs(scores[0] - scores[1]) > 1e-6
    assert checkpoint.record["position"]["best_miou"] == history[-1]["miou"]


def stopped(config, tmp_path, stop_at):
    """The same run in another folder, stopped after three steps and about to be resumed."""
    config = replace(config, run_dir=tmp_path / "run")
    stop_at(3)
    with pytest.raises(Stopped):
        train(config)
    stop_at(-1)
    return replace(config, resume=True)


def test_average_survives_a_stop(averaged_run, tmp_path, stop_at):
    config = stopped(averaged_run[0], tmp_path, stop_at)
    train(config)
    assert final_state(config) == final_state(averaged_run[0])


def test_average_can_begin_later(averaged_run, tmp_path, stop_at):
    """A run that kept none goes on with one, which begins with the weights that are there."""
    config = stopped(replace(averaged_run[0], average_decay=0.0), tmp_path, stop_at)
    assert train(replace(config, average_decay=0.9))[-1]["unaveraged_miou"] is not None
    checkpoint = read_checkpoint(RunPaths(config).last)
    assert int(checkpoint.tensors["average_state/num_averaged"]) == 3
