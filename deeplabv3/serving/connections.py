"""A connection below HTTP: what it may take of time, bytes and places, which uvicorn leaves open."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from deeplabv3.serving.guards import HEADERS, HEADERS_TOO_LARGE, answer, error_body
from deeplabv3.serving.refusals import RETRY_SECONDS, busy
from deeplabv3.serving.service import Service

SLACK_BYTES = 2**16
"""A body that was refused is read on so far beyond the limit, since a client reads its answer only after sending."""

SURPLUS = 64
"""Connections beyond the limit that are told so; more are cut off without a word."""

ANSWER_SECONDS = 120

_GUARDED = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())  # what is answered here passes no guard


class Connection(H11Protocol):
    """A connection that has to get on.

    A request must come within `request_seconds` and without a pause of `idle_seconds`; an answer must be taken within
    `ANSWER_SECONDS` and without such a pause.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the clock; a connection too many gets another application."""
        super().connection_made(transport)
        self._service: Service = self.app_state["service"]
        self._config = self._service.config
        now = self.loop.time()
        self._heard = self._taken = self._answering = now
        self._began: float | None = now
        self._num_bytes = self._unsent = 0
        self._tick = min(1, self._config.idle_seconds / 4)
        self._timer = self.loop.call_later(self._tick, self._look)
        self._service.metrics.connections.set(len(self.connections))
        if len(self.connections) > self._config.max_connections + SURPLUS:
            transport.abort()
        elif len(self.connections) > self._config.max_connections:
            self.app = _too_many

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._timer.cancel()
        super().connection_lost(exc)
        self._service.metrics.connections.set(len(self.connections))

    def data_received(self, data: bytes) -> None:
        """Count, and read on."""
        self._heard = self.loop.time()
        if self._began is None:
            self._began, self._num_bytes = self._heard, 0
        self._num_bytes += len(data)
        if self._num_bytes > self._config.max_body_bytes + SLACK_BYTES:
            self.refuse(413, f"the request is too large; at most {self._config.max_body_bytes:,} bytes are read")
        else:
            cycle, was_answered = self.cycle, self.conn.our_state is h11.DONE
            super().data_received(data)
            if (
                was_answered and self.conn.our_state is not h11.DONE
            ):  # the rest of a request that was refused early came
                has_next = self.cycle is not cycle or bool(self.conn.trailing_data[0])
                self._began, self._num_bytes = (self._heard if has_next else None), 0

    def on_response_complete(self) -> None:
        """Expect the next request, unless the last one is still on its way."""
        if self.cycle is not None and not self.cycle.more_body:
            waiting = len(self.conn.trailing_data[0])
            self._began, self._num_bytes = (self.loop.time() if waiting else None), waiting
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP; the error that is being handled knows the status."""
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        self.refuse(status, {431: HEADERS_TOO_LARGE}.get(status, "the request is not HTTP as it should be; see /docs"))

    def refuse(self, status: int, text: str) -> None:
        """Answer a request that has not come as a whole, and close the connection."""
        cycle = self.cycle
        if cycle is not None and cycle.response_started and (cycle.more_body or not cycle.response_complete):
            self.transport.abort()  # there is an answer on its way already
            return
        if cycle is not None:
            cycle.disconnected = True
            cycle.scope["state"]["is_counted"] = True  # what the application still answers goes nowhere
            cycle.message_event.set()
        body = error_body(text)
        retry = f"retry-after: {RETRY_SECONDS}\r\n" if status == 503 else ""
        head = (
            f"HTTP/1.1 {status} {STATUS_PHRASES[status].decode()}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n{retry}{_GUARDED}connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._service.metrics.requests.labels(str(status)).inc()

    def give_up(self) -> None:
        """The service stops: a request that is not here yet will not be served."""
        if self._is_reading:
            self.refuse(503, busy("the service is stopping").text)

    @property
    def _is_reading(self) -> bool:
        """Whether a request is expected or on its way."""
        if self._began is None or self.transport.is_closing():
            return False
        return self.cycle is None or self.cycle.more_body or self.cycle.response_complete

    def _look(self) -> None:
        """What is done every second."""
        self._timer = self.loop.call_later(self._tick, self._look)
        now, config = self.loop.time(), self._config
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent or not unsent:
            self._taken = now
        if not unsent:
            self._answering = now
        self._unsent = unsent
        if now - self._taken > config.idle_seconds or now - self._answering > ANSWER_SECONDS:
            self.transport.abort()
        elif self._is_reading and self._began is not None:
            if now - self._began > config.request_seconds:
                self.refuse(408, f"the request was not here after {config.request_seconds:g} s; send it faster")
            elif now - self._heard > config.idle_seconds:
                self.refuse(408, f"nothing came for {config.idle_seconds:g} s; send the request at once")


async def _too_many(scope: Scope, receive: Receive, send: Send) -> Any:
    refusal = busy("too many connections are open")
    scope["state"]["service"].metrics.requests.labels(str(refusal.status)).inc()  # the guard is not asked
    await answer(send, refusal.status, refusal.text, {**HEADERS, **refusal.headers, "connection": "close"})
