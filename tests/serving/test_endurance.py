"""Thousands of requests, hundreds of slow ones; figures are printed (pytest -s)."""

import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest

from deeplabv3.prediction.render import png_of
from tests.serving.conftest import form, heard, picture, png
from tests.serving.processes import SMALL, Usage, serving, together, try_segment
from tests.serving.test_hostile import HOST, INTERNAL, REQUESTS, closing, head, hostile_images

pytestmark = pytest.mark.slow

SIZES = ((48, 64), (50, 70), (64, 48), (33, 97), (80, 80))
CLIENTS = 50


def test_ten_thousand_mixed_requests(model, model_path):
    pictures = [picture(*size, seed=seed) for seed, size in enumerate(SIZES)]
    wanted = [(png(pixels), png_of(model.predict(pixels).label_ids)) for pixels in pictures]
    hostile = [(closing(text), status) for text, status in REQUESTS.values() if status != 200]
    for _, content, status in hostile_images():
        if status != 200:
            hostile.append((closing(head(f"Content-Length: {len(content)}")) + content, status))
    found: Counter[str] = Counter()
    with serving(model_path, *SMALL) as (child, served):
        before = Usage(child.pid).resident_bytes()
        peaks = [0]

        def client(number):
            rng = random.Random(number)
            for _ in range(10_000 // CLIENTS):
                if rng.random() < 0.6:
                    content, mask = rng.choice(wanted)
                    reply, kind, status = when_admitted(served, content, found), "valid", 200
                    if reply is not None and reply.status == 200 and reply.body != mask:
                        found["another mask"] += 1
                else:
                    text, status = rng.choice(hostile)
                    reply, kind = served.say(text), "hostile"
                    if reply is not None and reply.status == 503 and reply.headers["retry-after"] == "1":
                        status = 503  # as many images are admitted as there may be
                    if reply is not None and INTERNAL.search(reply.body):
                        found["internals told"] += 1
                if reply is None:
                    found[f"{kind}: no answer"] += 1
                else:
                    found[f"{kind}: {'right' if reply.status == status else f'{reply.status} for {status}'}"] += 1
            peaks.append(Usage(child.pid).resident_bytes())

        together(CLIENTS, client)
        assert child.poll() is None
        assert served.ask("GET", "/health").status == 200
    print(dict(found), f"memory {before / 1e6:.0f} MB, later at most {max(peaks) / 1e6:.0f} MB")
    del found["sent away and came again"]
    assert set(found) == {"valid: right", "hostile: right"}
    assert found.total() == 10_000


def test_largest_images_at_once_need_what_each_may(model, model_path):
    """Eight frames of 1024x2048 pixels: each holds its picture, its mask and its answer, and one is segmented."""
    pixels = 1 << 21
    content = png(np.full((1024, 2048, 3), 90, np.uint8))
    with serving(model_path, "--device", "cpu", "--max-pixels", str(pixels)) as (child, served):
        service = Usage(child.pid)
        assert served.segment(content).status == 200
        one = service.peak_bytes()
        replies = []
        together(8, lambda _: replies.append(served.segment(content)))
        eight, decoders = service.peak_bytes(), [decoder.peak_bytes() for decoder in service.children()]
    text = ", ".join(f"{decoder / 1e6:.0f}" for decoder in decoders)
    print(f"one at a time {one / 1e6:.0f} MB, eight {eight / 1e6:.0f} MB, decoders {text} MB")
    assert {reply.status for reply in replies} == {200}
    assert eight - one <= 7 * 8 * pixels + 32_000_000
    assert decoders
    assert max(decoders) <= 24 * pixels + 200_000_000


def when_admitted(served, content, found):
    """The answer to an image that comes again, rather soon, as long as there is too much to do."""
    while True:
        reply = try_segment(served, content)
        if reply is None or reply.status != 503:
            return reply
        assert reply.headers["retry-after"] == "1"
        found["sent away and came again"] += 1
        time.sleep(0.05)


def soak(model_path, number):
    """RSS in bytes after every hundred requests, and what else is held at the beginning and the end."""
    content = png(picture())
    body, kind = form(("image", "a.png", content), ("output", None, b"overlay"))
    sizes: list[int] = []
    with serving(model_path, *SMALL) as (child, served):
        usage = Usage(child.pid)

        def requests(count):
            def client(_):
                for turn in range(count // 4):
                    if turn % 3 == 0:
                        reply = served.segment(body, Content_Type=kind)
                    elif turn % 3 == 1:
                        reply = served.segment(content)
                    else:
                        reply = served.segment(content[:-20])
                    assert reply.status == (422 if turn % 3 == 2 else 200)

            together(4, client)

        requests(1000)
        held = usage.held()
        for _ in range(number // 100):
            requests(100)
            sizes.append(usage.resident_bytes())
        time.sleep(1)
        return sizes, held, usage.held()


def test_ten_thousand_requests_leave_nothing(model_path):
    sizes, before, after = soak(model_path, 10_000)
    slope, error = slope_of(sizes)
    print(f"memory grows by {slope / 1e6:.3f} +- {error / 1e6:.3f} MB a thousand requests; held {before} then {after}")
    assert after[0] <= before[0]
    assert (after[1:]) == (before[1:])
    assert slope - error <= 1e6
    assert slope <= 2e6


def slope_of(sizes):
    """Bytes a thousand requests and half the width of its 95 % interval, over the later half."""
    later = np.array(sizes[len(sizes) // 2 :], float)
    places = np.arange(len(later)) / 10
    (slope, _), covariance = np.polyfit(places, later, 1, cov=True)
    return slope, 1.96 * covariance[0, 0] ** 0.5


def seconds_of(served, content, count=60):
    times = []
    for _ in range(count):
        start = time.monotonic()
        assert served.segment(content).status == 200
        times.append(time.monotonic() - start)
    return statistics.quantiles(times, n=20)[-1]


def test_four_hundred_slow_clients(model_path):
    content = png(picture())
    starts = [b"POST /segment HTTP/1.1\r\n" + HOST + b"X: ", head("Content-Length: 1000")] * 200
    with serving(model_path, "--device", "cpu") as (_, served):
        seconds_of(served, content)
        alone = seconds_of(served, content)
        begin = time.monotonic()
        slow = [socket.create_connection(("127.0.0.1", served.port)) for _ in starts]
        for connection, text in zip(slow, starts, strict=True):
            connection.sendall(text)
        ends: list[float] = []
        statuses: Counter[int | None] = Counter()

        def trickle():
            still = list(slow)
            while still:
                time.sleep(0.5)
                for connection in list(still):
                    try:
                        connection.sendall(b"x")
                        connection.setblocking(False)
                        connection.recv(1, socket.MSG_PEEK)
                    except BlockingIOError:
                        connection.setblocking(True)
                        continue
                    except OSError:
                        pass
                    connection.setblocking(True)
                    ends.append(time.monotonic() - begin)
                    reply = heard(connection)
                    statuses[reply.status if reply else None] += 1
                    still.remove(connection)
                    connection.close()

        thread = threading.Thread(target=trickle)
        thread.start()
        time.sleep(1)
        beside = seconds_of(served, content)
        thread.join()
    print(f"p95 alone {1000 * alone:.0f} ms, beside 400 slow clients {1000 * beside:.0f} ms; they end after at most")
    print(f"{max(ends):.1f} s, at least {min(ends):.1f} s, answers {dict(statuses)}")
    assert len(ends) == 400
    assert max(ends) < 30 + 5
    assert beside <= 2 * alone


def at_rest(usage):
    """What is held once that has not changed for two seconds: a connection is gone a moment after its client."""
    seen = [usage.held()]
    while len(seen) < 20 or len(set(seen[-20:])) > 1:
        assert len(seen) < 600
        time.sleep(0.1)
        seen.append(usage.held())
    return seen[-1]


def test_five_hundred_disconnects(model_path):
    content = png(picture(80, 110))
    with serving(model_path, *SMALL) as (child, served):
        usage = Usage(child.pid)

        def client(number):
            for turn in range(25):
                with socket.create_connection(("127.0.0.1", served.port)) as connection:
                    text = head(f"Content-Length: {len(content)}") + content
                    connection.sendall(text[: -200 if turn % 2 else len(text)])
                    time.sleep(0.001 * ((7 * turn + number) % 40))
                    if turn % 5 == 0:  # a reset instead of an end
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

        together(20, lambda _: served.segment(content))
        held = at_rest(usage)
        together(20, client)
        after = at_rest(usage)
        metrics = served.ask("GET", "/metrics").body.decode()
    print(f"held {held} then {after}")
    assert after == held
    assert "deeplabv3_images_in_work 0.0" in metrics


def test_sixty_five_thousand_chunks_of_a_byte(model_path):
    with serving(model_path, "--device", "cpu") as (_, served):
        reply = served.say(
            head("Transfer-Encoding: chunked", "Connection: close") + b"1\r\nx\r\n" * 65_537 + b"0\r\n\r\n"
        )
        assert reply is not None
        assert reply.status == 415


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_service_connects_to_nothing(model_path, tmp_path):
    log = tmp_path / "calls"
    command = [sys.executable, "-m", "deeplabv3", "serve", str(model_path), "--port", "0"]
    traced = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(log), *command]
    child = subprocess.Popen(traced, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    port = int(child.stdout.readline().split("127.0.0.1:")[1].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        content = png(picture())
        connection.sendall(head("Connection: close", f"Content-Length: {len(content)}") + content)
        reply = heard(connection)
    for pid in Usage(child.pid).held()[2]:  # the service itself: strace would let it run on
        os.kill(int(pid), signal.SIGTERM)
    child.communicate()
    assert reply is not None
    assert reply.status == 200
    assert "connect(" not in log.read_text()
