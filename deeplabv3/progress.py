"""Progress for people: a live bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from deeplabv3.distributed import is_first

if TYPE_CHECKING:
    from rich import progress as bar

Item = TypeVar("Item")

LINE_INTERVAL_SECONDS = 30.0
"""Least time between two plain lines where there is no terminal."""


class Progress:
    """Counts up to `total` on standard error; use it in a `with` statement. Of several processes, the first shows it.

    Args:
        description: What is being done, as in "training".
        total: How many steps there are; None if nobody knows.
        done: How many of them were done before.
    """

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        self.description, self.total, self.done = description, total, done
        self._first, self._start, self._last_line = done, time.monotonic(), time.monotonic()
        self._bar = _live_bar() if sys.stderr.isatty() and is_first() else None
        self._task = self._bar.add_task(description, total=total, completed=done, note="") if self._bar else None

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        if self._bar:
            self._bar.stop()

    def skip(self, count: int) -> None:
        """Count what was done before, which tells nothing of the time that is left."""
        self.done += count
        self._first += count
        if self._bar and self._task is not None:
            self._bar.reset(self._task, completed=self.done, total=self.total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count on, and show `note` behind the count."""
        self.done += count
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if is_first() and now - self._last_line >= LINE_INTERVAL_SECONDS:
            self._last_line = now
            line = f"{self.description}: {self.done}"
            if self.total is not None:
                left = (now - self._start) / max(1, self.done - self._first) * (self.total - self.done)
                line += f" of {self.total}, {left:.0f} s left"
            print(f"{line}, {note}" if note else line, file=sys.stderr, flush=True)


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Yield the items and show how far it is."""
    with Progress(description, len(items)) as progress:
        for item in items:
            yield item
            progress.advance()


def _live_bar() -> bar.Progress:
    from rich import progress as bar  # only where there is a terminal
    from rich.console import Console

    return bar.Progress(
        bar.TextColumn("{task.description}"),
        bar.BarColumn(bar_width=12),
        bar.MofNCompleteColumn(),
        bar.TextColumn("{task.fields[note]}", markup=False),
        bar.TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
    )
