"""A packed data set, and one to change."""

import shutil

import pytest

from tests.data.packs import pack


@pytest.fixture(scope="session")
def packed(streets, tmp_path_factory):
    """The tiny data set, packed; read only."""
    out = tmp_path_factory.mktemp("packed") / "streets"
    for split in ("train", "val"):
        pack(streets, out, split)
    return out


@pytest.fixture
def copy(streets, tmp_path):
    """A data set that a test may change, and where it is packed to."""
    shutil.copytree(streets, tmp_path / "data")
    return tmp_path / "data", tmp_path / "packed"
