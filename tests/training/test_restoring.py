"""What a run is gone on from is whole and makes sense, or it is one CheckpointError before anything is written."""

import copy
from dataclasses import asdict, replace

import pytest
import torch

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError
from deeplabv3.model.checkpoint import Checkpoint, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.learner import make_learner
from deeplabv3.training.loop import train
from deeplabv3.training.position import position_of
from deeplabv3.training.resuming import checkpoint_to_resume
from deeplabv3.training.state import RunPaths, config_of, restore, state_tensors
from tests.model.forging import forged, written
from tests.training.conftest import CPU

CONTENT = {"epoch_content": "2 steps of 3 from 6 images (names 8be20096)", "val_names": ""}
ENTRY = {"epoch": 1, "step": 2, "learning_rate": 0.05, "train_loss": 0.5, "val_loss": 1.0, "miou": 0.5}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The checkpoint of a run with an average and a scale that was stopped in its second epoch."""
    path = tmp_path_factory.mktemp("stored") / "last.safetensors"
    path.write_bytes(written("present"))
    return read_checkpoint(path)


@pytest.fixture
def checkpoint(stored):
    """To be changed: its tensors and its record are of its own."""
    return Checkpoint(stored.path, dict(stored.tensors), copy.deepcopy(stored.record))


@pytest.fixture
def config(train_config):
    return replace(train_config, average_decay=0.9, precision="float16", resume=True)


@pytest.fixture
def paths(config):
    paths = RunPaths(config, steps_per_epoch=2)
    paths.checkpoint_dir.mkdir(parents=True)
    return paths


def resumed(checkpoint, paths, config):
    """As `train` does it, from a file whose digest fits."""
    paths.last.write_bytes(forged(checkpoint.tensors, checkpoint.record))
    start = checkpoint_to_resume(read_checkpoint(paths.last), paths, config, CITYSCAPES, CONTENT)
    learner = make_learner(DeepLabV3(config.model), config, CPU)
    return restore(start, learner), learner


def test_unchanged_it_is_restored(checkpoint, paths, config):
    position, learner = resumed(checkpoint, paths, config)
    assert (position.epoch, position.batch) == (1, 1)
    assert set(state_tensors(learner)) == set(checkpoint.tensors)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epoch", None, "epoch is missing"),
        ("history", None, "history is missing"),
        ("best_miou", None, "best_miou is missing"),
        ("epoch", "1", "epoch is '1'; give a whole number"),
        ("epoch", 1.0, "epoch is 1.0; give a whole number"),
        ("epoch", True, "epoch is True; give a whole number"),
        ("epoch", -1, "epoch is -1; it is a count"),
        ("epoch", 2, "epoch is 2; it is what history has, 1"),
        ("batch", 2**60, "batch is .*; it is a count"),
        ("num_skipped", 2, "num_skipped is 2; it is of the batches that are done"),
        ("loss_sum", "x", "loss_sum is 'x'; give a number"),
        ("loss_sum", 10**400, "loss_sum is .*; give a number"),
        ("best_miou", 1.5, "best_miou is 1.5; it is a share, or null"),
        ("history", {}, "history is {}; give a list"),
        ("history", [5], r"history is \[5\]; give a list"),
        ("history", [{**ENTRY, "epoch": 2}], "history has epoch 2 and step 2 as entry 1"),
        ("history", [{**ENTRY, "step": 0}], "history has epoch 1 and step 0 as entry 1"),
        ("history", [{**ENTRY, "train_loss": None}], "history has None as train_loss of epoch 1; it is a number"),
        ("history", [{**ENTRY, "miou": "0.5"}], "history has '0.5' as miou of epoch 1"),
        ("history", [{**ENTRY, "class_iou": [0.5]}], r"history has \[0.5\] as class_iou of epoch 1"),
        ("history", [{**ENTRY, "class_iou": {"road": {}}}], "history has {} as road of epoch 1"),
        ("history", [{**ENTRY, "num_overflowed": "x"}], "history has 'x' as num_overflowed of epoch 1"),
        ("history", [{**ENTRY, "num_overflowed": 3}], "num_overflowed is 0; it is of all steps that overflowed"),
    ],
)
def test_position_that_no_run_has(checkpoint, name, value, message):
    position = checkpoint.record["position"]
    del position[name]
    if value is not None:
        position[name] = value
    with pytest.raises(CheckpointError, match=f"last.safetensors has a record of its position .*: {message}"):
        position_of(checkpoint)


def test_more_batches_than_an_epoch_has(checkpoint, paths, config):
    checkpoint.record["position"]["batch"] = 3
    with pytest.raises(CheckpointError, match="last.safetensors has a record of 3 batches in an epoch of 2"):
        resumed(checkpoint, paths, config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("position", None, "has no record of its position"),
        ("position", [], r"has a record of its position that is \[\]"),
        ("config", None, "has no record of its config"),
        ("config", {}, "config that cannot be used: data_dir is missing"),
        ("epoch_content", 5, "has a record of its epoch_content that is 5"),
        ("num_processes", "2", "has a record of its num_processes that is '2'"),
        ("labels", {"classes": []}, "labels that cannot be used: label set 'own': trainIds"),
    ],
)
def test_record_that_no_run_has(checkpoint, paths, config, name, value, message):
    del checkpoint.record[name]
    if value is not None:
        checkpoint.record[name] = value
    with pytest.raises(CheckpointError, match=f"last.safetensors .*{message}"):
        resumed(checkpoint, paths, config)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", "auto", "batch_size is 'auto'; a run that has begun has a number"),
        ("batch_size", 0, "batch_size is 0; give at least 1"),
        ("phases", [{"epochs": 1}], "learning_rate is missing"),
        ("phases", [3], r"phases is \[3\]; give a list"),
        ("crop_size", [32], r"crop_size is \[32\]; give a list of 2"),
        ("flip", "yes", "flip is 'yes'; give true or false"),
        ("momentum", {}, "momentum is {}; give a number"),
    ],
)
def test_config_that_no_run_has(checkpoint, name, value, message):
    checkpoint.record["config"][name] = value
    with pytest.raises(CheckpointError, match=f"has a record of its config that cannot be used: {message}"):
        config_of(checkpoint)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("optimizer/classifier.bias", None, "lacks momentum that fits its model: classifier.bias is missing"),
        ("optimizer/other", torch.zeros(1), "lacks momentum that fits its model: other is not known"),
        ("optimizer/classifier.bias", torch.zeros(1), r"classifier.bias is \(1,\) instead of \(19,\)"),
        ("optimizer/classifier.bias", torch.zeros(19).half(), "classifier.bias is of torch.float16"),
        ("model/classifier.bias", None, "belongs to another model: classifier.bias is missing"),
        ("average/classifier.bias", None, "belongs to another model: classifier.bias is missing"),
        ("average_state/num_averaged", None, "lacks average_state/num_averaged"),
        ("average_state/num_averaged", torch.tensor([3]), r"num_averaged that is 3 \(torch.int64\), and no single"),
        ("average_state/num_averaged", torch.tensor(3.0), r"num_averaged that is 3.0 \(torch.float32\), and no single"),
        ("average_state/num_averaged", torch.tensor(-3), "num_averaged that is -3"),
        ("scaler/scale", None, "lacks scaler/scale"),
        ("scaler/scale", torch.tensor(0.0), "has a scaler/scale of 0"),
        ("scaler/scale", torch.zeros(2), r"scale that is of \(2,\)"),
        ("scaler/growth_tracker", None, "lacks scaler/growth_tracker"),
    ],
)
def test_tensor_that_no_run_has(checkpoint, paths, config, name, value, message):
    checkpoint.tensors.pop(name, None)
    if value is not None:
        checkpoint.tensors[name] = value
    with pytest.raises(CheckpointError, match=f"last.safetensors .*{message}"):
        resumed(checkpoint, paths, config)


def without_momentum(checkpoint):
    for name in [name for name in checkpoint.tensors if name.startswith("optimizer/")]:
        del checkpoint.tensors[name]


def test_run_with_momentum_has_it_stored(checkpoint, paths, config):
    without_momentum(checkpoint)
    with pytest.raises(CheckpointError, match="lacks momentum that fits its model: backbone.conv1.weight is missing"):
        resumed(checkpoint, paths, config)


def test_run_without_momentum_has_none_stored(checkpoint, paths, config):
    without_momentum(checkpoint)
    checkpoint.record["config"]["momentum"] = 0.0
    _, learner = resumed(checkpoint, paths, config)
    momentum = [value for name, value in state_tensors(learner).items() if name.startswith("optimizer/")]
    assert momentum
    assert not any(value.any() for value in momentum)  # it begins here


def test_overflows_of_a_file_without_their_sum_are_those_in_a_row(checkpoint):
    """So that what is saved next does not contradict itself."""
    position = checkpoint.record["position"]
    assert "num_overflowed" not in position
    position["num_overflows"] = 5  # as it was called then
    found = position_of(checkpoint)
    found.advance(None, has_overflowed=True)
    checkpoint.record["position"] = asdict(found)
    assert (position_of(checkpoint).overflows_in_a_row, position_of(checkpoint).num_overflowed) == (6, 6)


def test_run_that_was_stopped_before_its_first_step_has_none_stored(checkpoint, paths, config):
    """The first releases made it in the first step."""
    without_momentum(checkpoint)
    checkpoint.record["position"] |= {"epoch": 0, "batch": 1, "num_skipped": 1, "history": []}
    position, _ = resumed(checkpoint, paths, config)
    assert position.epoch == 0


def test_another_model_in_its_place_is_refused(checkpoint, paths, config):
    other = DeepLabV3(ModelConfig(backbone="resnet34", width=16, aspp_channels=8))
    for name, value in other.state_dict().items():
        checkpoint.tensors[f"model/{name}"] = value
    with pytest.raises(CheckpointError, match="last.safetensors belongs to another model: backbone.* is not known"):
        resumed(checkpoint, paths, config)


@pytest.mark.parametrize("part", ["position", "config"])
def test_nothing_is_written_over_a_run_that_cannot_go_on(checkpoint, paths, config, part):
    checkpoint.record[part] |= {"history": [3], "batch_size": "many"}
    content = forged(checkpoint.tensors, checkpoint.record)
    paths.last.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"has a record of its {part} that cannot be used"):
        train(config)
    assert paths.last.read_bytes() == content
    assert [path for path in config.run_dir.rglob("*") if path.is_file()] == [paths.last]
