"""A run that begins with the weights of a whole network."""

import html
import re
import shlex
import shutil
from dataclasses import replace

import pytest
import torch

from deeplabv3.cli import parse
from deeplabv3.config import ModelConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_sample
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.model.checkpoint import read_checkpoint, write_checkpoint
from deeplabv3.prediction.segmenter import DeepLabV3
from deeplabv3.training import beginning
from deeplabv3.training.beginning import set_up
from deeplabv3.training.loop import train


@pytest.fixture
def config(train_config, tmp_path):
    """A run of one epoch that begins with a network of another shape than the default's."""
    torch.manual_seed(3)
    theirs = DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8, output_stride=8, stem="deep"))
    theirs.save(tmp_path / "theirs.safetensors")
    phases = (replace(train_config.phases[0], epochs=1, learning_rate=1e-12),)
    return replace(
        train_config, model=ModelConfig(), weights=tmp_path / "theirs.safetensors", phases=phases, weight_decay=0.0
    )


def moved(after, before, part="model/"):
    """The weights that are others; statistics are those of the data in any case."""
    pairs = {name: (after.part(part)[name], value) for name, value in before.part("model/").items()}
    return {
        name
        for name, (now, value) in pairs.items()
        if value.is_floating_point() and "running" not in name
        if now.shape != value.shape or (now - value).abs().max() > 1e-6
    }


def weights_after(config):
    train(config)
    return read_checkpoint(config.run_dir / "checkpoints" / "last.safetensors")


def test_network_and_weights_are_those_of_the_file(config):
    after, before = weights_after(config), read_checkpoint(config.weights)
    assert after.record["model"]["stem"] == "deep"
    assert after.record["model"]["output_stride"] == 8
    assert not moved(after, before)


@pytest.mark.parametrize("auxiliary", [False, True])
def test_other_classes_begin_with_new_classifiers_alone(config, capsys, auxiliary):
    """The average, which nothing but the weights that it begins with comes into, too."""
    channels = 8 if auxiliary else 0
    network = ModelConfig(backbone="resnet18", width=16, aspp_channels=8, auxiliary_channels=channels)
    DeepLabV3(network).save(config.weights)
    options = replace(config, ignored_classes=("train",), average_decay=0.9)
    after, before = weights_after(options), read_checkpoint(config.weights)
    assert "was trained on 19 classes of cityscapes; the classifier for the 18" in capsys.readouterr().err
    classifiers = ["classifier", *["auxiliary_head.2"] * auxiliary]
    for part in ("model/", "average/"):
        changed = moved(after, before, part)
        assert changed == {f"{name}.{kind}" for name in classifiers for kind in ("weight", "bias")}
        assert {after.part(part)[name].shape[0] for name in changed} == {18}


def test_run_that_began_so_is_resumed(config):
    longer = replace(config, phases=(replace(config.phases[0], epochs=2),))
    weights_after(config)
    assert len(train(replace(longer, resume=True))) == 2


def test_run_goes_on_without_the_file_that_it_began_with(config):
    longer = replace(config, phases=(replace(config.phases[0], epochs=2),))
    weights_after(config)
    config.weights.unlink()
    assert len(train(replace(longer, resume=True))) == 2


def test_another_dropout_is_said(config, capsys):
    weights_after(replace(config, model=ModelConfig(dropout=0.25)))
    assert (
        f"note: dropout is 0.25, and {config.weights} was made with 0.0; --dropout 0.0 keeps" in capsys.readouterr().err
    )


def test_auxiliary_head_of_the_file_is_trained_along(config, tmp_path):
    torch.manual_seed(3)
    theirs = DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8, auxiliary_channels=4))
    theirs.save(tmp_path / "auxiliary.safetensors")
    phases = (replace(config.phases[0], learning_rate=0.1),)
    after = weights_after(replace(config, weights=tmp_path / "auxiliary.safetensors", phases=phases)).part("model/")
    for name, before in theirs.auxiliary_head.named_parameters():
        assert not torch.equal(after[f"auxiliary_head.{name}"], before), name


def test_description_of_the_network_is_refused(config):
    with pytest.raises(
        InputError,
        match="backbone is given, by an option or a recipe, but the network is that of --weights .*; leave it out",
    ):
        train(replace(config, model=ModelConfig(backbone="resnet50")))


def test_run_that_began_so_is_repeated_by_its_commands(config):
    train(replace(config, report=True))
    first, _, _ = (config.run_dir / "config.yaml").read_text().partition("\n")
    page = html.unescape((config.run_dir / "report" / "index.html").read_text())
    for command in (first.removeprefix("# to repeat this run: "), re.search("deeplabv3 train .*NEW_RUN[^<]*", page)[0]):
        again = parse("train", shlex.split(command)[2:])
        assert (again.weights, again.asked_model) == (config.weights, config.model)
        assert len(train(replace(again, run_dir=config.run_dir.with_name("again"), report=False))) == 1
        shutil.rmtree(config.run_dir.with_name("again"))


def test_checkpoint_without_a_record_of_its_model(config, tmp_path):
    before = read_checkpoint(config.weights)
    write_checkpoint(tmp_path / "odd.safetensors", before.tensors, {"labels": before.record["labels"]})
    with pytest.raises(CheckpointError, match="odd.safetensors has no record of its model; use another file"):
        train(replace(config, weights=tmp_path / "odd.safetensors"))


def test_unknown_weights(config, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none"):
        train(replace(config, weights=tmp_path / "none"))
    assert not config.run_dir.exists()


def test_classes_that_no_frame_shows_are_not_drawn_for(train_config, tmp_path):
    """Frames whose classes are all ignored are sound; it is told before anything is written."""
    data_dir = tmp_path / "d"
    shutil.copytree(train_config.data_dir, data_dir)
    for sample in find_samples(data_dir, "train"):
        _, label = read_sample(sample, CITYSCAPES)
        if CITYSCAPES.names.index("train") in label:
            for path in data_dir.rglob(f"{sample.name}_*"):
                path.unlink()
    others = tuple(name for name in CITYSCAPES.names if name != "train")
    with pytest.raises(InputError, match="no training frame shows a class that is trained; give 0"):
        train(replace(train_config, data_dir=data_dir, class_sampling=0.5, ignored_classes=others))
    assert not train_config.run_dir.exists()


def test_several_processes_do_not_train_on_mps(train_config, monkeypatch):
    monkeypatch.setattr(beginning, "choose_device", lambda _: torch.device("mps:0"))
    monkeypatch.setattr(beginning, "num_processes", lambda: 2)
    with pytest.raises(InputError, match="several processes cannot train on MPS; start one, or give --device cpu"):
        set_up(train_config)


def test_accelerator_is_not_shared_by_two_processes(train_config, monkeypatch):
    monkeypatch.setattr(beginning, "choose_device", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(beginning, "num_processes", lambda: 2)
    monkeypatch.setattr(beginning, "local_rank", lambda: 1)
    with pytest.raises(InputError, match="process 1 of this machine would share cuda:0 with another; start at most 0 "):
        set_up(train_config)
