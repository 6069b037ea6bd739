"""The commands that README.md and docs/ tell people to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deeplabv3.cli import VERBS
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAMS = (
    "deeplabv3",
    "torchrun",
    "python",
    "python3",
    ".venv/bin/python",
    "pip",
    "make",
    "curl",
    "tensorboard",
    "cat",
    "ffmpeg",
)
MARKS = ("needs a network", "an accelerator", "needs a camera", "needs CamVid")


class Command(NamedTuple):
    """A line of a page: what is typed, and what stands behind the hash."""

    text: str
    comment: str

    @property
    def marked(self) -> bool:
        """Whether it is said to need what a test has not."""
        return any(mark in self.comment for mark in MARKS)

    @property
    def words(self) -> list[str]:
        """The verb and its arguments, behind torchrun too; nothing for another program."""
        found = re.match(r"(?:torchrun .*-m |\S*python3? -m )?deeplabv3 ([a-z].*)", self.text)
        words = shlex.split(found[1]) if found else []
        return words if words and words[0] in VERBS and "[--" not in self.text else []


def commands(page: Path) -> Iterator[Command]:
    """Lines that are set off by four spaces and begin with a program, in their order."""
    for line in page.read_text().splitlines():
        text, _, comment = line.partition(" # ")
        if text.startswith("    ") and text.split()[0] in PROGRAMS:
            yield Command(text.strip(), comment)


def blocks(page: Path, language: str) -> list[str]:
    """What the page shows between fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
