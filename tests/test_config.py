from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from deeplabv3 import config
from deeplabv3.config import (
    CheckConfig,
    DemoConfig,
    EvaluateConfig,
    ImportConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    Phase,
    PredictConfig,
    ReportConfig,
    StreetsConfig,
    SubmitConfig,
    TrainConfig,
)
from deeplabv3.errors import InputError
from deeplabv3.records import config_fields, from_record, to_record

CONFIGS = (
    CheckConfig(data_dir=Path("d"), picture=Path("p.png")),
    DemoConfig(),
    EvaluateConfig(data_dir=Path("d"), model=Path("m")),
    ModelConfig(multi_grid=(1, 2, 4)),
    PredictConfig(inputs=("a.png",), model=Path("m")),
    ReportConfig(data_dir=Path("d"), predictions=Path("p")),
    StreetsConfig(out=Path("o")),
    TrainConfig(
        data_dir=Path("d"), run_dir=Path("r"), labels=Path("l.yaml"), phases=(Phase(epochs=1, learning_rate=1),)
    ),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_record_round_trip(config):
    assert from_record(type(config), to_record(config)) == config


def test_text_becomes_a_path():
    config = ReportConfig(data_dir="d", model="m", out="o", report_dir="r", split="val")
    assert config == ReportConfig(data_dir=Path("d"), model=Path("m"), out=Path("o"), report_dir=Path("r"), split="val")
    assert (config.data_dir, config.predictions) == (Path("d"), None)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda name: EvaluateConfig(data_dir="d", model="m", out=name), "json"),
        (lambda name: CheckConfig(data_dir="d", out=name), "json"),
        (lambda name: CheckConfig(data_dir="d", picture=name), "png"),
        (lambda name: SubmitConfig(data_dir="d", model="m", out=name), "zip"),
        (lambda name: ImportConfig(file="f", out=name), "safetensors"),
    ],
)
def test_name_of_a_file_promises_no_other_form(make, wanted):
    for name in ("a", f"a.{wanted}", f"a.{wanted.upper()}", "a_lr0.01"):
        make(name)
    with pytest.raises(InputError, match=rf"is 'a\.csv'; it is written as {wanted}; let its name end with \.{wanted}$"):
        make("a.csv")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_record_has_every_field_once(config):
    assert list(to_record(config)) == list(config_fields(type(config)))


def test_defaults_are_the_original_protocol():
    config = TrainConfig(data_dir=Path("d"), run_dir=Path("r"))
    assert [(phase.epochs, phase.learning_rate) for phase in config.phases] == [(65, 1e-2), (5, 1e-3)]
    assert (config.momentum, config.weight_decay, config.poly_power) == (0.9, 5e-4, 0.9)
    assert (config.batch_size, config.crop_size, config.save_checkpoint_index) == (8, (768, 768), 5)
    assert (config.model.backbone, config.model.output_stride) == ("resnet101", 16)


@pytest.mark.parametrize(("stride", "rates"), [(8, (12, 24, 36)), (16, (6, 12, 18)), (32, (3, 6, 9))])
def test_rates_follow_the_output_stride(stride, rates):
    assert ModelConfig(output_stride=stride).aspp_rates == rates


def test_explicit_rates_cover_the_same_pixels_at_another_stride():
    config = ModelConfig(output_stride=16, atrous_rates=(4, 10))
    assert config.at_output_stride(8).aspp_rates == (8, 20)
    with pytest.raises(InputError, match="become fractions"):
        replace(config, atrous_rates=(5,)).at_output_stride(32)


def test_explicit_block_rates_belong_to_their_stride():
    config = ModelConfig(backbone="resnet50", block_rates=((1,) * 6, (2, 1, 1)))
    assert config.at_output_stride(16) == config
    with pytest.raises(InputError, match="belong to 16 alone: leave it out, or give .* import with --output-stride"):
        config.at_output_stride(8)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"backbone": "vgg16"}, "backbone is 'vgg16'; choose one of resnet18"),
        ({"output_stride": 7}, "output_stride is 7; choose 8, 16 or 32"),
        ({"multi_grid": (1, 2)}, "resnet101 has 3 blocks"),
        ({"width": 8}, "width is 8; give a multiple of 16"),
        ({"atrous_rates": (0,)}, "each rate is at least 1"),
        ({"aspp_channels": 0}, "aspp_channels is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"stem": "9x9"}, "stem is '9x9'; choose one of conv7, deep"),
        ({"aspp_projection": "5x5"}, "aspp_projection is '5x5'; choose one of 1x1, 1x1.3x3, 3x3"),
        ({"decoder": "unet"}, "decoder is 'unet'; choose one of none, conv, separable"),
        ({"low_level_channels": 0}, "low_level_channels is 0; give at least 1"),
        ({"auxiliary_channels": -1}, "auxiliary_channels is -1; give at least 0"),
        ({"batch_norm_eps": 0.0}, "batch_norm_eps is 0.0; give a value between 0 and 1"),
        ({"block_rates": ((1,), (2,))}, "resnet101 takes lists of 23 and 3 rates of at least 1"),
        ({"block_rates": ((1,) * 23, (1, 2, 0))}, "resnet101 takes lists of 23 and 3 rates of at least 1"),
        ({"block_rates": ((1,) * 23, (1, 2, 4)), "multi_grid": (1, 2, 4)}, "it excludes multi_grid; give one of them"),
        ({"backbone": "mobilenet_v3_large", "output_stride": 8}, "output_stride is 8; mobilenet_v3_large has 16 or 32"),
        ({"backbone": "mobilenet_v3_large", "stem": "deep"}, "mobilenet_v3_large has conv7 alone; leave stem out"),
        ({"backbone": "mobilenet_v3_large", "multi_grid": (1,)}, "mobilenet_v3_large has none; leave it"),
    ],
)
def test_impossible_model(changed, message):
    with pytest.raises(InputError, match=message):
        ModelConfig(**changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"phases": ()}, "phases is \\[\\]; give one Phase or more"),
        ({"phases": [{"epochs": 1, "learning_rate": 0.1}]}, "phases is .*; give one Phase or more"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"poly_power": -1.0}, "poly_power is -1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"eval_interval": 0}, "eval_interval is 0"),
        ({"crop_size": (0, 5)}, "crop_size is"),
        ({"scale_range": (2.0, 1.0)}, "scale_range is"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "float8"}, "precision is 'float8'"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"average_decay": 1.0}, "average_decay is 1.0"),
        ({"head_rate_factor": 0.0}, "head_rate_factor is 0.0"),
        ({"min_learning_rate": 0.01}, "min_learning_rate is 0.01; give 0 to 0.001, the lowest rate of a phase"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"num_workers": 100_000}, "num_workers is 100000; give 0 to 1024, or null"),
        ({"scale_range": (1e-300, 1.0)}, "give 0.01 <= smallest <= largest <= 100"),
        ({"checkpoint_name": "a\0{epoch}"}, "is no path"),
        ({"checkpoint_name": "{step}"}, "it needs {epoch}, may have {lr} and {wd}, and is no path"),
        ({"checkpoint_name": "best"}, "it needs {epoch}"),
        ({"checkpoint_name": "{epoch[0]}"}, "it needs {epoch}"),
        ({"checkpoint_name": "a/{epoch}"}, "is no path"),
        ({"seed": 2**63}, "below"),
        ({"scale_range": (1.0, float("inf"))}, "scale_range is"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
    ],
)
def test_impossible_training(changed, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(data_dir=Path("d"), run_dir=Path("r"), **changed)


@pytest.mark.parametrize("cls", [value for value in vars(config).values() if is_dataclass(value)])
def test_paths_may_be_texts_and_tuples_lists(cls):
    """Of every configuration, each such field by itself."""
    wanted = {
        item.name: "x" if str(item.type).startswith("Path") else []
        for item in fields(cls)
        if item.type in ("Path", "Path | None") or str(item.type).startswith("tuple")
    }
    made = object.__new__(cls)
    for item in fields(cls):
        object.__setattr__(made, item.name, wanted.get(item.name))
    with suppress(Exception):  # the rest of it is not given
        made.__post_init__()
    assert all(getattr(made, name) == (Path("x") if value == "x" else ()) for name, value in wanted.items())


def test_lists_from_python_are_tuples():
    phase = Phase(epochs=1, learning_rate=0.1)
    listed = TrainConfig(data_dir="d", run_dir="r", phases=[phase], crop_size=[32, 48], ignored_classes=["car"])
    assert listed == TrainConfig(
        data_dir=Path("d"), run_dir=Path("r"), phases=(phase,), crop_size=(32, 48), ignored_classes=("car",)
    )
    assert LossConfig(class_weights=[1.0, 2.0]).class_weights == (1.0, 2.0)
    assert ModelConfig(backbone="resnet18", block_rates=[[1] * 4, [2] * 4]).block_rates == ((1,) * 4, (2,) * 4)
    assert InferenceConfig(scales=[1.0]).is_plain


@pytest.mark.parametrize(
    "values",
    [
        {"epochs": 0, "learning_rate": 1},
        {"epochs": 1, "learning_rate": 0},
        {"epochs": 1, "learning_rate": float("inf")},
    ],
)
def test_impossible_phase(values):
    with pytest.raises(InputError, match="is (0|inf)"):
        Phase(**values)


def test_missing_value_is_named():
    with pytest.raises(InputError, match="data_dir is missing"):
        from_record(TrainConfig, {})
