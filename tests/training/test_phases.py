"""Phases of a run: other strides with the same weights, and a change between them that a stop does not disturb."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

from deeplabv3.cli import parse
from deeplabv3.config import ModelConfig, Phase
from deeplabv3.errors import InputError
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import loop
from deeplabv3.training.loop import train
from deeplabv3.training.schedule import learning_rate
from deeplabv3.training.state import RunPaths
from deeplabv3.training.step import train_step
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import final_state, timeless

TINY = {"width": 16, "aspp_channels": 8, "num_classes": 3}
NETWORKS = {
    "plain": ModelConfig(backbone="resnet18", **TINY),
    "multi-grid": ModelConfig(backbone="resnet50", multi_grid=(1, 2, 4), **TINY),
    "decoder": ModelConfig(backbone="resnet18", decoder="separable", aspp_separable=True, auxiliary_channels=4, **TINY),
    "rates": ModelConfig(backbone="resnet18", stem="deep", atrous_rates=(2, 4), aspp_projection="1x1+3x3", **TINY),
    "mobilenet": ModelConfig(backbone="mobilenet_v3_large", aspp_channels=8, num_classes=3),
}
STRIDES = [(name, stride) for name in NETWORKS for stride in (8, 16, 32) if (name, stride) != ("mobilenet", 8)]
IMAGE = torch.randint(0, 256, (2, 3, 49, 65), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def learnt_from(model):
    """Logits, gradients, statistics, and what the network says of itself."""
    logits = model.train()(IMAGE)
    logits.square().mean().backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return digest({"logits": logits.detach()}, ""), digest(gradients, ""), digest(model.state_dict(), ""), repr(model)


@pytest.mark.parametrize(("name", "stride"), STRIDES)
def test_another_stride_is_another_network_with_the_same_weights(name, stride):
    torch.manual_seed(0)
    ours = DeepLabV3(NETWORKS[name])
    theirs = DeepLabV3(NETWORKS[name].at_output_stride(stride))
    theirs.load_state_dict(deepcopy(ours.state_dict()))
    ours.set_output_stride(stride)
    assert ours.config == theirs.config
    assert learnt_from(ours) == learnt_from(theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_stride_can_be_taken_back(name):
    torch.manual_seed(0)
    ours = DeepLabV3(NETWORKS[name])
    theirs = deepcopy(ours)
    for stride in (32, 16):
        ours.set_output_stride(stride)
    assert learnt_from(ours) == learnt_from(theirs)


def test_random_numbers_do_not_notice():
    model = DeepLabV3(NETWORKS["plain"])
    before = torch.get_rng_state()
    model.set_output_stride(8)
    assert torch.equal(torch.get_rng_state(), before)


TWO_PHASES = (
    Phase(steps=3, learning_rate=0.05, output_stride=16),
    Phase(steps=3, learning_rate=0.01, output_stride=8, frozen_batch_norm=True),
)


@pytest.fixture(scope="module")
def phased_run(whole_run, tmp_path_factory):
    """Epochs of two steps; the phase changes in the middle of the second. An average is kept."""
    config = replace(whole_run[0], run_dir=tmp_path_factory.mktemp("phased") / "run", average_decay=0.9)
    config = replace(config, phases=TWO_PHASES, eval_interval=3)
    return config, train(config)


def stride_in(config):
    return read_checkpoint(RunPaths(config).last).record["model"]["output_stride"]


@pytest.mark.parametrize(
    ("which", "stride"), [(3, 16), (4, 8), *[pytest.param(*stop, marks=pytest.mark.slow) for stop in ((2, 16), (5, 8))]]
)
def test_stop_around_the_change_is_not_noticed(phased_run, tmp_path, stop_at, which, stride):
    config = replace(phased_run[0], run_dir=tmp_path / "run")
    stop_at(which)
    with pytest.raises(Stopped):
        train(config)
    assert stride_in(config) == stride
    train(replace(config, resume=True))
    assert final_state(config) == final_state(phased_run[0])
    assert stride_in(config) == 8


def test_finished_epoch_is_validated_at_its_own_stride(whole_run, tmp_path, stop_at):
    """Where the next one is a phase of another stride, and the run was stopped between them."""
    phases = (Phase(epochs=1, learning_rate=0.05), Phase(epochs=1, learning_rate=0.01, output_stride=8))
    config = replace(whole_run[0], phases=phases, save_checkpoint_index=1)
    whole, stopped = (replace(config, run_dir=tmp_path / name) for name in ("whole", "stopped"))
    train(whole)
    stop_at(2)
    with pytest.raises(Stopped, match="batch 2 of 2"):
        train(stopped)
    train(replace(stopped, resume=True))
    assert final_state(stopped) == final_state(whole)
    kept = read_checkpoint(RunPaths(stopped, 2).kept(1))
    assert kept.record["model"]["output_stride"] == 16


def test_phases_leave_a_trace(phased_run, tmp_path):
    """Without stride and frozen norms it is another run, so the test above compares something."""
    config = replace(phased_run[0], run_dir=tmp_path / "run")
    config = replace(config, phases=(TWO_PHASES[0], replace(TWO_PHASES[1], output_stride=None)))
    train(config)
    assert final_state(config)[0][0] != final_state(phased_run[0])[0][0]


@pytest.mark.parametrize(
    ("model", "stride", "message"),
    [
        ({"backbone": "mobilenet_v3_large", "width": 64}, 8, "output_stride is 8; mobilenet_v3_large has 16 or 32"),
        ({"block_rates": ((2,) * 4, (4,) * 4)}, 8, "output_stride is 8; the model's block_rates belong to 16 alone"),
        ({"atrous_rates": (3, 6)}, 32, r"output_stride is 32; the model's atrous_rates \[3, 6\] at stride 16 become"),
    ],
)
def test_impossible_stride_is_refused_before_anything_is_written(train_config, model, stride, message):
    phases = (Phase(epochs=1, learning_rate=0.1), Phase(epochs=1, learning_rate=0.1, output_stride=stride))
    config = replace(train_config, model=replace(train_config.model, **model), phases=phases)
    with pytest.raises(InputError, match=message) as error:
        train(config)
    assert "\n" not in str(error.value)
    assert not train_config.run_dir.exists()


@pytest.fixture
def seen(monkeypatch):
    """Of each step: its number, rate, the network's stride, and whether its norms were frozen and stayed so."""
    steps = []

    def watched(learner, batch, rate, step, *rest):
        norms = [module for module in learner.model.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [digest(norm.state_dict(), "") for norm in norms]
        outcome = train_step(learner, batch, rate, step, *rest)
        stayed = {digest(norm.state_dict(), "") == old for norm, old in zip(norms, before, strict=True)}
        steps.append((step, rate, learner.model.config.output_stride, stayed, {norm.training for norm in norms}))
        return outcome

    monkeypatch.setattr(loop, "train_step", watched)
    return steps


def test_paper_recipe_from_end_to_end(streets, tmp_path, seen):
    """At a tiny size: its two phases are there, with 3 steps and 1 for 90,000 and 30,000."""
    words = ["--backbone", "resnet18", "--width", "16", "--aspp_channels", "8", "--multi_grid", "[1, 2]"]
    words += ["--backbone_weights", "none", "--batch_size", "3", "--crop_size", "[33, 49]", "--device", "cpu"]
    config = parse("train", [str(streets), str(tmp_path / "run"), "--config", "paper", *words, "--num_workers", "0"])
    config = replace(config, phases=tuple(replace(one, steps=one.steps // 30_000) for one in config.phases))
    history = train(config)
    assert [entry["step"] for entry in history] == [2, 4]
    assert [step[2:] for step in seen] == [(16, {False}, {True})] * 3 + [(8, {True}, {False})]
    assert [step[1] for step in seen] == pytest.approx([0.007, 0.007 * (2 / 3) ** 0.9, 0.007 * (1 / 3) ** 0.9, 0.001])
    record = read_checkpoint(RunPaths(config).last).record["model"]
    assert (record["output_stride"], record["multi_grid"], record["align_corners"]) == (8, [1, 2], True)
    assert (config.run_dir / "report" / "index.html").exists()


def test_run_of_steps_ends_within_an_epoch(train_config, seen):
    """Five steps are two epochs of two and a half one, which is validated and kept as a whole one is."""
    phases = (Phase(steps=5, learning_rate=0.05, warmup_steps=2),)
    config = replace(
        train_config, phases=phases, save_checkpoint_index=1, checkpoint_name="at_{epoch}", eval_interval=2
    )
    history = train(config)
    assert [step[:2] for step in seen] == [(step, learning_rate(step, phases, 2)) for step in range(5)]
    assert [entry["step"] for entry in history] == [2, 4, 5]
    assert [entry["learning_rate"] for entry in history] == [learning_rate(step, phases, 2) for step in (0, 2, 4)]
    assert [entry["miou"] is not None for entry in history] == [False, True, True]
    names = {path.stem for path in RunPaths(config).checkpoint_dir.iterdir()}
    assert names == {"best", "last", "at_1", "at_2", "at_3"}
    assert timeless(train(replace(config, resume=True))) == timeless(history)
    assert len(seen) == 5


def test_half_epoch_is_resumed_where_it_stopped(train_config, stop_at):
    config = replace(train_config, phases=(Phase(steps=3, learning_rate=0.05),))
    stop_at(3)
    with pytest.raises(Stopped, match="stopped in epoch 2 of 2, batch 1 of 2"):
        train(config)
    assert [entry["step"] for entry in train(replace(config, resume=True))] == [2, 3]


def test_run_whose_phases_end_before_it_stopped_ends_there(train_config, stop_at):
    config = replace(train_config, batch_size=2, phases=(Phase(epochs=2, learning_rate=0.05),))
    stop_at(3)
    with pytest.raises(Stopped, match="stopped in epoch 1 of 2, batch 3 of 3"):
        train(config)
    stop_at(-1)
    (entry,) = train(replace(config, resume=True, phases=(Phase(steps=2, learning_rate=0.05),)))
    assert entry["step"] == 3
    assert entry["miou"] is not None
