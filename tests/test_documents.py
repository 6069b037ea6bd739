"""What the documents tell people to type is accepted by the command, and what they point to is there."""

import re
import shlex

import pytest
import yaml

from deeplabv3.cli import VERBS, parse
from deeplabv3.data.labels import LabelSet
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def commands(page):
    """Lines that begin with the command, without what follows a hash."""
    for line in page.read_text().splitlines():
        words = shlex.split(line.strip(), comments=True) if re.match(r"\s+deeplabv3 [a-z]", line) else []
        if words and words[1] in VERBS and "[--" not in line:
            yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_accepted(page):
    for verb, *words in commands(page):
        parse(verb, words)


def test_commands_are_found():
    assert sum(len(list(commands(page))) for page in PAGES) >= 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_label_set_of_the_documents_is_one():
    text = re.search(r"```yaml\n(.*?)```", (REPOSITORY / "docs/data.md").read_text(), re.DOTALL)
    assert text
    labels = LabelSet.from_dict(yaml.safe_load(text[1]))
    assert labels.names == ("path", "grass")


def test_files_of_the_readme_are_there():
    tree = (REPOSITORY / "README.md").read_text().split("## Files")[1]
    for name in re.findall(r"^  (\w+/|\w+\.py)", tree, re.MULTILINE):
        assert (REPOSITORY / "deeplabv3" / name).exists(), name
