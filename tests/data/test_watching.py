"""What is noted of processes that read, how they are started, and what is said of their ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch

from deeplabv3.data import workers
from deeplabv3.data.workers import WatchedDataset, default_num_workers, num_prefetched, read_by_workers
from deeplabv3.errors import DatasetError, InputError
from tests.conftest import REPOSITORY


class Source:
    """Does something at each key, before or after it has noted it."""

    def __init__(self, act, is_noted=True):
        self.act, self.is_noted = act, is_noted

    def read(self, key, note):
        if self.is_noted:
            note(key)
        return self.act()

    def name_of(self, place):
        return f"frame {place}"


@pytest.mark.parametrize(("num_workers", "wanted"), [(0, 0), (1, 8), (2, 8), (3, 6), (4, 8), (5, 10), (8, 16)])
def test_enough_is_made_ahead_for_the_slow_ones(num_workers, wanted):
    assert num_prefetched(num_workers) == wanted


@pytest.mark.parametrize(("cores", "wanted"), [(1, 1), (4, 4), (8, 8), (16, 8)])
def test_readers_pay_beside_an_accelerator(monkeypatch, cores, wanted):
    monkeypatch.setattr(workers, "num_cores", lambda: cores)
    assert default_num_workers("cuda") == wanted
    assert default_num_workers("cpu") == 0


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_what_is_read_is_noted_until_it_is_there(num_workers):
    watched: WatchedDataset = WatchedDataset(Source(lambda: watched.being_read()), num_workers)
    for key in (0, 1, 5):
        assert watched[key] == {os.getpid(): f"frame {key}"}
        assert watched.being_read() == {}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_system_refuses_is_one_line(num_workers, tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(InputError, match=f"^{path}: No such file or directory$"):
        list(read_by_workers(Source(path.read_bytes), [0], num_workers))


@pytest.mark.parametrize(
    ("num_workers", "less"), [(0, "a smaller batch or crop, or end other programs"), (1, "fewer --num-workers")]
)
@pytest.mark.parametrize(("is_noted", "name"), [(True, "frame 0"), (False, "a batch")])
def test_memory_that_runs_out_is_told_with_what_was_read(num_workers, less, is_noted, name):
    def fail():
        raise MemoryError

    with pytest.raises(DatasetError, match=f"^the memory ran out while {name} was read; give {less}$"):
        list(read_by_workers(Source(fail, is_noted=is_noted), [0], num_workers))


def test_slow_file_is_waited_for_while_others_are_read():
    """Nothing stands still; what is waited for is merely the first in order."""
    assert list(read_by_workers(Slow(), range(6), 2, timeout_seconds=3)) == list(range(6))


class Slow:
    """The first takes longer than may pass without a sign, the others a part of it."""

    def read(self, key, note):
        note(key)
        time.sleep(5 if key == 0 else 1)
        return key

    def name_of(self, place):
        return str(place)


def setting():
    return torch.get_num_threads(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_readers_use_one_core_and_leave_signals_to_the_program():
    before = torch.get_rng_state()
    found = list(read_by_workers(Source(setting), [0], 1))
    assert found == [(1, signal.SIG_IGN, signal.SIG_DFL)]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("code", "is_noted", "wanted"),
    [
        (0, True, "ended with exit code 0 while it read frame 0; look at that file"),
        (1, False, "ended with exit code 1; see what the system says"),
    ],
)
def test_reader_that_ends_by_itself(code, is_noted, wanted):
    with pytest.raises(DatasetError, match=f"^a process that reads images {wanted}$"):
        list(read_by_workers(Source(lambda: os._exit(code), is_noted), [0], 1))


SLOW_START = """
import os, time
from torch.utils.data import DataLoader
from deeplabv3.data.workers import read_by_workers
from deeplabv3.errors import DatasetError
from tests.data.test_watching import Source

def started(loader, whole=DataLoader.__iter__):
    items = whole(loader)
    time.sleep(1)
    return items

DataLoader.__iter__ = started
for end in (lambda: os._exit(3), lambda: os.kill(os.getpid(), 9), lambda: os._exit(0)):
    try:
        list(read_by_workers(Source(end), [0], 1))
    except DatasetError as error:
        print(error)
"""


def test_reader_that_ends_before_the_loader_has_started():
    """In a process of its own, for what torch does once."""
    command = [sys.executable, "-c", SLOW_START]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    ends = ("ended with exit code 3", "was ended by SIGKILL", "ended with exit code 0")
    for line, end in zip(said.splitlines(), ends, strict=True):
        assert line.startswith(f"a process that reads images {end} while it read frame 0; ")


def test_readers_that_have_not_begun():
    words = "^the processes that read images gave nothing for 0.5 s; they had not begun: look at the disk "
    start = time.monotonic()
    with pytest.raises(DatasetError, match=words):
        list(read_by_workers(Source(lambda: time.sleep(3600), is_noted=False), [0], 1, timeout_seconds=0.5))
    assert time.monotonic() - start >= 0.5


@pytest.mark.parametrize(
    ("code", "name", "wanted"),
    [
        (-signal.SIGKILL, "a", "was ended by SIGKILL while it read a; where the memory was short, give fewer"),
        (-signal.SIGSEGV, None, "was ended by SIGSEGV; see what the system says"),
        (-1, None, "was ended by SIGHUP; see what the system says"),
        (signal.SIGKILL, "a", "ended with exit code 9 while it read a; look at that file"),
    ],
)
def test_words_of_a_death(code, name, wanted):
    assert workers._death(code, name).startswith(f"a process that reads images {wanted}")


def test_readers_are_started_by_any_thread():
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.extend(read_by_workers(Source(lambda: 3), range(4), 1)))
    thread.start()
    thread.join()
    assert found == [3] * 4


OTHER_START = """
import multiprocessing
from deeplabv3.data.workers import read_by_workers
from tests.data.test_watching import Source

multiprocessing.set_start_method("forkserver")
print(list(read_by_workers(Source(lambda: 3), range(4), 2)))
"""


def test_readers_are_forked_whatever_python_would_do():
    """From 3.14 on they would be children of a server, and be taken for orphans of the program."""
    command = [sys.executable, "-W", "error", "-c", OTHER_START]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert (done.stdout, done.stderr) == ("[3, 3, 3, 3]\n", "")


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("ahead", [0, 2])
def test_what_is_made_of_an_item_is_what_is_given(num_workers, ahead):
    stream = read_by_workers(Source(lambda: 3), range(4), num_workers, received=lambda item: item + 1, ahead=ahead)
    assert next(stream) == 4
    assert is_receiving() == (num_workers > 0 and ahead > 0)
    assert list(stream) == [4] * 3
    assert not is_receiving()


@pytest.mark.parametrize("ahead", [0, 2])
def test_stream_that_is_left_leaves_nothing(ahead):
    others = set(multiprocessing.active_children())
    stream = read_by_workers(Source(lambda: 3), range(99), 2, ahead=ahead)
    assert next(stream) == 3
    assert len(set(multiprocessing.active_children()) - others) == 2
    stream.close()
    assert set(multiprocessing.active_children()) <= others
    assert not is_receiving()


def test_stream_is_left_though_a_reader_died_with_the_lock_of_the_loaders_event(monkeypatch):
    """It happens where it is killed just then; here the test holds the lock."""
    loaders: list[Any] = []
    start = workers._unsignalled

    def noted(loader):
        loaders.append(start(loader))
        return loaders[0]

    monkeypatch.setattr(workers, "_unsignalled", noted)
    stream = read_by_workers(Source(lambda: 3), range(99), 2)
    assert next(stream) == 3
    assert loaders[0]._workers_done_event._cond._lock.acquire(timeout=30)

    def leave():
        stream.close()
        loaders.pop().__del__()

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    leaving.join(30)
    assert not leaving.is_alive()


ORPHANS = """
import time
from deeplabv3.data.workers import read_by_workers
from tests.data.test_watching import Source

def wait():
    print("reading", flush=True)
    time.sleep(3600)

stream = read_by_workers(Source(wait), range(9), 2)
next(stream)
"""


def test_readers_end_with_a_program_that_is_killed():
    """Even in the middle of an item, where torch does not look whether the program lives."""
    program = subprocess.Popen([sys.executable, "-c", ORPHANS], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    for _ in range(2):
        program.stdout.readline()
    program.kill()
    assert program.communicate(timeout=60)[0] == ""  # it ends when nobody has the other end any more


@pytest.mark.parametrize("ahead", [0, 2])
def test_other_errors_of_the_loader_are_told_as_they_are(monkeypatch, ahead):
    def fail(*_):
        raise RuntimeError("received 0 items of ancdata")

    stream = read_by_workers(Source(lambda: 3), range(9), 1, ahead=ahead)
    monkeypatch.setattr(torch.utils.data.dataloader._MultiProcessingDataLoaderIter, "_next_data", fail)
    with pytest.raises(RuntimeError, match="ancdata"):
        list(stream)


def is_receiving():
    return any(thread.name == "receiver" for thread in threading.enumerate())
