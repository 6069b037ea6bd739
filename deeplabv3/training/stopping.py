"""SIGINT and SIGTERM end a run between two steps, with everything saved."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from deeplabv3.distributed import everyones, is_first, num_processes

_NOTE = b"\nstopping after this step and saving; press Ctrl-C again to stop without saving\n"


class Stopped(BaseException):
    """A run was told to stop and has saved what it had.

    Like KeyboardInterrupt it is no error, so no `except Exception` catches it.

    Attributes:
        number: The signal.
        exit_code: 130 after Ctrl-C (SIGINT), 143 after SIGTERM, as shells report them.
    """

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = number
        self.exit_code = 128 + number


class StopSignals:
    """Remembers a stop signal while in its `with` block; `check` raises it where stopping is safe.

    A second Ctrl-C ends the process at once, until saving begins. Outside the main thread, where Python has no signals,
    it does nothing.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._immediate = False
        self._saving = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        """Take over both signals."""
        if threading.current_thread() is threading.main_thread():
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
        if self._saving:
            return
        if self._immediate and num_processes() == 1:  # several have to leave validation in the same place
            self._number = number
            raise Stopped(number)
        if self._number == number == signal.SIGINT:
            raise KeyboardInterrupt
        self._number = number
        if number == signal.SIGINT and is_first():
            os.write(2, _NOTE)  # print is not safe here: it may be what was interrupted

    @property
    def number(self) -> int:
        """The signal that came to this process, or 0."""
        return self._number or 0

    def raise_if(self, number: int) -> None:
        """Stop here if a signal came to any process.

        Args:
            number: That signal, or 0.

        Raises:
            Stopped: One did.
        """
        if number:
            raise Stopped(number)

    def check(self) -> None:
        """Stop here if a signal came; all processes have to ask.

        Raises:
            Stopped: One did, to any of them.
        """
        self.raise_if(self.number_anywhere())

    def number_anywhere(self) -> int:
        """The signal that came to any process, or 0; all have to ask."""
        return int(max(number for (number,) in everyones([self.number])))

    def save_undisturbed(self) -> None:
        """From here on signals are not heard: the run is being saved, and ends then."""
        self._saving = True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """A stretch that changes nothing, so that a signal may end it anywhere."""
        self.check()
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False
