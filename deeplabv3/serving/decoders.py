"""Processes that decode images beside the service, so that a hostile file costs one of them and one answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deeplabv3.config import ServeConfig
from deeplabv3.data.images import Pixels
from deeplabv3.errors import is_out_of_memory
from deeplabv3.serving.decoding import ANSWER, LENGTH
from deeplabv3.serving.metrics import Metrics
from deeplabv3.serving.refusals import Refusal, short_of_memory

CPU_SECONDS = 5
WALL_SECONDS = 10


class DecoderDied(Exception):
    """The process ended in the middle of an image."""


class Decoder:
    """One process.

    Args:
        command: What to run; `decoding` says what it reads and writes.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def decode(self, content: bytes) -> Pixels:
        """Decode an image; this waits for the process.

        Returns:
            RGB, uint8, `(H, W, 3)`.

        Raises:
            Refusal: It is no image that is decoded.
            DecoderDied: The process has ended.
        """
        assert self._process.stdin is not None
        try:
            for part in (LENGTH.pack(len(content)), content):
                left = memoryview(part)
                while left:
                    left = left[self._process.stdin.write(left) :]
        except OSError as error:
            raise DecoderDied from error
        status, height, width = ANSWER.unpack(self._read(ANSWER.size))
        if status != 200:
            raise Refusal(status, self._read(height).decode())
        return np.frombuffer(self._read(height * width * 3), np.uint8).reshape(height, width, 3)

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets `DecoderDied`."""
        self._process.kill()

    def _read(self, num_bytes: int) -> bytearray:
        assert self._process.stdout is not None
        answer = bytearray(num_bytes)
        left = memoryview(answer)
        while left:
            count = self._process.stdout.readinto(left)  # type: ignore[attr-defined]  # unbuffered, so it is a raw file
            if not count:
                raise DecoderDied
            left = left[count:]
        return answer


class Decoders:
    """Some processes, each of which decodes one image at a time and is replaced when it dies.

    Args:
        config: Their number, and the largest image.
        metrics: Count the ones that died.
    """

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        words = [str(config.max_pixels), str(CPU_SECONDS)]
        self._command = [sys.executable, "-m", "deeplabv3.serving.decoding", *words]
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(config.num_decoders, "decoder")
        self._all: list[Decoder] = []
        try:
            for _ in range(config.num_decoders):
                self._all.append(Decoder(self._command))
        except OSError:
            self.end()
            raise
        self._free: asyncio.Queue[Decoder] = asyncio.Queue()
        for decoder in self._all:
            self._free.put_nowait(decoder)

    async def decode(self, content: bytes) -> Pixels:
        """Decode an image.

        Returns:
            RGB, uint8, `(H, W, 3)`.

        Raises:
            Refusal: It is no image that is decoded, or its decoder died or was too slow.
        """
        decoder = await self._free.get()
        work = asyncio.ensure_future(self._decode(decoder, content))
        work.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to look
        return await asyncio.shield(work)  # a client that leaves does not leave a decoder in the middle of an image

    def end(self) -> None:
        """End all processes."""
        for decoder in self._all:
            decoder.end()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _decode(self, decoder: Decoder, content: bytes) -> Pixels:
        loop = asyncio.get_running_loop()
        try:
            if not decoder.is_alive:
                decoder = self._replace(decoder)
            work = loop.run_in_executor(self._threads, decoder.decode, content)
            watchdog = loop.call_later(WALL_SECONDS, decoder.kill)
            try:
                return await work
            finally:
                watchdog.cancel()
        except Refusal:
            raise
        except Exception as error:  # whatever it is, the rest of an answer may be on its way
            decoder = self._replace(decoder)
            if isinstance(error, DecoderDied):
                text = "the image cannot be read: decoding it took too much time or memory, or failed; save it anew"
                raise Refusal(422, text) from error
            if is_out_of_memory(error):
                raise short_of_memory() from error
            raise
        finally:
            self._free.put_nowait(decoder)

    def _replace(self, decoder: Decoder) -> Decoder:
        decoder.end()
        self._metrics.decoders_replaced.inc()
        self._all[self._all.index(decoder)] = new = Decoder(self._command)
        return new
