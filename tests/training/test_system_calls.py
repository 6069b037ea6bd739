"""What `test_disk.py` does within Python, done to the system calls of the command as a user types it."""

import shutil
import signal
import subprocess
import sys
from itertools import count

import pytest

from deeplabv3.files import partial_of
from tests.conftest import REPOSITORY
from tests.training.test_disk import LAST, data, state_of, trial, whole  # noqa: F401  # fixtures

CALLS = ("mkdir", "openat", "write", "fsync", "rename")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes system calls fail, is not there"),
]


def traced(run, call, which, action):
    """The command, in which the `which`-th such call to the files of its last checkpoint, of any thread, goes wrong."""
    folder = run.last.parent
    paths = [word for path in (folder, run.last, partial_of(run.last)) for word in ("-P", str(path))]
    command = ["strace", "-f", "-qq", "-o", "/dev/null", *paths, "-e", f"trace={call}"]
    return subprocess.run(
        [*command, "-e", f"inject={call}:{action}:when={which}", sys.executable, "-m", "deeplabv3", *run.words()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call(trial, whole, call):  # noqa: F811
    for which in count(1):
        run = trial()
        ended = traced(run, call, which, "signal=KILL")
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        run.require_whole_checkpoints(whole, [])
        run.require_goes_on(whole)
    assert which > 2
    print(f"{call}: {which - 1} trials")  # for the record, with -s


@pytest.mark.parametrize("call", CALLS)
def test_disk_is_full_at_every_call(trial, whole, call):  # noqa: F811
    for which in count(1):
        run = trial()
        ended = traced(run, call, which, "error=ENOSPC")
        if ended.returncode == 0:
            break
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith("deeplabv3 train: error: ")
        assert ended.stderr.count("\n") == 1
        assert "No space left on device" in ended.stderr
        assert not partial_of(run.last).exists()
        run.require_whole_checkpoints(whole, [])
        run.require_goes_on(whole)
    assert state_of(run.last) == state_of(whole.dir / LAST)  # success is only said where the file is
    assert which > 1 + (call != "mkdir")
    print(f"{call}: {which - 1} trials")  # for the record, with -s
