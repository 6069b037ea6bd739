"""Processes that read: watched, and ended with a cause when one of them dies or stands still.

torch's loader raises what befalls a worker out of a signal handler, wherever the program happens to be: in the middle
of an update of the weights, for instance. Here it is found out where a batch is waited for, and nowhere else.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torch.utils.data._utils import signal_handling

from deeplabv3.cores import num_cores
from deeplabv3.errors import DatasetError, InputError

WORKER_TIMEOUT_SECONDS = 20.0
"""How long no worker may begin or finish anything while the program waits."""

_PREFETCHED = 8

_POLL_SECONDS = 1

_START_METHOD = "fork" if sys.platform == "linux" else None
"""Python's own choice elsewhere; on Linux it is a server from 3.14 on, and its children would be taken for orphans."""

_LAST_SECONDS = 3
"""How long the end of a process that was killed is waited for: one that waits for a dead disk does not end even so."""

Note = Callable[[int], None]
"""Called with the place of what is read next."""


class Readable(Protocol):
    """What can be read by keys, and says what it reads."""

    def read(self, key: Any, note: Note) -> object:
        """What belongs to a key; an `InputError` where something supplied cannot be used."""

    def name_of(self, place: int) -> str:
        """What a person calls what is in a place."""


class WatchedDataset(Dataset[object]):
    """A data set for torch's loader, whose readers leave a note of what they are reading.

    Args:
        source: What is read.
        num_workers: How many processes read it.
    """

    def __init__(self, source: Readable, num_workers: int) -> None:
        self.source = source
        self._notes = multiprocessing.RawArray("q", 2 * num_workers + 2)  # process and 1 + place, 0 if none is read

    def __getitem__(self, key: Any) -> object:
        """What belongs to a key, or why it cannot be had: raised here, that would come out wrapped in a traceback."""
        try:
            item = self.source.read(key, self._note)
        except InputError as error:
            item = error
        except OSError as error:
            item = InputError(f"{error.filename or 'a file'}: {error.strerror or error}")
        except MemoryError:
            name = self.being_read().get(os.getpid(), "a batch")  # its memory comes before its first image
            less = "fewer --num-workers" if get_worker_info() else "a smaller batch or crop, or end other programs"
            item = DatasetError(f"the memory ran out while {name} was read; give {less}")
        self._note(-1)
        return item

    def _note(self, place: int) -> None:
        info = get_worker_info()
        row = 0 if info is None else 2 * info.id
        self._notes[row], self._notes[row + 1] = os.getpid(), place + 1

    @property
    def notes(self) -> tuple[int, ...]:
        """All notes as they are, which change whenever a process begins or finishes something."""
        return tuple(self._notes)

    def being_read(self) -> dict[int, str]:
        """What each process is reading, or was when it ended, by the process."""
        pairs = zip(self._notes[::2], self._notes[1::2], strict=True)
        return {process: self.source.name_of(place - 1) for process, place in pairs if place}


def num_prefetched(num_workers: int) -> int:
    """How many items so many processes make ahead: enough for the slow ones among them, two a process at least."""
    return max(2, _PREFETCHED // num_workers) * num_workers if num_workers else 0


def read_by_workers(
    source: Readable,
    keys: Iterable[Any],
    num_workers: int,
    *,
    received: Callable[[Any], Any] | None = None,
    ahead: int = 0,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
) -> Generator[Any]:
    """What belongs to some keys, in their order, made ahead of time by other processes.

    Args:
        source: What is read.
        keys: What it is asked for; never more than `num_prefetched` ahead of what was taken.
        num_workers: How many processes read, from now on; with 0 this one does, and nothing is watched.
        received: What is made of each item as it comes; None leaves it as it is.
        ahead: How many items a thread receives ahead of time; with 0 each is received when it is asked for.
        timeout_seconds: How long no worker may begin or finish anything while the program waits.

    Raises:
        DatasetError: A process died, or none finished anything for too long; what was being read is named.
        InputError: The first that the source raises.
    """
    watched = WatchedDataset(source, num_workers)
    items, workers = _started(watched, keys, num_workers)
    stream = _received(items, watched, workers, received, timeout_seconds)
    return _taken_ahead(stream, workers, ahead) if workers and ahead else stream


def _started(watched: WatchedDataset, keys: Iterable[Any], num_workers: int) -> tuple[Iterator[Any], list[BaseProcess]]:
    """Torch's loader at work, and its processes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # as many as were asked for
        loader: DataLoader[Any] = DataLoader(
            watched,
            batch_size=None,
            sampler=keys,
            num_workers=num_workers,
            prefetch_factor=num_prefetched(num_workers) // num_workers if num_workers else None,
            collate_fn=_unchanged,
            worker_init_fn=_start_worker,
            timeout=_POLL_SECONDS if num_workers else 0,
            multiprocessing_context=_START_METHOD if num_workers else None,
            generator=torch.Generator(),  # else a seed would be drawn from the run's own random numbers
        )
        items = _unsignalled(loader)
    # Not multiprocessing.active_children(): it has those of other threads too, and none that has ended already.
    return items, list(items._workers) if num_workers else []  # type: ignore[attr-defined]


def _unsignalled(loader: DataLoader[Any]) -> Iterator[Any]:
    """A loader at work that has set no handler of SIGCHLD.

    Torch's would raise what befell a process wherever this one is, at its very start too. `_next` tells of it.
    """
    before = signal_handling._SIGCHLD_handler_set
    signal_handling._SIGCHLD_handler_set = True
    try:
        return iter(loader)
    finally:
        signal_handling._SIGCHLD_handler_set = before


def _unchanged(item: Any) -> Any:
    return item


def _received(
    items: Iterator[Any],
    watched: WatchedDataset,
    workers: Sequence[BaseProcess],
    received: Callable[[Any], Any] | None,
    timeout_seconds: float,
) -> Generator[Any]:
    """The loader's items; the processes end with it."""
    try:
        while True:
            item = _or_raised(_next(items, watched, workers, timeout_seconds) if workers else next(items))
            yield item if received is None else received(item)
    except StopIteration:
        return
    finally:
        _end(workers)
        if workers:
            # One that was killed may have died with the lock of the event that tells all of the end, and the loader,
            # which sets it when it is freed, would wait for that lock for ever. Nobody is left to be told.
            items._workers_done_event = threading.Event()  # type: ignore[attr-defined]


def _taken_ahead(stream: Generator[Any], workers: Sequence[BaseProcess], ahead: int) -> Generator[Any]:
    """The items of a stream, received by a thread, so that the program does not wait while they are copied."""
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    is_over = threading.Event()

    def put(kind: str, value: Any) -> None:
        while not is_over.is_set():
            with suppress(queue.Full):
                ready.put((kind, value), timeout=_POLL_SECONDS)
                return

    def receive() -> None:
        try:
            for item in stream:
                put("item", item)
                if is_over.is_set():
                    return
            put("end", None)
        except BaseException as error:  # is raised where the items are taken
            put("error", error)

    thread = threading.Thread(target=receive, name="receiver", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value
    finally:
        is_over.set()
        _end(workers)  # a thread that waits for them gives up
        thread.join()
        stream.close()


def _or_raised(item: Any) -> Any:
    if isinstance(item, InputError):
        raise item
    return item


def _next(items: Iterator[Any], watched: WatchedDataset, workers: Sequence[BaseProcess], timeout_seconds: float) -> Any:
    """The loader's next item, or why there is none."""
    is_here, is_silent = threading.Event(), threading.Event()

    def watch() -> None:
        waited, before = 0.0, watched.notes  # counted, for the clock goes on while all is suspended (Ctrl-Z)
        while waited < timeout_seconds:
            if is_here.wait(min(_POLL_SECONDS, timeout_seconds - waited)):
                return
            waited, before = waited + _POLL_SECONDS if watched.notes == before else 0.0, watched.notes
        is_silent.set()
        _end(workers)

    # Not the loader's own limit: it does not hold where a batch is fetched from a process that stands still.
    limit = threading.Thread(target=watch, name="limit", daemon=True)
    limit.start()
    try:
        while True:
            try:
                return next(items)
            except (RuntimeError, OSError, EOFError) as error:
                reading = watched.being_read()
                if is_silent.is_set():
                    raise DatasetError(_silence(timeout_seconds, sorted(reading.values()))) from None
                if str(error).startswith("DataLoader timed out"):
                    continue  # it has looked whether all processes live
                dead = [process for process in workers if process.exitcode is not None]
                if dead:
                    raise DatasetError(_death(dead[0].exitcode or 0, reading.get(dead[0].pid or 0))) from None
                raise
    finally:
        is_here.set()
        if is_silent.is_set():
            limit.join()  # of two that wait for the end of a process, only one is told of it


def _end(workers: Sequence[BaseProcess]) -> None:
    for process in workers:
        process.kill()  # one that stands still does not heed anything else
    for process in workers:
        process.join(_LAST_SECONDS)


def _death(code: int, name: str | None) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    step = "look at that file" if name else "see what the system says"
    if code == -signal.SIGKILL:
        step = "where the memory was short, give fewer --num-workers"
    return f"a process that reads images {how}" + (f" while it read {name}" if name else "") + f"; {step}"


def _silence(timeout_seconds: float, names: Sequence[str]) -> str:
    reading = f"they were reading {', '.join(names)}" if names else "they had not begun"
    return (
        f"the processes that read images gave nothing for {timeout_seconds:g} s; {reading}: look at the disk and at "
        "these files, or give --num-workers 0"
    )


def _start_worker(worker: int) -> None:
    """A worker leaves Ctrl-C to the process that trains, which ends it when it is done; torch gives it one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_its_parent, name="parent", daemon=True).start()


def _end_with_its_parent() -> None:
    """End a worker whose program was killed, whatever it does.

    Torch's own look at that comes between two items alone, and not at all where the program ended before the first.
    """
    parent = multiprocessing.parent_process()
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def default_num_workers(device_type: str) -> int:
    """Readers that pay: none beside a CPU that computes, up to 8 beside an accelerator."""
    return 0 if device_type == "cpu" else min(8, num_cores())
