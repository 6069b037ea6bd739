"""How fast a run is, and how much of its time it waits for data."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta

from deeplabv3.distributed import num_processes
from deeplabv3.training.step import StepBatch


class Stopwatch:
    """How long an epoch, or the rest of it, takes, and how much of that the loop waits for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.seconds = 0.0
        self.waiting_seconds = 0.0
        self.num_images = 0
        self.num_steps = 0

    def timed(self, batches: Iterable[StepBatch]) -> Iterator[StepBatch]:
        """The same batches; the watch stands still once they are used up."""
        asked = self._start
        for batch in batches:
            self.waiting_seconds += time.perf_counter() - asked
            self.num_images += num_processes() * sum(len(part.names) for part in batch.parts)
            self.num_steps += 1
            yield batch
            asked = time.perf_counter()
        self.seconds = asked - self._start

    def time_left(self, num_steps: int) -> str:
        """How long so many steps more will take, as hours:minutes:seconds; validations are not counted."""
        seconds = (time.perf_counter() - self._start) / self.num_steps * num_steps
        return str(timedelta(seconds=round(seconds)))

    @property
    def images_per_second(self) -> float:
        """Speed since the start, to the end if it is over."""
        return self.num_images / self._elapsed

    @property
    def waiting_share(self) -> float:
        """Share of the time, 0..1, in which the loop waited for data."""
        return self.waiting_seconds / self._elapsed

    @property
    def _elapsed(self) -> float:
        return self.seconds or time.perf_counter() - self._start

    def summary(self) -> str:
        """Both for people."""
        return f"{self.images_per_second:.1f} images/s, {self.waiting_share:.0%} waiting"
