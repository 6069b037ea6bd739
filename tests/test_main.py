"""The original command line as a real process, in both modes, and the effect of each of its options."""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main as original
from deeplabv3.model.checkpoint import read_checkpoint
from tests.conftest import REPOSITORY
from tests.model import peers

SMALL = ("--backbone", "resnet18", "--backbone-weights", "none", "--crop-size", "32", "--device", "cpu")
TRAIN = (*SMALL, "--train-batch-size", "3", "--is-training-model")


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "main.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def options(*words: str) -> argparse.Namespace:
    return original.make_parser().parse_args(["data", "checkpoints", "losses", *words])


@pytest.fixture(scope="module")
def trained(streets, tmp_path_factory) -> tuple[Path, Path]:
    """The two folders of a run of three epochs whose checkpoints are two epochs apart."""
    folder = tmp_path_factory.mktemp("original")
    checkpoints, losses = folder / "checkpoints", folder / "losses"
    more = ("--num-epochs", 3, "--learning-rate", 0.02, "--save-checkpoint-index", 2, "--weight-decay", 0.001)
    result = run(streets, checkpoints, losses, *TRAIN, *more)
    assert result.returncode == 0, result.stderr
    return checkpoints, losses


def test_training_fills_both_folders_under_the_original_names(trained):
    checkpoints, losses = trained
    kept = {f"deeplabv3_epoch{epoch}_lr0.02_wd0.001" for epoch in (2, 3)}
    assert {path.stem for path in checkpoints.glob("*.safetensors")} == kept | {"best", "last"}
    assert {path.name for path in losses.iterdir()} == {f"{name}.png" for name in kept} | {"losses.csv", "losses.png"}
    with (losses / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["train_loss"]) > 0 and float(row["val_loss"]) > 0 for row in rows)


def test_checkpoint_holds_the_epoch_that_was_reached(trained):
    record = read_checkpoint(trained[0] / "deeplabv3_epoch2_lr0.02_wd0.001.safetensors").record
    assert record["position"]["epoch"] == 2


def test_evaluation_prints_scores_and_fills_the_results_path(streets, trained, tmp_path):
    name = "deeplabv3_epoch3_lr0.02_wd0.001"
    words = (*SMALL, "--is-evaluating-model", "--checkpoint-path", name, "--results-path", f"{tmp_path}/results/{{}}")
    result = run(streets, *trained, *words)
    assert result.returncode == 0, result.stderr
    assert "road" in result.stdout
    assert "mIoU" in result.stdout
    results = tmp_path / "results" / name
    assert "averageScoreClasses" in json.loads((results / "scores.json").read_text())
    assert [len(list((results / kind).iterdir())) for kind in ("labelIds", "color", "overlay")] == [3, 3, 3]
    assert not list(tmp_path.rglob("*{*"))
    assert not list(tmp_path.rglob("*[*]*"))


def test_checkpoint_of_the_original_repository_is_evaluated(here, streets, tmp_path, capsys):
    theirs = peers.randomised(peers.Original())
    name = "deeplabv3_epoch30_lr0.01_wd0.0005"
    value = {
        "model": theirs.state_dict(),
        "optimizer": {},
        "train_losses": [1.0],
        "valid_losses": [1.0],
        "num_epochs": 30,
    }
    torch.save(value, tmp_path / f"{name}.pth")
    words = (*SMALL, "--is-evaluating-model", "--checkpoint-path", name, "--results-path", f"{tmp_path}/results/{{}}")
    assert original.main([str(streets), str(tmp_path), f"{tmp_path}/losses", *words]) == 0, capsys.readouterr().err
    assert (tmp_path / "results" / name / "scores.json").is_file()


@pytest.mark.parametrize(
    ("channels", "words"), [(17, ["--num-classes", "17"]), (17, []), (19, ["--ignore-index", "0"])]
)
def test_other_classes_of_the_original_repository_need_names(here, tmp_path, capsys, channels, words):
    theirs = peers.Original()
    theirs.final_conv[0] = torch.nn.Conv2d(256, channels, 1)
    torch.save({"model": theirs.state_dict(), "num_epochs": 30}, tmp_path / "theirs.pth")
    words = ["data", str(tmp_path), "losses", "--is-evaluating-model", "--checkpoint-path", "theirs", *words]
    assert original.main(words) == 2
    error = capsys.readouterr().err
    assert f"theirs.pth has {channels} classes, and a file of the original repository has no names of them" in error
    assert f"give it some with deeplabv3 import {tmp_path}/theirs.pth --labels FILE.yaml" in error
    assert ("for the 19 of Cityscapes" in error) == (channels == 19)


def test_training_again_overwrites_nothing(streets, trained):
    before = {path: path.read_bytes() for folder in trained for path in folder.rglob("*.*")}
    result = run(streets, *trained, *TRAIN)
    assert result.returncode == 2
    assert "is there already: add --resume" in result.stderr
    assert {path: path.read_bytes() for folder in trained for path in folder.rglob("*.*")} == before


def test_without_epochs_and_rate_it_is_the_published_protocol():
    config = original.train_config(options())
    assert [(phase.epochs, phase.learning_rate) for phase in config.phases] == [(65, 1e-2), (5, 1e-3)]
    assert (config.model.backbone, config.model.output_stride, config.crop_size) == ("resnet101", 16, (768, 768))
    assert (config.batch_size, config.eval_batch_size, config.save_checkpoint_index) == (8, 8, 5)
    assert (config.momentum, config.weight_decay) == (0.9, 5e-4)
    assert (config.model.dropout, config.model.multi_grid, config.scale_range) == (0, None, (0.5, 2.0))
    assert (config.flip, config.photometric_distortion, config.poly_power) == (True, False, 0.9)


@pytest.mark.parametrize(
    ("words", "phase"),
    [(["--num-epochs", "4"], (4, 1e-2)), (["--learning-rate", "0.3"], (30, 0.3))],
)
def test_given_epochs_or_rate_are_one_phase(words, phase):
    phases = original.train_config(options(*words)).phases
    assert [(item.epochs, item.learning_rate) for item in phases] == [phase]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--momentum", "0.5"], "momentum", 0.5),
        (["--weight-decay", "0.1"], "weight_decay", 0.1),
        (["--train-batch-size", "2"], "batch_size", 2),
        (["--eval-batch-size", "3"], "eval_batch_size", 3),
        (["--save-checkpoint-index", "7"], "save_checkpoint_index", 7),
        (["--num-classes", "17"], "ignored_classes", ("motorcycle", "bicycle")),
        (["--ignore-index", "0"], "ignored_classes", ("road",)),
        (["--resume"], "resume", True),
    ],
)
def test_option_has_its_effect_on_training(words, name, value):
    assert getattr(original.train_config(options(*words)), name) == value


def test_folders_are_honoured():
    config = original.train_config(options())
    assert (str(config.data_dir), str(config.checkpoint_dir), str(config.losses_dir)) == (
        "data",
        "checkpoints",
        "losses",
    )


def test_evaluation_takes_its_options(streets, trained):
    words = [str(streets), *map(str, trained), "--checkpoint-path", "last", "--eval-batch-size", "3"]
    config = original.evaluate_config(original.make_parser().parse_args(words))
    assert config.model == trained[0] / "last.safetensors"
    assert config.batch_size == 3
    assert str(config.results_dir) == "cityscapes-results/last"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no mode is given; add --is-training-model, or --is-evaluating-model"),
        (["--is-evaluating-model"], "no checkpoint is named; add --checkpoint-path NAME"),
        (
            ["--is-evaluating-model", "--checkpoint-path", "none"],
            "there is no checkpoint {checkpoints}/none.safetensors; --checkpoint-path takes the name of one there: b",
        ),
        (["--is-evaluating-model", "--checkpoint-path", "last", "--num-classes", "18"], "was trained on road"),
        (["--is-training-model", "--num-classes", "20"], "--num-classes is 20; Cityscapes has 1 to 19"),
        (["--is-training-model", "--ignore-index", "-1"], "--ignore-index is -1; give 255"),
        (["--is-training-model", "--num-epochs", "0"], "argument --num-epochs: '0' is no whole number of at least 1"),
        (["--is-training-model", "--num-epochs", "x"], "argument --num-epochs: 'x' is no whole number of at least 1"),
        (["--is-training-model", "--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(streets, trained, capsys, words, message):
    assert original.main([str(streets), *map(str, trained), *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("main.py: error: ")
    assert err.count("\n") == 1
    assert message.replace("{checkpoints}", str(trained[0])) in err


def test_both_modes_are_training(streets, tmp_path, capsys):
    words = [str(streets), str(tmp_path / "c"), str(tmp_path / "l"), *TRAIN, "--is-evaluating-model"]
    assert original.main([*words, "--num-epochs", "1"]) == 0
    assert (tmp_path / "c" / "deeplabv3_epoch1_lr0.01_wd0.0005.safetensors").is_file()
    assert "epoch 1/1" in capsys.readouterr().out


def test_without_network_it_says_how_to_start(streets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deeplabv3.model.pretrained.BASE_URL", (tmp_path / "no-server").as_uri() + "/")
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "cache"))
    words = [str(streets), str(tmp_path / "c"), str(tmp_path / "l"), "--is-training-model", "--train-batch-size", "3"]
    assert original.main(words) == 2
    error = capsys.readouterr().err
    assert f"put it at {tmp_path}/cache/resnet101-63fe2227.pth" in error
    assert "--backbone-weights FILE" in error
    assert "--backbone-weights none" in error
    assert not (tmp_path / "c").exists()
