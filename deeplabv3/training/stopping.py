"""SIGINT and SIGTERM end a run between two steps, with everything saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Stopped(BaseException):
    """A run was told to stop and has saved what it had.

    Like KeyboardInterrupt it is no error, so no `except Exception` catches it.

    Attributes:
        exit_code: 130 after Ctrl-C (SIGINT), 143 after SIGTERM, as shells report them.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignals:
    """Remembers a stop signal while in its `with` block; `check` raises it where stopping is safe."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._immediate = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        """Take over both signals."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give both back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        if self._immediate:
            raise Stopped(number)

    def check(self) -> None:
        """Stop here if a signal came.

        Raises:
            Stopped: One did.
        """
        if self._number is not None:
            raise Stopped(self._number)

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """A stretch that changes nothing, so that a signal may end it anywhere."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False
