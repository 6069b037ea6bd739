"""The body of a request, read within limits and kept in memory: nothing of it is ever a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from deeplabv3.serving.refusals import Refusal, busy

RAW = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Types of a body that is the image itself, besides image/*: the second one is what curl says by default."""

MAX_FIELDS = 5
MAX_FIELD_BYTES = 4096
MAX_NAME_LETTERS = 255


class Room:
    """How many bytes of unfinished bodies there may be at a time.

    Args:
        num_bytes: For all together.
    """

    def __init__(self, num_bytes: int) -> None:
        self.left = num_bytes


class _InMemory(MultiPartParser):
    """A parser that never spools to a file."""

    spool_max_size = 0  # for `SpooledTemporaryFile`, without a limit; that of the body holds


async def read_upload(request: Request, max_bytes: int, room: Room) -> tuple[bytes, dict[str, str]]:
    """The image of a request, as a file's bytes, and the form's other fields.

    Raises:
        Refusal: The body is too large, of another kind, or no form with one file.
        ClientDisconnect: The client has left.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body is compressed; send the image as it is")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    kind = request.headers.get("content-type", RAW[0]).partition(";")[0].strip().lower()
    taken = [0]
    try:
        parts = _limited(request, max_bytes, room, taken)
        if kind == "multipart/form-data":
            return await _read_form(request, parts)
        if not kind.startswith("image/") and kind not in RAW:
            text = f"the body is {kind[:80]!r}; send an image (image/png, image/jpeg, ...) or a form with one file"
            raise Refusal(415, text)
        content = b"".join([part async for part in parts])
    finally:
        room.left += taken[0]
    if not content:
        raise Refusal(422, "the body is empty; send the bytes of an image")
    return content, {}


async def _limited(request: Request, max_bytes: int, room: Room, taken: list[int]) -> AsyncGenerator[bytes, None]:
    """The body in parts, up to the limit; `taken[0]` counts them, for whoever gives the room back."""
    async for part in request.stream():
        taken[0] += len(part)
        room.left -= len(part)
        if taken[0] > max_bytes:
            raise _too_large(max_bytes)
        if room.left < 0:
            raise busy("too many bodies are on their way")
        yield part


async def _read_form(request: Request, parts: AsyncGenerator[bytes, None]) -> tuple[bytes, dict[str, str]]:
    parser = _InMemory(request.headers, parts, max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES)
    try:
        form = await parser.parse()
    except (MultiPartException, UnicodeError) as error:  # the latter of codecs that only pretend to be one
        reason = error.message.rstrip(".") if isinstance(error, MultiPartException) else "its charset is none"
        allowed = f"send one file and up to {MAX_FIELDS} fields of up to {MAX_FIELD_BYTES} bytes"
        raise Refusal(400, f"the form cannot be read ({reason}); {allowed}") from error
    try:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if not files:
            raise Refusal(422, "the form has no file; send the image as one, as in: curl -F image=@street.jpg")
        if len(files[0].filename or "") > MAX_NAME_LETTERS:
            raise Refusal(400, f"the name of the file has more than {MAX_NAME_LETTERS} letters; give it a shorter one")
        content = await files[0].read()
        if not content:
            raise Refusal(422, "the file is empty; send an image")
        return content, {name: value for name, value in form.items() if isinstance(value, str)}
    finally:
        await form.close()


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, f"the body is too large; at most {max_bytes:,} bytes are read: make the image smaller")
