"""The queue before the network: images of one size that wait run together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from deeplabv3.data.images import Pixels
from deeplabv3.errors import DatasetError, is_out_of_memory
from deeplabv3.serving.metrics import Metrics
from deeplabv3.serving.refusals import Refusal, busy, short_of_memory

Run = Callable[[Sequence[Pixels], bool], Sequence[Any]]


@dataclass(eq=False)
class Job:
    """An image that waits.

    Attributes:
        image: RGB, uint8, `(H, W, 3)`.
        probabilities: Whether they are wanted.
        result: What the network makes of it.
        since: When it came.
    """

    image: Pixels
    probabilities: bool
    result: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Jobs of one kind can run together."""
        return (self.image.shape, self.probabilities)


class Batches:
    """One thread that runs the network, and what waits for it.

    Args:
        run: Takes images of one size, RGB uint8 `(H, W, 3)` each, and whether probabilities are wanted; returns a
            result for each.
        batch_size: The most that it takes.
        metrics: Count batches and times.
    """

    def __init__(self, run: Run, batch_size: int, metrics: Metrics) -> None:
        self._run, self._batch_size, self._metrics = run, batch_size, metrics
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._thread = ThreadPoolExecutor(1, "network")
        self._came = asyncio.Event()
        self._loop = asyncio.ensure_future(self._work())

    async def segment(self, image: Pixels, *, probabilities: bool, times: dict[str, float]) -> Any:
        """Wait for a turn and return what the network makes of an image.

        Args:
            image: RGB, uint8, `(H, W, 3)`.
            probabilities: Whether they are wanted.
            times: Gets the seconds of waiting and of the network.

        Raises:
            Refusal: The network cannot take it, there is too little memory, or the service stops.
        """
        job = Job(image, probabilities, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._came.set()
        result, times["wait"], times["network"] = await job.result
        return result

    @property
    def is_running(self) -> bool:
        """Whether the network is at work."""
        return bool(self._running)

    def give_up(self) -> None:
        """Send all away that wait or run."""
        for job in (*self._waiting, *self._running):
            _fail(job, busy("the service is stopping"))

    def end(self) -> None:
        """Take no more; what runs cannot be stopped and is left to itself."""
        self.give_up()
        self._loop.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            self._came.clear()
            while self._waiting:
                self._running = self._next()
                if self._running:
                    await self._finish(self._running)
                self._running = []
            await self._came.wait()

    def _next(self) -> list[Job]:
        """The job that has waited longest and others of its kind; clients that have left are left out."""
        waiting = [job for job in self._waiting if not job.result.done()]
        jobs = [job for job in waiting if job.kind == waiting[0].kind][: self._batch_size]
        self._waiting = deque(job for job in waiting if job not in jobs)
        return jobs

    async def _finish(self, jobs: list[Job]) -> None:
        start = time.perf_counter()
        images = [job.image for job in jobs]
        loop = asyncio.get_running_loop()
        is_too_much = False
        try:
            results = await loop.run_in_executor(self._thread, self._run, images, jobs[0].probabilities)
        except Exception as error:
            is_too_much = is_out_of_memory(error) and len(jobs) > 1
            for job in () if is_too_much else jobs:
                _fail(job, _told(error, job.image))
            if not is_too_much:
                return
        if is_too_much:  # there may be enough for each alone, now that the error does not hold any more what it took
            for job in jobs:
                if not job.result.done():
                    await self._finish([job])
            return
        seconds = time.perf_counter() - start
        self._metrics.batches.observe(len(jobs))
        self._metrics.stages.labels("network").observe(seconds)
        for job, result in zip(jobs, results, strict=True):
            self._metrics.stages.labels("wait").observe(start - job.since)
            if not job.result.done():
                job.result.set_result((result, start - job.since, seconds))


def _fail(job: Job, error: Exception) -> None:
    if not job.result.done():
        job.result.set_exception(error)


def _told(error: Exception, image: Pixels) -> Exception:
    """What a client is told of an error of the network; the error's own words may name a file of this machine."""
    if isinstance(error, DatasetError):
        height, width = image.shape[:2]
        return Refusal(422, f"{height}x{width} pixels are too few for this service's model; give a larger image")
    if is_out_of_memory(error):
        return short_of_memory()
    return error
