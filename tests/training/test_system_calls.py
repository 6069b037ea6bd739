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
    """The command, in which the `which`-th such call to the files of its last checkpoint, of any thread, goes wrong.

    Returns:
        How it ended, and whether there were so many calls.
    """
    folder = run.last.parent
    paths = [word for path in (folder, run.last, partial_of(run.last)) for word in ("-P", str(path))]
    log = run.folder / "strace"
    command = ["strace", "-f", "-qq", "-o", str(log), *paths, "-e", f"trace={call}"]
    ended = subprocess.run(
        [*command, "-e", f"inject={call}:{action}:when={which}", sys.executable, "-m", "deeplabv3", *run.words()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return ended, "(INJECTED)" in log.read_text() or ended.returncode < 0


@pytest.mark.parametrize("call", CALLS)
def test_killed_at_every_call(trial, whole, call):  # noqa: F811
    for which in count(1):
        run = trial()
        ended, was_called = traced(run, call, which, "signal=KILL")
        if not was_called:
            break
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        run.require_whole_checkpoints(whole, [])
        run.require_goes_on(whole)
    assert which > 2
    print(f"{call}: {which - 1} trials")  # for the record, with -s


@pytest.mark.parametrize("call", CALLS)
def test_disk_is_full_at_every_call(trial, whole, call):  # noqa: F811
    harmless = []
    for which in count(1):
        run = trial()
        ended, was_called = traced(run, call, which, "error=ENOSPC")
        if not was_called:
            break
        if ended.returncode == 0:  # a folder that is there already, or one that is opened only to be flushed
            assert state_of(run.last) == state_of(whole.dir / LAST), which
            harmless.append(which)
            continue
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith("deeplabv3 train: error: ")
        assert ended.stderr.count("\n") == 1
        assert "No space left on device" in ended.stderr
        assert not partial_of(run.last).exists()
        run.require_whole_checkpoints(whole, [])
        run.require_goes_on(whole)
    assert state_of(run.last) == state_of(whole.dir / LAST)  # success is only said where the file is
    assert which - 1 > len(harmless) + (call != "mkdir")
    print(f"{call}: {which - 1} trials, {len(harmless)} of them harmless")  # for the record, with -s
