"""Reading, working and writing at the same time, each item in its turn."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

ROOM = 4
"""How many items wait before and behind the work: enough to even out slow ones, few enough for frames of 8K."""

_LOOK_SECONDS = 0.1
_JOIN_SECONDS = 5.0  # a source may wait for a camera that sends nothing
_END = object()


def overlapped(
    source: Iterable[Item],
    work: Callable[[Item], Result],
    sink: Callable[[Result], None],
    release: Callable[[], None] = lambda: None,
) -> None:
    """`for item in source: sink(work(item))`, with the source and the sink in threads of their own.

    Order is kept, and at most `ROOM` items wait on either side, so memory does not grow with their number. When the
    source fails, what came before is still written; any other error, Ctrl-C among them, ends all three at once.

    Args:
        source: Runs in one thread.
        work: Runs in the caller's thread.
        sink: Runs in one thread.
        release: Called at the end, whatever it is, so that a source that waits for more gives up.

    Raises:
        BaseException: The first error of any.
    """
    read: queue.Queue[Any] = queue.Queue(ROOM)
    done: queue.Queue[Any] = queue.Queue(ROOM)
    stop = threading.Event()
    errors: list[BaseException] = []

    reading = threading.Thread(target=_fill, args=(read, source, stop, errors), daemon=True)
    writing = threading.Thread(target=_empty, args=(done, sink, stop, errors), daemon=True)
    threads = (reading, writing)
    for thread in threads:
        thread.start()
    try:
        for item in _items(read, stop):
            _put(done, work(item), stop)
        _put(done, _END, stop)
        writing.join()
    finally:
        stop.set()
        release()
        for thread in threads:
            thread.join(_JOIN_SECONDS)
    if errors:
        raise errors[0]


def _fill(where: queue.Queue[Any], source: Iterable[Any], stop: threading.Event, errors: list[BaseException]) -> None:
    """Put all of a source into a queue, and its end behind it, be it an error."""
    try:
        for item in source:
            if not _put(where, item, stop):
                return
    except BaseException as error:
        errors.append(error)
    _put(where, _END, stop)


def _empty(
    where: queue.Queue[Any], sink: Callable[[Any], None], stop: threading.Event, errors: list[BaseException]
) -> None:
    """Hand all that comes out of a queue on; an error stops everything."""
    try:
        for result in _items(where, stop):
            sink(result)
    except BaseException as error:
        errors.append(error)
        stop.set()


def _put(where: queue.Queue[Any], item: object, stop: threading.Event) -> bool:
    """Put an item as soon as there is room; whether that was before the stop."""
    while not stop.is_set():
        try:
            where.put(item, timeout=_LOOK_SECONDS)
        except queue.Full:
            continue
        return True
    return False


def _items(where: queue.Queue[Any], stop: threading.Event) -> Iterator[Any]:
    """What comes out of a queue, up to the end or the stop."""
    while not stop.is_set():
        try:
            item = where.get(timeout=_LOOK_SECONDS)
        except queue.Empty:
            continue
        if item is _END:
            return
        yield item
