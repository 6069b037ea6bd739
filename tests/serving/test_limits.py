"""Limits that one request alone does not meet."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from deeplabv3.serving import outputs
from deeplabv3.serving.decoding import LENGTH
from tests.serving.conftest import Reply, picture, pixels_of, png
from tests.serving.processes import together
from tests.serving.test_hostile import head, wait_until

IMAGE = png(picture())


def test_bodies_together_have_a_limit(serve):
    with serve() as served:
        served.service.room.left = 1500
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head("Content-Length: 2000") + bytes(1000))
            wait_until(lambda: served.service.room.left == 500)
            reply = served.segment(bytes(1000))
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        wait_until(lambda: served.service.room.left == 1500)


def test_large_probabilities_are_refused(served, monkeypatch):
    monkeypatch.setattr("deeplabv3.serving.service.MAX_PROBABILITIES", 19 * 48 * 64 - 1)
    reply = served.segment(IMAGE, "?output=probabilities&classes=road")
    assert reply.status == 413
    assert reply.json["error"].startswith("probabilities are given of images of up to 3,071 pixels")
    assert outputs.MAX_PROBABILITIES * 4 < 2**29


def test_images_of_clients_that_leave_before_are_not_segmented(serve):
    with serve(num_decoders=1) as served:
        process = served.service.decoders._all[0]._process
        os.kill(process.pid, signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(head(f"Content-Length: {len(IMAGE)}") + IMAGE)
            wait_until(lambda: served.service._num_images == 1)
        wait_until(lambda: served.service._num_images == 0)
        os.kill(process.pid, signal.SIGCONT)
        assert served.segment(IMAGE).status == 200
        assert served.service.metrics.batches._sum.get() == 1
        assert served.service.metrics.requests.labels("499")._value.get() == 1


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="this system does not tell a process's limits")
def test_decoder_limits(serve):
    resource = importlib.import_module("resource")
    with serve() as served:
        assert served.segment(IMAGE).status == 200
        pid = served.service.decoders._all[0]._process.pid
        assert 0 < resource.prlimit(pid, resource.RLIMIT_AS)[0] < 1 << 30  # -1 is no limit
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (64, 64)
        assert 0 < resource.prlimit(pid, resource.RLIMIT_CPU)[0] < 30


def test_decoder_limits_what_code_in_it_could_do():
    """If a decoder of a format had a hole, what comes through it could start nothing and connect to nothing."""
    for deed in (
        "os.system('true')",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "open('stolen', 'w')",
    ):
        code = (
            "import os, deeplabv3.serving.decoding as decoding\n"
            f"def decode(*_, **__):\n    {deed}\n"
            "decoding.decode_image = decode\ndecoding.main(1000, 5)"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=LENGTH.pack(1) + b"x", capture_output=True, check=False)
        assert done.returncode == 86, (deed, done)
        assert not Path("stolen").exists()


def test_images_of_one_size_that_wait_run_together(serve, model):
    with serve(batch_size=3) as served:
        batches = served.service._batches
        ran: list[int] = []
        gate = threading.Event()
        run = batches._run

        def slow(images, probabilities):
            ran.append(len(images))
            gate.wait()
            return run(images, probabilities)

        batches._run = slow
        replies: list[tuple[int, Reply]] = []

        def client(number):
            replies.append((number, served.segment(png(picture(48, 64 if number < 5 else 70, seed=number)))))

        threads = [threading.Thread(target=client, args=(number,)) for number in range(7)]
        for thread in threads:
            thread.start()
            wait_until(lambda: ran)
        wait_until(lambda: len(batches._waiting) == 6)
        gate.set()
        for thread in threads:
            thread.join()
    assert (ran[0], sum(ran)) == (1, 7)
    assert max(ran) in (2, 3)
    assert len(ran) <= 4
    assert all(reply.status == 200 for _, reply in replies)
    for number, reply in replies:
        prediction = model.predict(picture(48, 64 if number < 5 else 70, seed=number))
        assert (pixels_of(reply.body) != prediction.label_ids).mean() < 0.001


def test_images_that_fit_alone_are_not_refused_together(serve):
    with serve(batch_size=8) as served:
        batches = served.service._batches
        run, ran = batches._run, []

        def short(images, probabilities):
            ran.append(len(images))
            if len(ran) == 1:
                wait_until(lambda: len(batches._waiting) == 2)
            if len(images) > 1:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return run(images, probabilities)

        batches._run = short
        statuses: list[int] = []
        together(3, lambda _: statuses.append(served.segment(IMAGE).status))
    assert statuses == [200, 200, 200]
    assert ran == [1, 2, 1, 1]


def test_error_of_the_network_is_told_without_internals(serve, caplog):
    with serve() as served:
        batches = served.service._batches
        batches._run = lambda *_: (_ for _ in ()).throw(RuntimeError("/secret/place"))
        reply = served.segment(IMAGE)
        assert (reply.status, reply.json) == (500, {"error": "the service failed at this; its log says why"})
        batches._run = lambda *_: (_ for _ in ()).throw(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        assert served.segment(IMAGE).status == 413
    assert "/secret/place" in caplog.text


def test_stop_sends_new_images_away_and_ends_those_that_wait(serve, monkeypatch):
    monkeypatch.setattr("deeplabv3.serving.server.STOP_SECONDS", 0.3)
    gate = threading.Event()
    replies: list[Reply] = []
    with serve() as served:
        run = served.service._batches._run
        served.service._batches._run = lambda *rest: (gate.wait(), run(*rest))[1]
        waiting = threading.Thread(target=lambda: replies.append(served.segment(IMAGE)))
        waiting.start()
        wait_until(lambda: served.service._batches.is_running)
        served.service.stop()
        assert served.ask("GET", "/health").status == 503
        assert served.segment(IMAGE).status == 503
        threading.Timer(3, gate.set).start()
    waiting.join()
    assert [reply.status for reply in replies] == [503]
