"""Who may ask, and the headers of every answer."""

from __future__ import annotations

import hmac
import ipaddress
import json
import os
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deeplabv3.config import ServeConfig
from deeplabv3.errors import InputError
from deeplabv3.serving.metrics import Metrics
from deeplabv3.serving.refusals import Refusal

TOKEN = "DEEPLABV3_TOKEN"
LEAST_TOKEN_LETTERS = 16
MOST_HEADER_BYTES = 2**14
HEADERS_TOO_LARGE = f"the address and headers are too large; at most {MOST_HEADER_BYTES:,} bytes are read"

PROTECTED = ("/segment", "/classes", "/metrics")
"""What needs the token; the rest is the page, the documentation and the sign of life, which tell nothing."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=(), camera=()",
    "Cache-Control": "no-store",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


def read_token(config: ServeConfig) -> str | None:
    """The token that requests must carry, or None where none is needed.

    Raises:
        InputError: There is none and other machines reach the address, or it is too short or cannot be read.
    """
    if config.token_file is None:
        token, where = os.environ.get(TOKEN, "").strip(), f"${TOKEN}"
    else:
        try:
            token, where = config.token_file.read_text(encoding="utf-8").strip(), str(config.token_file)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{config.token_file} cannot be read as a token; give a file of one line") from error
    if not token and config.token_file is None:
        if config.is_local:
            return None
        raise InputError(
            f"host is {config.host}, which other machines reach; give a token with --token-file FILE or ${TOKEN}"
        )
    if len(token) < LEAST_TOKEN_LETTERS or not (token.isascii() and token.isprintable()) or " " in token:
        raise InputError(
            f"the token of {where} has {len(token)} letters; give {LEAST_TOKEN_LETTERS} or more of plain ASCII without "
            "blanks, as from: openssl rand -hex 32"
        )
    return token


def bracketed(host: str) -> str:
    """An IP address as browsers write it into a URL."""
    address = ipaddress.ip_address(host)
    address = getattr(address, "ipv4_mapped", None) or address  # what listens at :: sees ::ffff:192.0.2.1
    return f"[{address}]" if address.version == 6 else str(address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def reached_address(scope: Scope) -> str | None:
    """The service's own address that a connection reached, as browsers write it; None where the server does not tell.

    It is one of its names: what calls it by that was not led here by a name of a stranger's.
    """
    try:
        return bracketed(scope["server"][0])
    except (KeyError, TypeError, ValueError):
        return None


class Guard:
    """Lets pass only requests that may be made, and gives every answer its headers.

    A page elsewhere may make a browser send requests here (by a name of its own that points here, or across origins);
    neither is answered.

    Args:
        app: What is guarded.
        config: Names that the service may be called by.
        token: What requests must carry, if anything.
        metrics: Count the answers.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, token: str | None, metrics: Metrics) -> None:
        self._app, self._token, self._metrics = app, token, metrics
        given = {bracketed(name) if _is_address(name) else name.lower().rstrip(".") for name in config.names}
        self._names = {"localhost", "127.0.0.1", "[::1]", bracketed(config.host), *given}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it before anything of it is read."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                if "is_counted" not in scope.get("state", {}):
                    self._metrics.requests.labels(str(message["status"])).inc()
                own = {name for name, _ in message["headers"]}
                extra = [(name, value) for name, value in _RAW_HEADERS if name not in own]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._require_allowed(Headers(scope=scope), scope)
        except Refusal as refusal:
            await answer(send_guarded, refusal.status, refusal.text, refusal.headers)
            return
        await self._app(scope, receive, send_guarded)

    def _require_allowed(self, headers: Headers, scope: Scope) -> None:
        num_bytes = sum(len(name) + len(value) for name, value in headers.raw)
        if num_bytes + len(scope["raw_path"]) + len(scope["query_string"]) > MOST_HEADER_BYTES:
            raise Refusal(431, HEADERS_TOO_LARGE)
        host = headers.get("host", "").lower()
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].rstrip(".")
        if name not in self._names and name != reached_address(scope):
            raise Refusal(421, "the service has another name; call it by that, or start it with --names '[NAME]'")
        origin = headers.get("origin")
        if (origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}")) or (
            headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
        ):
            raise Refusal(403, "the request comes from a page of another origin; open the service's own page")
        if self._token is not None and scope["path"] in PROTECTED:
            given = headers.get("authorization", "")
            wanted = f"Bearer {self._token}"
            if not hmac.compare_digest(given.encode(), wanted.encode()):
                raise Refusal(401, "the token is missing or wrong; send it as: Authorization: Bearer TOKEN")


async def answer(send: Send, status: int, text: str, headers: Mapping[str, str]) -> None:
    """Send an error as JSON."""
    body = error_body(text)
    plain = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in plain.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def error_body(text: str) -> bytes:
    """An error as every answer tells it."""
    return json.dumps({"error": text}).encode()
