"""SIGTERM while images are in work."""

import signal
import threading
import time
from pathlib import Path

import pytest

from tests.serving.conftest import picture, png
from tests.serving.processes import SMALL, Usage, serving, together, try_segment

IMAGE = png(picture())
SECONDS = 10


def stop_under_load(model_path, number=signal.SIGTERM):
    """Send a signal among requests of six clients; the seconds to the end, after all else is checked."""
    told = threading.Event()
    with serving(model_path, *SMALL) as (child, served):
        children = Usage(child.pid).held()[2]
        statuses, lost = [], []

        def client(_):
            while True:
                was_told = told.is_set()
                reply = try_segment(served, IMAGE)
                if reply is None:
                    lost.append(was_told)
                    return
                statuses.append(reply.status)

        clients = threading.Thread(target=together, args=(6, client))
        clients.start()
        while len(statuses) < 12:
            time.sleep(0.01)
        told.set()  # whoever asks from here on may find nobody
        start = time.monotonic()
        child.send_signal(number)
        _, errors = child.communicate(timeout=60)
        seconds = time.monotonic() - start
        clients.join()
    assert child.returncode == 0
    assert errors == ""
    assert set(statuses) <= {200, 503}
    assert all(not exists(int(pid)) for pid in children)
    return seconds, lost.count(False)


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_stop_among_requests(model_path):
    seconds, lost = stop_under_load(model_path)
    assert lost == 0
    assert seconds < SECONDS


@pytest.mark.slow
def test_twenty_stops(model_path):
    found = [stop_under_load(model_path, number) for number in (signal.SIGTERM, signal.SIGINT) * 10]
    print("seconds:", sorted(round(seconds, 2) for seconds, _ in found), "lost:", sum(lost for _, lost in found))
    assert max(seconds for seconds, _ in found) < SECONDS
    assert sum(lost for _, lost in found) == 0
