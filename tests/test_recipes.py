"""Each recipe is complete, says what it is and where its numbers come from, and is accepted as it stands."""

import re
import shlex

import pytest
import yaml

from deeplabv3.arguments import RECIPES_DIR
from deeplabv3.cli import parse
from deeplabv3.config import EvaluateConfig, TrainConfig
from deeplabv3.model.pretrained import FILES
from deeplabv3.records import config_fields, to_record
from tests.conftest import REPOSITORY

RECIPES = sorted(RECIPES_DIR.glob("*.yaml"))
LEFT_OUT = {
    *("data_dir", "run_dir", "checkpoint_dir", "losses_dir"),  # where a run is
    *("device", "num_workers", "worker_timeout_seconds"),  # what runs it
    *("num_classes", "resume"),
}
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def parsed(name):
    return parse("train", ["DATA", "RUN", "--config", name])


def header(path):
    """The comment that a recipe opens with, without its hashes."""
    lines = path.read_text().splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return [line[1:].strip() for line in lines[:end]]


def commands(path):
    """The commands in a recipe's header: the verb, and what is typed behind it."""
    for line in header(path):
        found = re.search(r"deeplabv3 (train|evaluate) (\S.*)", line)
        if found:
            yield found[1], shlex.split(found[2])


def test_the_recipes():
    names = [path.stem for path in RECIPES]
    assert names == ["camvid", "cityscapes-best", "cityscapes-r101", "cityscapes-r50", "original", "paper", "quick"]


@each_recipe
def test_recipe_has_every_option(path):
    given = yaml.safe_load(path.read_text())
    assert set(given) == set(config_fields(TrainConfig)) - LEFT_OUT


@each_recipe
def test_recipe_is_what_is_parsed(path):
    config = parsed(path.stem)
    given, record = yaml.safe_load(path.read_text()), to_record(config)
    assert {name: value for name, value in given.items() if name != "phases"} == {
        name: record[name] for name in given if name != "phases"
    }
    assert len(config.phases) == len(given["phases"])


@each_recipe
def test_header_says_command_hardware_and_result(path):
    for name in ("command", "hardware", "result"):
        assert any(re.match(rf"{name}: +\S", line) for line in header(path)), name


@each_recipe
def test_commands_of_the_header_are_accepted(path):
    found = list(commands(path))
    assert any(verb == "train" for verb, _ in found)
    for verb, words in found:
        config = parse(verb, words)
        assert isinstance(config, TrainConfig if verb == "train" else EvaluateConfig)
        assert verb != "train" or path.stem in words


@each_recipe
def test_backbone_weights_exist(path):
    config = parsed(path.stem)
    name = config.backbone_weights
    assert name == "none" or (config.model.stem == "conv7" and config.model.backbone in FILES[name])


@each_recipe
def test_what_was_not_run_is_said(path):
    if "CITYSCAPES" in path.read_text():
        assert "not run here, because Cityscapes needs a login" in " ".join(header(path))


def test_original_recipe_is_the_default():
    assert parsed("original") == parse("train", ["DATA", "RUN"])


def test_paper_trains_at_stride_16_and_then_at_8_with_frozen_batch_norm():
    config = parsed("paper")
    seen = [(phase.steps, phase.learning_rate, phase.output_stride, phase.frozen_batch_norm) for phase in config.phases]
    assert seen == [(90_000, 0.007, 16, False), (30_000, 0.001, 8, True)]
    assert (config.crop_size, config.batch_size, config.model.multi_grid) == ((769, 769), 16, (1, 2, 4))
    assert [config.model.at_output_stride(stride).aspp_rates for stride in (16, 8)] == [(6, 12, 18), (12, 24, 36)]


@pytest.mark.parametrize("depth", [50, 101])
def test_recipes_of_mmsegmentation(depth):
    config = parsed(f"cityscapes-r{depth}")
    model = config.model
    assert (model.backbone, model.output_stride, model.aspp_rates) == (f"resnet{depth}", 8, (12, 24, 36))
    assert (model.aspp_channels, model.aspp_projection, model.dropout) == (512, "3x3", 0.1)
    assert (model.auxiliary_channels, config.loss.auxiliary_weight) == (256, 0.4)
    assert [(phase.steps, phase.learning_rate) for phase in config.phases] == [(80_000, 0.01)]
    assert (config.min_learning_rate, config.weight_decay, config.batch_size) == (1e-4, 5e-4, 8)
    assert (config.crop_size, config.cat_max_ratio, config.photometric_distortion) == ((512, 1024), 0.75, True)


def test_best_differs_from_r101_in_what_its_header_lists():
    before, after = (yaml.safe_load((RECIPES_DIR / f"cityscapes-{name}.yaml").read_text()) for name in ("r101", "best"))
    changed = {name for name in after if after[name] != before[name]}
    lines = header(RECIPES_DIR / "cityscapes-best.yaml")
    assert changed == {line.partition(":")[0] for line in lines if line.partition(":")[0] in after}


def test_recipes_are_documented():
    text = (REPOSITORY / "docs/training.md").read_text()
    for path in RECIPES:
        assert f"| `{path.stem}` |" in text, path.stem
