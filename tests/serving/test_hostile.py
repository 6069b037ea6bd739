"""What no honest client sends, sends so slowly or breaks off: the right answer, in time, and nothing left behind."""

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from PIL import PngImagePlugin

from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.serving.connections import SLACK_BYTES
from deeplabv3.serving.decoders import Decoder
from deeplabv3.serving.guards import HEADERS, MOST_HEADER_BYTES
from tests.data.pictures import exif
from tests.serving.conftest import Reply, form, heard, picture, pixels_of, png

IMAGE = png(picture())
INTERNAL = re.compile(
    rb"/[a-z]+/|\.py|Traceback|object at|0x[0-9a-f]{6}|uvicorn|starlette|pydantic|deeplabv3\.", re.IGNORECASE
)
HOST = b"Host: localhost\r\n"


def head(*lines: str) -> bytes:
    return b"POST /segment HTTP/1.1\r\n" + HOST + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


def upload(*parts, more="", **options):
    body, kind = form(*parts, **options)
    return head(f"Content-Type: {kind}{more}", f"Content-Length: {len(body)}") + body


FILE = ("image", "street.png", IMAGE)
REQUESTS = {
    "body of nothing": (head("Content-Length: 0"), 422),
    "no length at all": (head(), 422),
    "length below the body": (head(f"Content-Length: {len(IMAGE) - 9}") + IMAGE, 422),
    "length above the limit": (head("Content-Length: 200001"), 413),
    "length of gigabytes": (head("Content-Length: 9999999999"), 413),
    "length that is no number": (head("Content-Length: ten"), 400),
    "negative length": (head("Content-Length: -5"), 400),
    "two lengths": (head("Content-Length: 5", "Content-Length: 6"), 400),
    "unknown transfer": (head("Transfer-Encoding: gzip"), 501),
    "chunks of one byte": (head("Transfer-Encoding: chunked") + chunked(*[b"x"] * 40_000), 415),
    "image in chunks": (head("Transfer-Encoding: chunked") + chunked(IMAGE[:50], IMAGE[50:]), 200),
    "chunks above the limit": (head("Transfer-Encoding: chunked") + chunked(*[b"x" * 4096] * 50), 413),
    "chunk of no size": (head("Transfer-Encoding: chunked") + b"zz\r\nxx\r\n", 400),
    "compressed": (head("Content-Encoding: gzip", f"Content-Length: {len(IMAGE)}") + IMAGE, 415),
    "JSON": (head("Content-Type: application/json", "Content-Length: 2") + b"{}", 415),
    "a thousand parts": (upload(*[("a", None, b"b")] * 1000), 400),
    "two files": (upload(FILE, FILE), 400),
    "six fields": (upload(*[("output", None, b"color")] * 6, FILE), 400),
    "five fields": (upload(*[("output", None, b"color")] * 5, FILE), 200),
    "long field": (upload(("output", None, b"x" * 5000), FILE), 400),
    "long file name": (upload(("image", "a" * 256, IMAGE)), 400),
    "file name of 9,000 letters": (upload(("image", "a" * 9000, IMAGE)), 400),
    "file name that is a path": (upload(("image", "../../etc/passwd", IMAGE)), 200),
    "form without a file": (upload(("output", None, b"color")), 422),
    "form with an empty file": (upload(("image", "a.png", b"")), 422),
    "form in no charset": (upload(FILE, more="; charset=undefined"), 400),
    "form in an unknown charset": (upload(FILE, more="; charset=nothing"), 200),
    "form without its line": (head("Content-Type: multipart/form-data", "Content-Length: 2") + b"ab", 400),
    "form with other lines": (head("Content-Type: multipart/form-data; boundary=x", "Content-Length: 2") + b"ab", 400),
    "large headers": (head("X: " + "a" * 2 * MOST_HEADER_BYTES), 431),
    "endless address": (b"GET /" + b"a" * 3 * MOST_HEADER_BYTES, 431),
    "flood of ranges": (head("Range: bytes=" + ",".join(["0-"] * 1300), f"Content-Length: {len(IMAGE)}") + IMAGE, 200),
    "origin that is none": (b"GET /health HTTP/1.1\r\nOrigin: http://[\r\n" + HOST + b"\r\n", 403),
    "own origin": (b"GET /health HTTP/1.1\r\nOrigin: HTTP://localhost\r\n" + HOST + b"\r\n", 200),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "no host, old": (b"GET /health HTTP/1.0\r\n\r\n", 421),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
    "another method": (b"DELETE /segment HTTP/1.1\r\n" + HOST + b"\r\n", 405),
    "a path": (b"GET /page/../../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "an escaped path": (b"GET /%2e%2e%2fserver.py HTTP/1.1\r\n" + HOST + b"\r\n", 404),
    "a websocket": (b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST + b"\r\n", 200),
}


def closing(text: bytes) -> bytes:
    """The same, on a connection that is closed behind it, so that the answer ends."""
    return text.replace(HOST, HOST + b"Connection: close\r\n", 1)


@pytest.mark.parametrize("name", REQUESTS)
def test_malformed_request(served, name):
    text, status = REQUESTS[name]
    reply = served.say(closing(text))
    assert reply is not None
    assert reply.status == status, reply
    assert {name.lower() for name in HEADERS} <= reply.headers.keys()
    if status != 200:
        assert list(reply.json) == ["error"]
        assert not INTERNAL.search(reply.body), reply.body


def test_body_is_read_to_a_limit(served):
    """A client that does not stop sending is cut off."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        sent, limit = 0, served.service.config.max_body_bytes + SLACK_BYTES
        try:
            while sent < 100 * limit:
                connection.sendall(chunked(bytes(8192))[:-5])
                sent += 8192
        except OSError:
            pass
    assert sent < 40 * limit  # what the buffers of the system take comes on top


def hostile_images():
    image = picture()
    yield "cut off", IMAGE[:-20], 422
    yield "a changed byte", IMAGE[:60] + bytes([IMAGE[60] ^ 1]) + IMAGE[61:], 422
    yield "too many pixels", png(picture(101, 100)), 413
    yield "text", b"#!/bin/sh\necho " * 9, 415
    yield "a program of PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415
    yield "markup", b"<svg onload=alert(1)>", 415
    yield "one pixel", png(image[:1, :1]), 200
    yield "a line", png(picture(1, 5000)), 200


@pytest.mark.parametrize(("name", "content", "status"), list(hostile_images()), ids=lambda value: str(value)[:24])
def test_hostile_image(served, name, content, status):
    reply = served.segment(content)
    assert reply.status == status, reply.body
    assert not INTERNAL.search(reply.body) or reply.status == 200


def test_mask_carries_nothing_of_the_input(served):
    secret = b"<script>alert(1)</script>"
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", secret.decode())
    text.add_itxt("XML:com.adobe.xmp", secret.decode())
    content = png(picture(), pnginfo=text, exif=exif(6), icc_profile=secret)
    assert secret in content
    for output in ("label_ids", "color", "overlay"):
        body = served.segment(content, f"?output={output}").body
        assert set(re.findall(rb"(IHDR|IDAT|IEND|tEXt|zTXt|iTXt|eXIf|iCCP|tIME)", body)) == {b"IHDR", b"IDAT", b"IEND"}
        assert secret not in body


def trickle(port: int, start: bytes, pause: float, stop: threading.Event) -> tuple[Reply | None, float]:
    """Send a byte now and then until the service has had enough; its answer, and the seconds that took."""
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(start)
        connection.settimeout(pause)
        while not stop.is_set():
            try:
                if connection.recv(1, socket.MSG_PEEK) or True:
                    break
            except TimeoutError:
                try:
                    connection.sendall(b"x")
                except OSError:
                    break
            except OSError:
                break
        connection.settimeout(60)
        return heard(connection), time.monotonic() - begin


TRICKLING = {"idle_seconds": 30, "request_seconds": 0.6}, 0.05, "the request was not here after 0.6 s"
SILENT = {"idle_seconds": 0.3, "request_seconds": 60}, 60, "nothing came for 0.3 s"


@pytest.mark.parametrize(
    ("start", "limits", "pause", "message"),
    [
        (b"POST /segment HTTP/1.1\r\n" + HOST + b"X: ", *TRICKLING),
        (head("Content-Length: 1000"), *TRICKLING),
        (b"POST /segment HTTP/1.1\r\n" + HOST, *SILENT),
        (head("Content-Length: 1000"), *SILENT),
        (b"", *SILENT),
    ],
)
def test_slow_client_is_cut_off(serve, start, limits, pause, message):
    with serve(**limits) as served:
        reply, _ = trickle(served.port, start, pause, threading.Event())
        time.sleep(0.1)
        assert answers(served) == {"408": 1}  # what the application says of a client that is gone is no answer
    assert reply is not None
    assert (reply.status, reply.headers["connection"]) == (408, "close")
    assert {name.lower() for name in HEADERS} <= reply.headers.keys()
    assert reply.json["error"].startswith(message)


def answers(served):
    """How many of each status were counted."""
    (family,) = served.service.metrics.requests.collect()
    return {row.labels["status"]: row.value for row in family.samples if row.name.endswith("_total")}


def test_client_that_takes_nothing_is_cut_off(serve):
    with serve(idle_seconds=0.3, max_pixels=10**6, max_body_bytes=10**6) as served:
        content = png(picture(600, 600))
        query = "/segment?output=probabilities&classes=" + ",".join(CITYSCAPES.names).replace(" ", "%20")
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head(f"Content-Length: {len(content)}").replace(b"/segment", query.encode()))
            connection.sendall(content)
            wait_until(lambda: served.service.is_at_work)
            connections = served.service.metrics.connections._value
            assert connections.get() == 1
            wait_until(lambda: connections.get() == 0)


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_too_many_connections_are_told_to_come_back(serve):
    with serve(max_connections=3) as served:
        idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(3)]
        reply = served.ask("GET", "/health")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert answers(served) == {"503": 1}
        idle.pop().close()
        wait_until(lambda: served.ask("GET", "/health").status == 200)
        for connection in idle:
            connection.close()


def test_too_many_images_are_told_to_come_back(serve):
    with serve(queue_size=2, num_decoders=1) as served:
        decoder = served.service.decoders._all[0]._process
        os.kill(decoder.pid, signal.SIGSTOP)  # so that images pile up
        waiting = [threading.Thread(target=lambda: replies.append(served.segment(IMAGE))) for _ in range(2)]
        replies: list[Reply] = []
        for thread in waiting:
            thread.start()
        wait_until(lambda: served.service._num_images == 2)
        reply = served.segment(IMAGE)
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json["error"].startswith("2 images are in work")
        os.kill(decoder.pid, signal.SIGCONT)
        for thread in waiting:
            thread.join()
        assert [reply.status for reply in replies] == [200, 200]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_crash_of_a_decoder_costs_one_image(serve, model, number):
    with serve() as served:
        process = served.service.decoders._all[0]._process
        os.kill(process.pid, signal.SIGSTOP)
        replies: list[Reply] = []
        hit = threading.Thread(target=lambda: replies.append(served.segment(IMAGE)))
        hit.start()
        wait_until(lambda: served.service._num_images == 1)
        other = threading.Thread(target=lambda: replies.append(served.segment(IMAGE)))
        other.start()
        wait_until(lambda: served.service._num_images == 2)
        os.kill(process.pid, number)
        os.kill(process.pid, signal.SIGCONT)
        hit.join()
        other.join()
        assert sorted(reply.status for reply in replies) == [200, 422]
        assert served.service.metrics.decoders_replaced._value.get() == 1
        assert (pixels_of(served.segment(IMAGE).body) == model.predict(picture()).label_ids).all()


def test_hang_of_a_decoder_costs_one_image(serve, monkeypatch):
    monkeypatch.setattr("deeplabv3.serving.decoders.WALL_SECONDS", 0.3)
    with serve() as served:
        os.kill(served.service.decoders._all[0]._process.pid, signal.SIGSTOP)
        reply = served.segment(IMAGE)
        assert reply.status == 422
        assert "took too much time or memory" in reply.json["error"]
        monkeypatch.setattr("deeplabv3.serving.decoders.WALL_SECONDS", 60)
        assert served.segment(IMAGE).status == 200


def test_interrupt_of_a_terminal_is_left_to_the_service(serve):
    """It goes to all processes at once."""
    with serve() as served:
        assert served.segment(IMAGE).status == 200
        os.kill(served.service.decoders._all[0]._process.pid, signal.SIGINT)
        assert served.segment(IMAGE).status == 200
        assert served.service.metrics.decoders_replaced._value.get() == 0


def test_short_memory_behind_a_decoder_costs_one_image(serve, model, monkeypatch):
    """Its pixels are still on their way then, and are not those of the next."""
    really, sizes = Decoder._read, []

    def read(decoder, num_bytes):
        sizes.append(num_bytes)
        if len(sizes) == 2:
            raise MemoryError
        return really(decoder, num_bytes)

    monkeypatch.setattr(Decoder, "_read", read)
    with serve() as served:
        assert served.segment(png(picture(seed=1))).status == 413
        assert (pixels_of(served.segment(IMAGE).body) == model.predict(picture()).label_ids).all()
        assert served.service.metrics.decoders_replaced._value.get() == 1


def test_request_that_was_refused_early_costs_the_next_nothing(serve):
    """Both are within the limit, together they are not; they come over one connection, the second in parts."""
    token, size = "a" * 32, 150_000
    first = head(f"Content-Length: {size}") + bytes(size)
    second = head(f"Authorization: Bearer {token}", f"Content-Length: {size}") + bytes(size)
    with serve(token) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
            connection.sendall(first)
            assert heard(connection).status == 401
            connection.sendall(second[:100])
            time.sleep(0.2)
            connection.sendall(second[100:])
            assert heard(connection).status == 422


def test_decoder_that_died_unseen_costs_nothing(serve):
    with serve() as served:
        process = served.service.decoders._all[0]._process
        process.kill()
        process.wait()
        assert served.segment(IMAGE).status == 200


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_clients_that_leave_leave_nothing(served):
    served.segment(IMAGE)
    before = handles(), threading.active_count()
    for number in range(30):
        connection = socket.create_connection(("127.0.0.1", served.port))
        connection.sendall(head(f"Content-Length: {len(IMAGE)}") + IMAGE[: -(number % 2) * 50 or None])
        connection.close()
    wait_until(lambda: not served.service.is_at_work and handles() <= before[0])  # one may have closed since
    assert threading.active_count() <= before[1] + 1  # there are two encoders, and the second may not have begun before
    wait_until(lambda: served.service.room.left == 16 * served.service.config.max_body_bytes)
    assert served.segment(IMAGE).status == 200
