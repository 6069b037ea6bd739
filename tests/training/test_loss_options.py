"""The options of the loss: what is refused, what is recorded, and that a run with each of them learns and resumes."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplabv3.cli import parse
from deeplabv3.config import LossConfig, Phase, TrainConfig
from deeplabv3.errors import InputError
from deeplabv3.records import from_record, to_record
from deeplabv3.training.loop import train
from deeplabv3.training.losses import class_weights_of
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import final_state

PLACES = {"data_dir": Path("d"), "run_dir": Path("r")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": "median"}, "class_weights is 'median'; give a list of numbers, counts, or null"),
        ({"class_weights": (1.0, -1.0)}, r"class_weights is \[1.0, -1.0\]; give a finite number of at least 0"),
        ({"class_weights": (1.0, float("inf"))}, "give a finite number"),
        ({"class_weights": (0.0, 0.0)}, "one of them above 0"),
        ({"class_weights": ()}, "one of them above 0"),
        ({"ohem_share": 0.0}, "ohem_share is 0.0; give above 0 and at most 1"),
        ({"ohem_share": 1.1}, "ohem_share is 1.1"),
        ({"ohem_threshold": 0.0}, "ohem_threshold is 0.0; give a probability above 0"),
        ({"ohem_threshold": 0.7, "ohem_share": 0.2}, "ohem_threshold is 0.7; it excludes ohem_share, which is 0.2"),
        ({"ohem_threshold": 0.7, "ohem_min_kept": -1}, "ohem_min_kept is -1; give at least 0"),
        ({"ohem_min_kept": 5}, "ohem_min_kept is 5; it belongs to ohem_threshold"),
        ({"dice_weight": -1.0}, "dice_weight is -1.0; give a finite weight of at least 0"),
        ({"lovasz_weight": float("nan")}, "lovasz_weight is nan"),
        ({"auxiliary_weight": float("inf")}, "auxiliary_weight is inf"),
    ],
)
def test_impossible_loss_is_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as error:
        LossConfig(**options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--class-weights", "counts"], LossConfig(class_weights="counts")),
        (["--class-weights", "[1, 2.5]"], LossConfig(class_weights=(1.0, 2.5))),
        (["--ohem-share", "0.2"], LossConfig(ohem_share=0.2)),
        (
            ["--ohem-threshold", "0.7", "--ohem-min-kept", "9"],
            LossConfig(ohem_threshold=0.7, ohem_min_kept=9),
        ),
        (["--dice-weight", "1", "--lovasz_weight=0.5"], LossConfig(dice_weight=1, lovasz_weight=0.5)),
        (["--auxiliary-weight", "0.5"], LossConfig(auxiliary_weight=0.5)),
    ],
)
def test_options_as_typed_and_as_recorded(words, expected):
    config = parse("train", ["d", "r", *words])
    assert config.loss == expected
    assert from_record(TrainConfig, to_record(config)) == config


@pytest.mark.parametrize("words", [["--class-weights", "median"], ["--class-weights", "[a]"], ["--ohem-share", "x"]])
def test_mistyped_option_is_one_line(words):
    with pytest.raises(InputError, match=words[0].strip("-").replace("-", "[-_]") + ".*(give a list|got)") as error:
        parse("train", ["d", "r", *words])
    assert "\n" not in str(error.value)


def test_each_class_needs_its_weight(train_config):
    with pytest.raises(InputError, match="class_weights has 2 values; .* has 19 classes; give a weight for each"):
        train(replace(train_config, loss=LossConfig(class_weights=(1.0, 2.0))))
    assert not train_config.run_dir.exists()


def test_class_weights_from_counts_are_those_of_enet():
    pixels = np.array([[5, 0, 15], [5, 0, 75]])
    weights = class_weights_of(LossConfig(class_weights="counts"), pixels, torch.device("cpu"))
    assert weights is not None
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([1 / math.log(1.12), 1 / math.log(1.02), 1 / math.log(1.92)])


def test_class_weights_as_given():
    device = torch.device("cpu")
    assert class_weights_of(LossConfig(), None, device) is None
    given = class_weights_of(LossConfig(class_weights=(1, 2.5)), None, device)
    assert given is not None
    assert given.tolist() == [1, 2.5]


RUNS = {
    "share": LossConfig(ohem_share=0.2),
    "threshold": LossConfig(ohem_threshold=0.7, ohem_min_kept=300),
    "counts": LossConfig(class_weights="counts"),
    "given": LossConfig(class_weights=tuple(1.0 + train_id for train_id in range(19))),
    "dice": LossConfig(dice_weight=1.0),
    "lovasz": LossConfig(lovasz_weight=1.0),
    "all": LossConfig(class_weights="counts", ohem_share=0.5, dice_weight=0.5, lovasz_weight=0.5, auxiliary_weight=0.2),
}


EVERYDAY = {"threshold", "given", "all"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in EVERYDAY)) for name in RUNS]
)
def test_run_learns_and_resumes_exactly(train_config, tmp_path, stop_at, name):
    config = replace(
        train_config,
        phases=(Phase(epochs=6, learning_rate=0.02),),
        crop_size=(64, 96),  # whole frames, so that twelve steps tell
        scale_range=(1.0, 1.0),
        photometric_distortion=False,
        eval_interval=6,
        save_checkpoint_index=6,
        loss=RUNS[name],
        model=replace(train_config.model, auxiliary_channels=8 if name == "all" else 0),
    )
    losses = [entry["train_loss"] for entry in train(config)]
    assert losses[-1] < losses[0]
    again = replace(config, run_dir=tmp_path / "again")
    stop_at(5)
    with pytest.raises(Stopped):
        train(again)
    stop_at(-1)
    train(replace(again, resume=True))
    assert final_state(again) == final_state(config)


def test_another_loss_on_resuming_is_noted(train_config, stop_at, capsys):
    stop_at(3)
    with pytest.raises(Stopped):
        train(train_config)
    stop_at(-1)
    train(replace(train_config, resume=True, loss=LossConfig(dice_weight=0.5)))
    assert (
        "note: the run goes on with other values than it began with: dice_weight 0.0 -> 0.5" in capsys.readouterr().err
    )
