"""Negative controls: without any one of the things that a checkpoint holds, a resumed run is another one.

What compares runs in `test_resume.py` and `test_kills.py` is worth something only as far as it fails here.
"""

import shutil
from dataclasses import replace

import pytest

from deeplabv3.config import Phase
from deeplabv3.errors import NonFiniteError
from deeplabv3.model.checkpoint import read_checkpoint
from deeplabv3.training import loop
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths, restore
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import final_state

TENSORS = {
    "weights": ("model/", ("weight", "bias")),
    "statistics": ("model/", ("running_mean", "running_var")),
    "counters": ("model/", ("num_batches_tracked",)),
    "momentum": ("optimizer/", ("weight", "bias")),
    "average": ("average/", ("weight", "bias")),
    "averaged statistics": ("average/", ("running_mean", "running_var")),
    "averaged updates": ("average_state/", ("num_averaged",)),
    "scale": ("scaler/", ("scale",)),
    "growth of the scale": ("scaler/", ("growth_tracker",)),
}
"""The names of the tensors of each component: how they begin and how they may end."""

POSITION = {
    "epoch": 0,
    "batch": 0,
    "loss_sum": 0.0,
    "num_skipped": 1,
    "num_overflowed": 0,
    "best_miou": 2.0,
    "history": [],
}
"""A wrong value for each field; `overflows_in_a_row` is a test of its own."""


@pytest.fixture(scope="module")
def whole_run_of_everything(whole_run, tmp_path_factory):
    """Three epochs of two steps, of which the first two overflow float16."""
    config = replace(
        whole_run[0],
        run_dir=tmp_path_factory.mktemp("everything") / "run",
        model=replace(whole_run[0].model, auxiliary_channels=8),
        phases=(Phase(epochs=3, learning_rate=0.01),),
        precision="float16",
        average_decay=0.9,
    )
    history = train(config)
    assert [entry["num_overflowed"] for entry in history] == [2, 2, 2]
    return config


@pytest.fixture(scope="module")
def stopped_runs():
    """Folders of the same run that was stopped after some steps."""
    return {}


@pytest.fixture
def resumed(whole_run_of_everything, stopped_runs, tmp_path, tmp_path_factory, stop_at, monkeypatch):
    """Stop the same run after some steps, let something happen to what is restored, and finish it."""

    def resume(which=3, change=lambda position: None, tensors=lambda name: False, **options):
        if which not in stopped_runs:
            stopped_runs[which] = tmp_path_factory.mktemp("stopped") / "run"
            stop_at(which)
            with pytest.raises(Stopped):
                train(replace(whole_run_of_everything, run_dir=stopped_runs[which]))
            stop_at(-1)
        shutil.copytree(stopped_runs[which], tmp_path / "run")
        config = replace(whole_run_of_everything, run_dir=tmp_path / "run")
        dropped = []

        def forgetful(checkpoint, learner):
            kept = dict(checkpoint.tensors)
            for name in filter(tensors, kept):
                kept[name] = kept[name] * 0 + 64 if "scaler" in name else kept[name] * 0
                dropped.append(name)
            position = restore(replace(checkpoint, tensors=kept), learner)
            change(position)
            return position

        monkeypatch.setattr(loop, "restore", forgetful)
        train(replace(config, resume=True, **options))
        return final_state(config), dropped

    return resume


def test_run_that_loses_nothing_is_the_same(resumed, whole_run_of_everything):
    assert resumed()[0] == final_state(whole_run_of_everything)


@pytest.mark.parametrize("component", TENSORS)
def test_run_without_a_component_is_another(resumed, whole_run_of_everything, component):
    begin, ends = TENSORS[component]
    state, dropped = resumed(tensors=lambda name: name.startswith(begin) and name.endswith(ends))
    assert dropped
    assert state != final_state(whole_run_of_everything)


def test_components_are_all_there_is(whole_run_of_everything):
    checkpoint = read_checkpoint(RunPaths(whole_run_of_everything).last)
    copies = [f"average/{name}" for name in checkpoint.part("model/") if name.endswith("num_batches_tracked")]
    for name in checkpoint.tensors.keys() - copies:  # each update copies these anew from the network
        assert sum(name.startswith(begin) and name.endswith(ends) for begin, ends in TENSORS.values()) == 1, name
    assert {*POSITION, "overflows_in_a_row"} == checkpoint.record["position"].keys()


@pytest.mark.parametrize("field", POSITION)
def test_run_without_its_position_is_another(resumed, whole_run_of_everything, field):
    state, _ = resumed(change=lambda position: setattr(position, field, POSITION[field]))
    assert state != final_state(whole_run_of_everything)


def test_run_counts_overflows_in_a_row_on(resumed):
    with pytest.raises(NonFiniteError, match="step 1: .* in 26 steps in a row"):
        resumed(which=1, change=lambda position: setattr(position, "overflows_in_a_row", 25))


def test_run_with_another_seed_is_another(resumed, whole_run_of_everything):
    """All random numbers follow from it. It may be another one between two epochs alone."""
    assert resumed(which=4, seed=5)[0] != final_state(whole_run_of_everything)
