"""Damaged files of every kind are right or one documented error: thousands of new ones, and each that ever was not."""

import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.fuzzing.targets import BOUNDED, TARGETS, outcome

CORPUS = Path(__file__).parent / "corpus"
SEEDS = sorted(CORPUS.glob("*/*.xz"))
SECONDS = float(os.environ.get("DEEPLABV3_FUZZ_SECONDS", "600"))
SPARE_MB = 100


def fuzzed(seed, unit, number, folder):
    """The figures of all targets, none of which crashed, failed or took too much memory."""
    command = [sys.executable, "-m", "tests.fuzzing", str(seed), unit, str(number), str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    print(f"seed {seed}:", json.dumps(figures, indent=1))  # which pytest -s shows
    assert list(figures) == [make.__name__ for make in TARGETS]
    for name, found in figures.items():
        assert "crash" not in found, (name, found)
        assert found["failures"] == {}, (name, f"kept in {folder}")
        assert found["trials"] == found.get("refused", 0) + found.get("accepted", 0) > 0, name
        if name in BOUNDED:
            assert found["spare_mb"] < SPARE_MB, (name, found)
    return figures


@pytest.fixture(scope="module")
def targets():
    return {make.__name__: make() for make in TARGETS}


def test_some_damaged_files_of_every_kind(tmp_path):
    fuzzed(0, "trials", 6, tmp_path)


@pytest.mark.slow
def test_many_damaged_files_of_every_kind(tmp_path):
    """Others in each run; the figures tell the seed."""
    fuzzed(int.from_bytes(os.urandom(4), "big"), "seconds", SECONDS, tmp_path)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda path: f"{path.parent.name}-{path.name.removesuffix('.xz')}")
def test_what_was_found_once_stays_mended(targets, tmp_path, seed):
    target = targets[seed.parent.name]
    path = tmp_path / target.name
    path.write_bytes(lzma.decompress(seed.read_bytes()))
    outcome(target, path)
