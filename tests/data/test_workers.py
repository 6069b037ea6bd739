"""A process that reads may die, stand still or raise: the run ends with the cause, saved, and soon."""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess

import pytest
import torch
from torch.utils.data import get_worker_info

from deeplabv3.data import workers
from deeplabv3.data.loading import TrainReader, read_in_order
from deeplabv3.data.workers import read_by_workers
from deeplabv3.errors import DatasetError
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from tests.conftest import REPOSITORY, make_config


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def crashes(_):
    ctypes.string_at(0)


def exits(_):
    os._exit(3)


def stops(_):
    os.kill(os.getpid(), signal.SIGSTOP)


def sleeps(_):
    time.sleep(3600)


def ignores_everything(_):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(3600)


def raises(name):
    raise DatasetError(f"{name} is broken")


def runs_out_of_memory(_):
    raise MemoryError


class Numbers:
    """Whole numbers; at one of them something happens."""

    def __init__(self, happens=None, at=5):
        self.happens, self.at = happens, at

    def read(self, key, note):
        note(key)
        if key == self.at and self.happens:
            assert get_worker_info() is not None
            self.happens(f"item {key}")
        return key

    def name_of(self, place):
        return f"frame {place}"


def read(source, num_workers=2, timeout_seconds=2):
    return read_by_workers(source, range(12), num_workers, timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("num_workers", [0, 1, 2, 4])
def test_items_come_in_order(num_workers):
    assert list(read(Numbers(), num_workers)) == list(range(12))


@pytest.mark.parametrize(
    ("happens", "message"),
    [
        (killed, "was ended by SIGKILL while it read frame 5; where the memory was short, give fewer --num-workers"),
        (crashes, "was ended by SIGSEGV while it read frame 5; look at that file"),
        (exits, "ended with exit code 3 while it read frame 5; look at that file"),
        (stops, "gave nothing for 2 s; they were reading frame 5"),
        (sleeps, "gave nothing for 2 s; they were reading frame 5"),
        (ignores_everything, "gave nothing for 2 s; they were reading frame 5"),
        (runs_out_of_memory, "the memory ran out while frame 5 was read; give fewer --num-workers"),
    ],
)
def test_what_befalls_a_reader_is_told_with_what_it_read(happens, message):
    others = set(multiprocessing.active_children())
    with pytest.raises(DatasetError, match=message):
        list(read(Numbers(happens)))
    assert set(multiprocessing.active_children()) <= others


def test_slow_reader_is_waited_for():
    def slow(_):
        time.sleep(1.6)

    assert list(read(Numbers(slow), timeout_seconds=30)) == list(range(12))


@pytest.mark.slow
def test_suspended_program_goes_on():
    """Ctrl-Z stops a program and its readers; the time until fg is no silence of theirs."""
    code = (
        "import time\n"
        "from tests.data.test_workers import Numbers, read\n"
        "print('begun', flush=True)\n"
        "print(list(read(Numbers(lambda _: time.sleep(1.5)), timeout_seconds=3)))\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=-1, text=True, start_new_session=True
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "begun\n"
    time.sleep(1)
    os.killpg(program.pid, signal.SIGSTOP)
    time.sleep(4)
    os.killpg(program.pid, signal.SIGCONT)
    assert program.communicate()[0] == f"{list(range(12))}\n"


def test_process_that_cannot_be_ended_is_not_waited_for(monkeypatch):
    """One that waits for a disk that is gone ends only with the machine."""
    others = set(multiprocessing.active_children())
    with monkeypatch.context() as patch:
        patch.setattr(BaseProcess, "kill", lambda _: None)
        patch.setattr(workers, "_LAST_SECONDS", 0.1)
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)  # so long torch waits for each
        with pytest.raises(DatasetError, match="gave nothing for 2 s; they were reading frame 5"):
            list(read(Numbers(ignores_everything)))
    for process in set(multiprocessing.active_children()) - others:
        process.kill()
        process.join()


@pytest.mark.parametrize("num_workers", [1, 2, 3, 5])
def test_place_of_a_batch_is_used_again_only_after_it_was_copied(num_workers):
    """A key is what a reader writes to; the ring of shared batches has two places more than are made ahead."""
    taken: list[int] = []
    copied: list[int] = []
    most = 0

    def keys():
        for key in range(60):
            taken.append(key)
            yield key

    def copy(item):
        nonlocal most
        most = max(most, len(taken) - len(copied))  # while it is copied, so are those behind it being written
        copied.append(item)
        return item

    assert list(read_by_workers(Numbers(), keys(), num_workers, received=copy, ahead=1)) == list(range(60))
    assert most <= workers.num_prefetched(num_workers) + 1


def test_bug_in_a_reader_keeps_its_traceback():
    def divide(_):
        _ = 1 / 0

    with pytest.raises(ZeroDivisionError, match="in divide"):
        list(read(Numbers(divide)))


def test_death_is_told_where_a_batch_is_waited_for_and_nowhere_else():
    """torch raises it out of a signal handler, which would interrupt an update of the weights."""
    stream = read(Numbers(killed))
    next(stream)
    time.sleep(1.0)  # the reader dies now
    with pytest.raises(DatasetError, match="SIGKILL"):
        list(stream)


def test_signal_handler_is_given_back():
    before = signal.getsignal(signal.SIGCHLD)
    list(read(Numbers()))
    assert signal.getsignal(signal.SIGCHLD) == before


def test_error_of_what_is_read_is_raised_as_it_is():
    with pytest.raises(DatasetError, match="^b is broken$"):
        list(read_in_order(raises, ["b", "c"], 1))


def happening(monkeypatch, happens, at):
    """Training samples, of which the n-th that any process reads makes something happen to that process."""
    count = multiprocessing.Value("i", 0)
    real = TrainReader._fill

    def fill(self, key, crop):
        with count.get_lock():
            count.value += 1
            is_now = count.value == at
        if is_now:
            happens(self.samples[key.index].image_path)
        return real(self, key, crop)

    monkeypatch.setattr(TrainReader, "_fill", fill)


@pytest.mark.parametrize("happens", [killed, stops, raises])
def test_run_ends_saved_and_goes_on(train_config, monkeypatch, happens):
    config = replace(train_config, num_workers=2, worker_timeout_seconds=2)
    with monkeypatch.context() as patch:
        happening(patch, happens, at=13)
        with pytest.raises(DatasetError, match=r"_leftImg8bit.png.*; the run is saved at .*: put .* and add --resume"):
            train(config)
    assert RunPaths(config).last.exists()
    assert len(train(replace(config, resume=True))) == 4


def _train_until_the_end(config, happens, at, pipe):
    with pytest.MonkeyPatch.context() as patch:
        began = multiprocessing.Value("d", 0.0)

        def noted(name):
            began.value = time.monotonic()
            happens(name)

        happening(patch, noted, at)
        try:
            train(config)
            pipe.send(("the run did not end", 0.0))
        except DatasetError as error:
            pipe.send((str(error), time.monotonic() - began.value))


@pytest.mark.slow
@pytest.mark.parametrize(("happens", "trials"), [(killed, 34), (sleeps, 17), (stops, 17), (raises, 32)])
def test_run_ends_with_its_cause_in_under_30_seconds(streets, tmp_path, happens, trials):
    """Catalogue C3: 100 runs with the default time limit, 17 at once, since most of it is waiting."""
    process = multiprocessing.get_context("fork").Process
    seconds = []
    running = []
    for trial in range(trials):
        config = replace(make_config(streets, tmp_path / str(trial)), num_workers=1 + trial % 3)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = process(target=_train_until_the_end, args=(config, happens, 1 + trial % 23, sender))
        child.start()
        running.append((child, receiver))
        if len(running) == 17 or trial == trials - 1:
            for child, receiver in running:
                message, taken = receiver.recv()
                child.join()
                seconds.append(taken)
                assert "_leftImg8bit.png" in message
            running = []
    assert len(seconds) == trials
    assert max(seconds) < 30
