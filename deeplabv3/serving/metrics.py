"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one service; each is named for what it counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "deeplabv3_requests", "Requests, by the status of their answers.", ["status"], registry=self._registry
        )
        self.stages = Histogram(
            "deeplabv3_stage_seconds",
            "Time of an image: upload, decode, wait, network, encode, send.",
            ["stage"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.batches = Histogram(
            "deeplabv3_batch_images", "Images that ran together.", buckets=(1, 2, 4, 8, 16), registry=self._registry
        )
        self.images = Gauge("deeplabv3_images_in_work", "Images that are admitted.", registry=self._registry)
        self.connections = Gauge("deeplabv3_connections", "Open connections.", registry=self._registry)
        self.decoders_replaced = Counter(
            "deeplabv3_decoders_replaced", "Decoders that died or were too slow.", registry=self._registry
        )

    @contextmanager
    def timed(self, stage: str, times: dict[str, float]) -> Iterator[None]:
        """Measure a stage, for the counters and for the request's own answer.

        Args:
            stage: Its name.
            times: Gets its seconds.
        """
        start = time.perf_counter()
        yield
        times[stage] = time.perf_counter() - start
        self.stages.labels(stage).observe(times[stage])

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
