"""Listening, starting and stopping."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import uvicorn

from deeplabv3.config import ServeConfig
from deeplabv3.errors import InputError
from deeplabv3.prediction.segmenter import load
from deeplabv3.serving.app import create_app
from deeplabv3.serving.connections import Connection
from deeplabv3.serving.guards import MOST_HEADER_BYTES, Guard, bracketed, read_token
from deeplabv3.serving.service import Service

KEEP_ALIVE_SECONDS = 5
STOP_SECONDS = 6
"""Requests in work have so long to end after a signal; then they are sent away."""


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        InputError: The model, the address or the token cannot be used.
    """
    token = read_token(config)
    with bound(config) as listener:  # first, since a model takes seconds
        model = load(config.model, output_stride=config.inference.output_stride, device=config.inference.device)
        model.require(config.inference)
        service = Service(config, model)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops at both and then raises them again
            signal.signal(number, lambda *_: None)
        server_of(service, token).run(sockets=[listener])
    if service.is_at_work:  # the network cannot be stopped in the middle of an image, and nobody waits for it
        sys.stdout.flush()
        os._exit(0)


def server_of(service: Service, token: str | None) -> Server:
    """A server that is ready to run.

    Args:
        service: What it serves.
        token: What requests must carry, if anything.
    """
    settings = uvicorn.Config(
        Guard(create_app(service), service.config, token, service.metrics),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS + 2,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
    )
    return Server(settings, service)


def bound(config: ServeConfig) -> socket.socket:
    """A socket at the address, which does not listen yet.

    Raises:
        InputError: The address is taken, or not one of this machine's.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        raise _not_listened_at(config, error) from error
    return listener


def _not_listened_at(config: ServeConfig, error: OSError) -> InputError:
    where = f"{config.host}, port {config.port}"
    return InputError(f"{where} cannot be listened at: {error.strerror}; choose another --port or --host")


class Server(uvicorn.Server):
    """A server that stops within seconds and leaves no request without an answer.

    Args:
        config: Of uvicorn.
        service: What it serves.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the service, listen, and only then say where.

        Raises:
            InputError: The system gives too few processes or files, or another program listens there by now.
        """
        config = self._service.config
        try:
            for listener in sockets or ():
                listener.listen()
        except OSError as error:
            raise _not_listened_at(config, error) from error
        try:
            self._service.start()
        except OSError as error:
            raise InputError(
                f"the service cannot start {config.num_decoders} decoders: {error.strerror}; lower --num-decoders, or "
                "raise the limits of processes and open files (ulimit -u, -n)"
            ) from error
        try:
            await super().startup(sockets)
        except BaseException:
            self._service.end()
            raise
        port = self.servers[0].sockets[0].getsockname()[1]
        print(f"{config.model} is served at http://{bracketed(config.host)}:{port}/; Ctrl-C stops", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Send new requests away at once, and those in work after `STOP_SECONDS`."""
        self._service.stop()
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._give_up)
        await super().shutdown(sockets)
        self._service.end()

    def _give_up(self) -> None:
        self._service.give_up()
        for connection in list(self.server_state.connections):
            assert isinstance(connection, Connection)
            connection.give_up()
