"""Pins and ranges leave out the releases with known holes."""

import re

import pytest

from tests.conftest import REPOSITORY

FLOORS = {
    "torch": (2, 10),  # torch.load
    "pillow": (12, 3),  # decoders
    "starlette": (0, 49, 1),  # a header of ranges that costs the server quadratic time
}
REQUIRED = ("torch", "pillow")
PAGES = {"constraints.txt": r"^{}==([\d.]+)", "pyproject.toml": r'"{}(?:\[.*\])?>=([\d.]+)[",]'}


def versions(page, name):
    """Every version that a page gives for a package."""
    text = (REPOSITORY / page).read_text()
    found = re.findall(PAGES[page].format(name), text, re.MULTILINE | re.IGNORECASE)
    return [tuple(map(int, version.split("."))) for version in found]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", FLOORS)
def test_versions_with_known_holes_are_left_out(page, name):
    found = versions(page, name)
    assert found or name not in REQUIRED
    assert all(version >= FLOORS[name] for version in found)


@pytest.mark.parametrize("name", FLOORS)
def test_what_is_pinned_is_bounded_by_what_is_asked_for(name):
    """A package that only others ask for has no range of its own, so its pin is what counts."""
    pinned, asked = (versions(page, name) for page in PAGES)
    assert all(pin >= bound for pin in pinned for bound in asked)


def test_every_mention_has_a_lower_bound():
    text = (REPOSITORY / "pyproject.toml").read_text()
    for name in FLOORS:
        mentions = re.findall(rf'"{name}[\["<>=~!;,]', text, re.IGNORECASE)
        assert len(mentions) == len(versions("pyproject.toml", name)), name
