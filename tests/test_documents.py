"""What the documents tell people to type is accepted by the command, and what they point to is there."""

import itertools
import re

import pytest
import torch
import yaml

from deeplabv3.cli import parse
from deeplabv3.config import ModelConfig, TrainConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.zoo import ALIASES, PUBLISHED
from tests.conftest import GOLDEN_DIR, REPOSITORY
from tests.pages import PAGES, commands

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_commands_are_accepted(page):
    for command in commands(page):
        if command.words:
            parse(command.words[0], command.words[1:])


def test_commands_are_found():
    assert sum(bool(command.words) for page in PAGES for command in commands(page)) >= 40


def fetches(command):
    """Whether it takes something from elsewhere that is not there on a fresh machine."""
    if not command.words:
        return re.search(r"pip install|^make", command.text) is not None
    config = parse(command.words[0], command.words[1:])
    named = {str(getattr(config, name, "")) for name in ("model", "weights")}
    begins = isinstance(config, TrainConfig) and not (config.resume or config.weights)
    return not named.isdisjoint(ALIASES) or (begins and config.backbone_weights == "imagenet")


@each_page
def test_commands_that_fetch_something_say_so(page):
    for command in commands(page):
        assert ("needs a network" in command.comment) == fetches(command), command.text


@each_page
def test_commands_of_several_accelerators_say_so(page):
    for command in commands(page):
        if number := re.search(r"--nproc-per-node (\d+)", command.text):
            assert ("an accelerator" in command.comment) == (int(number[1]) > 2), command.text


@pytest.mark.parametrize("page", [*PAGES, REPOSITORY / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_pictures_are_small_and_shown_with_a_text():
    text = "".join(page.read_text() for page in PAGES)
    shown = dict(re.findall(r"!\[([^\]]+)\]\((?:docs/)?images/([^)]+)\)", text))
    pictures = list((REPOSITORY / "docs/images").iterdir())
    assert {picture.name for picture in pictures} == set(shown.values())
    assert max(picture.stat().st_size for picture in pictures) < 300_000


def test_every_option_is_documented():
    text = "".join(page.read_text() for page in PAGES)
    options = set(re.findall(r"--[a-z][a-z-]+", (GOLDEN_DIR / "flags.txt").read_text()))
    written = set(re.findall(r"--[a-z][a-z-]+", text.replace("--print_config", "--print-config")))
    assert options - written == set()


def test_every_published_checkpoint_is_documented():
    text = (REPOSITORY / "docs/weights.md").read_text()
    for name in ALIASES:
        assert f"`{name}`" in text or f"`-{name.rpartition('-')[2]}`" in text, name
    rows = dict(re.findall(r"^\| `(r\d+\S+)` \| (.+) \|$", text, re.MULTILINE))
    for name, published in PUBLISHED.items():
        family, _, middle = name.removesuffix("_cityscapes").partition("_")
        if published.data_set == "Cityscapes":
            cells = rows[middle].split(" | ")
            place = int(family == "deeplabv3plus")
            assert (cells[place], cells[place + 2]) == (f"{published.miou:.2f}", str(published.megabytes)), name
        else:
            assert f"`{name}` ({published.megabytes} MB)" in text
    assert f"{sum(item.data_set == 'Cityscapes' for item in PUBLISHED.values())} checkpoints of mmsegmentation" in text


def test_what_travels_between_processes_is_computed():
    text = (REPOSITORY / "docs/scaling.md").read_text()
    for depth, width in itertools.product((18, 50, 101), (256, 512)):
        wide = {"aspp_channels": 512, "aspp_projection": "3x3", "auxiliary_channels": 256} if width == 512 else {}
        with torch.device("meta"):
            model = DeepLabV3(ModelConfig(backbone=f"resnet{depth}", **wide))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        layers = [module.num_features for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        forward, back = 2 * sum(layers) + len(layers), 2 * sum(layers)
        shares = [2 * (processes - 1) / processes for processes in (2, 8, 64)]
        gradients = [f"{4 * parameters * share / 1e6:.1f}" for share in (1, *shares)]
        statistics = [f"{4 * (forward + back) * share / 1e3:,.0f}" for share in shares]
        name = f"ResNet-{depth}, {width}"
        assert f"| {' | '.join([name, f'{parameters:,}', *gradients])} |" in text
        numbers = (f"{number:,}" for number in (len(layers), sum(layers), forward, back))
        assert f"| {' | '.join([name, *numbers, *statistics, str(2 * len(layers))])} |" in text
        if depth > 18:
            speeds = (1.25e9, 12.5e9, 50e9, 450e9)
            times = [", ".join(f"{4000 * parameters * share / speed:.3g}" for share in shares) for speed in speeds]
            assert f"| {' | '.join([name, *times])} |" in text


def test_label_set_of_the_documents_is_one():
    text = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "docs/data.md").read_text(), re.DOTALL)
    assert text
    labels = LabelSet.from_dict(yaml.safe_load(text[1]))
    assert labels.names == ("path", "grass")


def test_files_of_the_design_are_there():
    tree = (REPOSITORY / "docs/design.md").read_text().split("## Files")[1]
    for name in re.findall(r"^  (\w+/|\w+\.py)", tree, re.MULTILINE):
        assert (REPOSITORY / "deeplabv3" / name).exists(), name
