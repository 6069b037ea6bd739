import torch

from deeplabv3.data.batches import Batch
from deeplabv3.training.stopwatch import Stopwatch
from tests.training.conftest import undivided


def test_watch_measures_waiting_and_stands_still_at_the_end(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
    batch = Batch(torch.zeros(2, 3, 1, 1), torch.zeros(2, 1, 1), ("a", "b"))
    watch = Stopwatch()  # at 0; each look at the clock takes a second
    for _ in watch.timed([undivided(batch)] * 2):  # there at 1 and 3, asked for again at 2 and 4
        pass
    assert (watch.num_images, watch.waiting_seconds, watch.seconds) == (4, 2.0, 4.0)
    assert watch.time_left(30) == "0:01:15"  # 5 seconds for 2 steps, and what asking costs
    assert (watch.images_per_second, watch.waiting_share) == (1.0, 0.5)
