"""Checkpoints of earlier states of this repository load to the last bit, and their runs go on."""

from dataclasses import replace

import pytest
import torch

from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import InputError
from deeplabv3.model.checkpoint import digest, model_from, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.learner import make_learner
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths, restore, state_tensors
from tests.model.forging import WRITTEN, forged, written
from tests.training.conftest import CPU

TENSORS = {  # SHA-256 as the writing state's own `digest` gave it
    "first": "7916e74229629e01d900b976ef46beaa076d3e28c1872b54186b7922016d4f15",
    "middle": "ce6564a5665d5c96e226aa881ca376a47829b9f064965358f0f33e56d681dced",
    "present": "98ad3dd2fb39790076ed88913cfd76c1481b55218f6c572653edd43d698b743d",
}
each = pytest.mark.parametrize("name", TENSORS)


@pytest.fixture
def begun(name, train_config):
    """The folder of a run that an earlier state left, and how it is gone on with."""
    options = {"average_decay": 0.9, "precision": "float16"} if name == "present" else {}
    config = replace(train_config, resume=True, phases=train_config.phases[:1], **options)
    paths = RunPaths(config)
    paths.checkpoint_dir.mkdir(parents=True)
    paths.last.write_bytes(written(name))
    return config, paths


def test_the_files():
    assert sorted(path.name.split(".")[0] for path in WRITTEN.glob("*.xz")) == sorted(TENSORS)


@each
def test_tensors_are_equal_and_the_model_has_them(begun, name):
    checkpoint = read_checkpoint(begun[1].last)
    assert digest(checkpoint.tensors, "") == TENSORS[name]
    model, label_set = model_from(checkpoint)
    part = checkpoint.part("average/") or checkpoint.part("model/")
    assert digest(model.state_dict(), "") == digest(part, "")
    assert label_set == CITYSCAPES


@each
def test_state_is_restored_whole(begun):
    config, paths = begun
    checkpoint = read_checkpoint(paths.last)
    learner = make_learner(DeepLabV3(config.model), config, CPU)
    position = restore(checkpoint, learner)
    stored = {key: value for key, value in checkpoint.tensors.items() if not key.startswith("random/")}
    restored = {key: value.contiguous() for key, value in state_tensors(learner).items()}
    assert digest(restored, "") == digest(stored, "")
    assert position.history == checkpoint.record["position"]["history"]
    assert position.epoch == checkpoint.record["position"]["epoch"] > 0


@each
def test_run_goes_on(begun, capsys, name):
    config, paths = begun
    before = read_checkpoint(paths.last).record["position"]["history"]
    history = train(config)
    assert history[: len(before)] == before
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert ("an epoch of unknown images ->" in capsys.readouterr().err) == (name == "first")


@pytest.mark.parametrize("name", ["first"])
def test_within_an_epoch_of_unknown_images_nothing_goes_on(begun):
    config, paths = begun
    checkpoint = read_checkpoint(paths.last)
    checkpoint.record["position"]["batch"] = 1
    paths.last.write_bytes(forged(checkpoint.tensors, checkpoint.record))
    with pytest.raises(InputError, match="within an epoch of unknown images and cannot go on"):
        train(config)
    assert torch.equal(read_checkpoint(paths.last).tensors["random/cpu"], checkpoint.tensors["random/cpu"])
