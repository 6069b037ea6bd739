"""Thousands of files through the decoder: the right picture or one error, never a crash, within seconds and memory."""

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SECONDS, MEGABYTES = 2, 600


def read_all(*words):
    command = [sys.executable, "-m", "tests.data.reading", *words]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    print(found.stdout)  # the figures, which pytest -s shows
    return json.loads(found.stdout.splitlines()[-1])


def test_a_part_of_the_corpus_is_read_right_or_refused():
    figures = read_all("everyday")
    assert figures["wrong"] == []
    assert figures["files"] >= 190
    assert figures["largest"][0] < MEGABYTES


@pytest.mark.slow
def test_the_whole_corpus_is_read_right_or_refused():
    figures = read_all()
    assert figures["wrong"] == []
    assert figures["files"] >= 4000
    assert figures["largest"][0] < MEGABYTES, figures["largest"]
    assert figures["slowest"][0] < SECONDS, figures["slowest"]
