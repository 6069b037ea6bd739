"""A service that runs in a thread of the tests, and a client that says what it likes."""

import http.client
import io
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from deeplabv3.config import ModelConfig, ServeConfig
from deeplabv3.prediction.segmenter import DeepLabV3
from deeplabv3.serving.server import bound, server_of
from deeplabv3.serving.service import Service


class Reply(NamedTuple):
    """What a service answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Running(NamedTuple):
    """A service that runs."""

    port: int
    service: Service

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; underscores in headers stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def segment(self, body: bytes, query: str = "", **headers: str) -> Reply:
        return self.ask("POST", f"/segment{query}", body, **headers)

    def say(self, text: bytes, seconds: float = 60) -> Reply | None:
        """Send bytes as they are; None where the connection is closed without an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            try:
                connection.sendall(text)
            except OSError:
                pass  # it was closed while being sent; there may be an answer
            return heard(connection)


def heard(connection: socket.socket) -> Reply | None:
    """The answer that comes over a connection, or None."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        response.close()


@contextmanager
def running(config: ServeConfig, model: DeepLabV3, token: str | None = None):
    """Run a service in a thread."""
    listener = bound(config)
    port = listener.getsockname()[1]
    service = Service(config, model)
    server = server_of(service, token)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            pass
        yield Running(port, service)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory) -> Path:
    """A network of few channels that has seen pictures, so that its masks have several classes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8))
    batch = torch.from_numpy(np.stack([picture(seed=seed) for seed in range(4)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        for _ in range(30):
            model.train()(batch)
    path = tmp_path_factory.mktemp("model") / "nano.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def model(model_path) -> DeepLabV3:
    return DeepLabV3.from_pretrained(model_path)


@pytest.fixture(scope="session")
def config(model_path) -> ServeConfig:
    return ServeConfig(model=model_path, port=0, max_body_bytes=200_000, max_pixels=10_000, num_decoders=1)


@pytest.fixture(scope="module")
def served(config, model):
    """A service of small limits that a module's tests share."""
    with running(config, model) as found:
        yield found


@pytest.fixture
def serve(config, model):
    """Start a service of other limits."""

    @contextmanager
    def start(token: str | None = None, **changes: Any):
        with running(replace(config, **changes), model, token) as found:
            yield found

    return start


def picture(height: int = 48, width: int = 64, seed: int = 0) -> npt.NDArray[Any]:
    """Blobs of colour, RGB uint8 `(H, W, 3)`."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def png(pixels: npt.NDArray[Any], **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", **options)
    return content.getvalue()


def pixels_of(content: bytes) -> npt.NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(content)))


def form(*parts: tuple[str, str | None, bytes], boundary: str = "line") -> tuple[bytes, str]:
    """A multipart body of (name, file name or None, content), and its type."""
    body = b""
    for name, file, content in parts:
        file = "" if file is None else f'; filename="{file}"'
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
