"""How the web service listens, and what it admits."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path

from deeplabv3.config.checks import MAX_PIXELS, MOST_PIXELS, require, with_plain_types
from deeplabv3.config.inference import InferenceConfig


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Segment images over HTTP, with a page to look at.

    Attributes:
        model: A checkpoint, another project's file, or a name that `deeplabv3 models` lists.
        host: IP address to listen at; one that other machines reach needs a token.
        port: TCP port; 0 takes a free one.
        token_file: File with the token that requests must carry; null takes $DEEPLABV3_TOKEN, where that is set.
        names: More host names that the service may be called by, as in [segment.example.org].
        inference: How the model predicts.
        batch_size: Waiting images of one size that run together. With 1, masks are those of `predict` to the byte; more
            may change a pixel whose two best classes are nearly equal.
        queue_size: Images in work at a time; more are told to come back.
        num_decoders: Processes that decode images.
        max_body_bytes: Larger requests are refused.
        max_pixels: Images of more are refused before they are decoded.
        max_connections: Open at a time; more are told to come back.
        idle_seconds: A client that neither sends nor takes anything for so long is cut off.
        request_seconds: A request must be here after so long, whatever its client sends.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    names: tuple[str, ...] = ()
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    batch_size: int = 1
    queue_size: int = 32
    num_decoders: int = 2
    max_body_bytes: int = 20_000_000
    max_pixels: int = MAX_PIXELS
    max_connections: int = 512
    idle_seconds: float = 10
    request_seconds: float = 30

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            InputError: A value is not possible.
        """
        with_plain_types(self)
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            require(False, "host", self.host, "give an IP address, as in 127.0.0.1, or 0.0.0.0 for all of this machine")
        require(0 <= self.port <= 65535, "port", self.port, "give 0 to 65535")
        for name in self.names:
            ok = "/" not in name and name.count(":") != 1  # an address of IPv6 has more
            require(ok, "names", name, "give names of hosts, as in [segment.example.org], without http:// and port")
        for name in ("batch_size", "queue_size", "num_decoders", "max_body_bytes", "max_connections"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "give at least 1")
        ok = 1 <= self.max_pixels <= MOST_PIXELS
        require(ok, "max_pixels", self.max_pixels, f"give 1 to {MOST_PIXELS}")
        for name in ("idle_seconds", "request_seconds"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "give a finite number above 0")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        return ipaddress.ip_address(self.host).is_loopback
