"""A run that is killed at any call of a save, or whose disk fails there, goes on as if nothing had happened."""

import errno
import json
import os
import shutil
import signal
import subprocess
from itertools import cycle

import pytest

from deeplabv3.data.streets import write_streets
from deeplabv3.model.checkpoint import digest, read_checkpoint
from tests.disk import ERRORS, KILL, TEAR
from tests.training.conftest import timeless
from tests.training.test_processes import TINY, Run

LAST, BEST = "checkpoints/last.safetensors", "checkpoints/best.safetensors"
ALL = {"config.yaml", "log.jsonl", "losses.csv", "losses.png", LAST, BEST} | {
    *(f"checkpoints/epoch_{epoch}.safetensors" for epoch in (1, 2)),
    *(f"report/{name}" for name in ("index.html", "losses.png", "classes.png", "confusion.png")),
}


def state_of(path):
    """A checkpoint, less what depends on the clock."""
    checkpoint = read_checkpoint(path)
    position = checkpoint.record["position"]
    return digest(checkpoint.tensors, ""), {**position, "history": timeless(position["history"])}


class Trial(Run):
    """A run of two epochs of one step, with all that a run writes; each epoch's checkpoint is kept."""

    def words(self, *more):
        return ["train", str(self.data), str(self.dir), *TINY, "--save-checkpoint-index", "1", *map(str, more)]

    def __call__(self, *more, fault=None):
        ended = self.ranks(1, "command", self.folder, fault, self.words(*more))
        return ended["codes"][0], ended["err"][0]

    def on_disk(self, which, action):
        return self(fault={"place": "disk", "which": which, "action": action})

    def calls(self):
        return (self.folder / "calls").read_text().splitlines()

    def files(self):
        return {str(path.relative_to(self.dir)) for path in self.dir.rglob("*") if path.is_file()}

    def require_whole_checkpoints(self, whole, calls):
        """Each that is there is one of the uninterrupted run, and the last is there once it was."""
        states = [state_of(whole.dir / f"checkpoints/epoch_{epoch}.safetensors") for epoch in (1, 2)]
        for path in self.dir.glob("checkpoints/*.safetensors"):
            assert state_of(path) in states
        saved = calls[:-1].count(f"rename {LAST}")  # a call behind it was begun
        later = self.dir / "log.jsonl", self.dir / "checkpoints/epoch_2.safetensors"  # written behind the first one
        assert self.last.exists() or not (saved or any(path.exists() for path in later))
        if saved:
            assert state_of(self.last) in states[saved - 1 :]

    def require_goes_on(self, whole):
        """It ends as one that nothing interrupted, to the bit, and nothing is left over."""
        has_begun, is_saved = (self.dir / "config.yaml").exists(), self.last.exists()
        anew = f"note: the run in {self.dir} ended before its first checkpoint; it begins anew\n"
        assert self(*["--resume"] * has_begun) == (0, anew * (has_begun and not is_saved))
        for name in (LAST, BEST):
            assert state_of(self.dir / name) == state_of(whole.dir / name)
        assert self.files() == whole.files()
        log, wanted = ((run.dir / "log.jsonl").read_text().splitlines() for run in (self, whole))
        assert timeless(map(json.loads, log)) == timeless(map(json.loads, wanted))
        shutil.rmtree(self.dir)  # hundreds of them would fill a disk


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "streets"
    write_streets(root, num_train=2, num_val=1, height=48, width=64, seed=1)
    return root


@pytest.fixture(scope="module")
def whole(ranks, data, tmp_path_factory):
    """A run that nothing interrupted, and whose calls were counted."""
    run = Trial(ranks, data, tmp_path_factory.mktemp("whole"))
    assert run.on_disk(0, KILL) == (0, "")
    assert {name for name in run.files() if "worst_" not in name} == ALL
    return run


@pytest.fixture
def trial(ranks, data, tmp_path_factory):
    """Makes a run that has not begun."""
    return lambda: Trial(ranks, data, tmp_path_factory.mktemp("run"))


def kill(run, whole, which, fault):
    assert run.on_disk(which, fault) == (-signal.SIGKILL, "")
    run.require_whole_checkpoints(whole, run.calls())
    run.require_goes_on(whole)


def fail(run, whole, which, name):
    """One error at one call; a call whose error does not matter changes nothing."""
    code, said = run.on_disk(which, getattr(errno, name))
    calls = run.calls()
    if code == 0:
        assert calls[which - 1].startswith(("close", "mkdir", "unlink"))
    else:
        assert code == 2
        assert said.startswith(f"deeplabv3 train: error: {'the folder ' * (' cannot be made' in said)}{run.dir}")
        assert said.count("\n") == 1
        assert os.strerror(getattr(errno, name)) in said
        saved = calls.count(f"rename {LAST}") - (calls[which - 1] == f"rename {LAST}")
        assert ("cannot be written" not in said) or (f"go on from {run.last} with --resume" in said) == bool(saved)
    assert not [path for path in run.files() if path.endswith(".partial")]
    run.require_whole_checkpoints(whole, [*calls[: which - 1], *calls[which:], ""])  # less the one that failed
    run.require_goes_on(whole)


def nth(calls, call, number):
    """The place of the `number`-th of the same calls, from 1."""
    return [place for place, each in enumerate(calls, 1) if each == call][number - 1]


def test_every_file_of_a_run_is_flushed_and_renamed(whole):
    calls = whole.calls()
    for name in whole.files():
        folder, _, file = name.rpartition("/")
        partial = f"{folder}/.{file}.partial".removeprefix("/")
        for which in range(1, calls.count(f"rename {name}") + 1):
            renamed = nth(calls, f"rename {name}", which)
            assert nth(calls, f"fsync {partial}", which) == renamed - 2  # it is closed between
            assert calls[renamed] == f"fsync {folder or '.'}"
    assert calls.count(f"rename {LAST}") == 2


@pytest.mark.parametrize(
    ("call", "number", "fault"),
    [
        ("write checkpoints/.last.safetensors.partial", 2, TEAR),
        pytest.param(f"rename {LAST}", 1, KILL, marks=pytest.mark.slow),
        ("rename report/index.html", 1, KILL),
    ],
)
def test_killed_in_a_save(trial, whole, call, number, fault):
    kill(trial(), whole, nth(whole.calls(), call, number), fault)


@pytest.mark.parametrize(
    ("call", "number", "name"),
    [
        ("write checkpoints/.last.safetensors.partial", 2, "ENOSPC"),
        pytest.param("fsync checkpoints/.best.safetensors.partial", 1, "EIO", marks=pytest.mark.slow),
        pytest.param("write .losses.csv.partial", 1, "EDQUOT", marks=pytest.mark.slow),
    ],
)
def test_disk_fails_in_a_save(trial, whole, call, number, name):
    fail(trial(), whole, nth(whole.calls(), call, number), name)


@pytest.mark.slow
def test_limit_of_a_files_size(trial, whole):
    run = trial()
    code, said = run(fault={"limits": {"RLIMIT_FSIZE": 1_000_000}})
    assert code == 2
    assert f"error: {run.dir}/{BEST} cannot be written: File too large; it needs " in said
    assert said.endswith("choose another folder, then begin anew with --resume, for nothing was saved yet\n")
    run.require_goes_on(whole)


@pytest.mark.slow
def test_full_disk(trial, whole):
    """It has room for the checkpoints of the first epoch."""
    run = trial()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20000000", "tmpfs", run.folder]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root may mount a disk, and not everywhere")
    try:
        code, said = run()
        assert code == 2
        assert (
            f"error: {run.dir}/checkpoints/epoch_2.safetensors cannot be written: No space left on device; it needs "
            in said
        )
        assert f"then go on from {run.last} with --resume\n" in said
        assert state_of(run.last) == state_of(whole.dir / "checkpoints/epoch_1.safetensors")
        subprocess.run(["mount", "-o", "remount,size=90000000", run.folder], check=True)
        run.require_goes_on(whole)
    finally:
        subprocess.run(["umount", run.folder], check=True)


def failures(calls, trials, trial):
    """What went wrong of trials, each a place among the calls and a fault."""
    found = []
    for which, fault in trials:
        try:
            trial(which, fault)
        except AssertionError as error:
            found.append(f"{which} {calls[which - 1]} {fault}: {error}")
    print(f"{len(trials)} trials, {len(found)} failures")  # for the record, with -s
    return found


@pytest.mark.slow
def test_killed_at_every_call(trial, whole):
    calls = whole.calls()
    trials = [(which, KILL) for which in range(1, len(calls) + 1)]
    trials += [(which, TEAR) for which, call in enumerate(calls, 1) if call.startswith("write")]
    assert failures(calls, trials, lambda *fault: kill(trial(), whole, *fault)) == []


@pytest.mark.slow
def test_disk_fails_at_every_call(trial, whole):
    """One error for each call in turn; `tests/test_files.py` has all of them for the calls of one file."""
    calls = whole.calls()
    trials = list(zip(range(1, len(calls) + 1), cycle(ERRORS), strict=False))
    assert failures(calls, trials, lambda *fault: fail(trial(), whole, *fault)) == []
