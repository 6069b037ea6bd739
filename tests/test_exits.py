"""How a command ends, whatever it prints to."""

import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


def ended(shell_words, *words, **environment):
    command = f'exec "$0" -m deeplabv3 "$@" {shell_words}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment},
    )


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0)])
def test_closed_streams_are_printed_to_in_vain(closed, code, tmp_path):
    result = ended(closed, "streets", tmp_path / "d", "--num-train", 1, "--num-val", 1, "--height", 32, "--width", 64)
    assert (result.returncode, "Traceback" in result.stderr) == (code, False)
    assert len(list((tmp_path / "d").rglob("*_leftImg8bit.png"))) == 2


def test_name_that_cannot_be_shown_is_escaped(tmp_path):
    words = ("streets", tmp_path / "D\u00fc", "--num-train", 1, "--num-val", 1, "--height", 32, "--width", 64)
    result = ended("", *words, PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("D\\xfc\n")
