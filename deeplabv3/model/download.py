"""Published files: fetched once into the user's cache, gone on with after an interruption, and verified.

They are kept in `$DEEPLABV3_CACHE`, by default `~/.cache/deeplabv3`. The eight hexadecimal digits at the end of a
published name are the first ones of the file's SHA-256, as torch.hub has it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from deeplabv3.distributed import is_first
from deeplabv3.errors import CheckpointError, InputError, printable
from deeplabv3.files import only_writer, partial_of
from deeplabv3.progress import Progress

TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20
_RANGE_NOT_SATISFIABLE = 416


def verified(path: Path) -> Path:
    """The same path, if its file has the SHA-256 that its name promises.

    Raises:
        CheckpointError: It has another one.
    """
    if wrong := wrong_digest(path, path.name):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is {wrong}; delete it and fetch it again")
    return path


def wrong_digest(path: Path, name: str) -> str:
    """How a file's SHA-256 differs from a published name (`resnet18-f37072fd.pth`); "" if not, or for other names."""
    expected = re.fullmatch(r"(?:resnet\d+|mobilenet_v3_large|deeplabv3\w*)(?:[-\w]*)-([0-9a-f]{8})\.pth", name)
    if expected is None:
        return ""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            total.update(chunk)
    found = total.hexdigest()[: len(expected[1])]
    return "" if found == expected[1] else f"{found}... instead of {expected[1]}..."


def download(url: str, path: Path) -> None:
    """Fetch a file; `path` appears only when it is complete and its SHA-256 is right.

    What an interrupted download left is gone on with where the server allows it. Of several processes that want the
    file, as torchrun starts them, one fetches it and the others wait.

    Raises:
        InputError: It cannot be fetched or written; the message says which file to put where.
    """
    partial = partial_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with only_writer(path.parent, waiting=lambda: _tell_of_waiting(path.parent)):
            if path.is_file():  # while this process waited
                return
            _fetch(url, partial)
            if wrong := wrong_digest(partial, path.name):
                partial.unlink()
                raise OSError(f"{wrong}: its SHA-256 is wrong")
            partial.replace(path)
    except (OSError, ValueError, HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise InputError(
            f"{url} cannot be fetched ({printable(str(reason))}); try again, or fetch it elsewhere and put it at "
            f"{path}, or give a local file instead of the name"
        ) from error


def _tell_of_waiting(folder: Path) -> None:
    if is_first():
        print(f"note: waiting for another process that downloads into {folder}", file=sys.stderr)


def _fetch(url: str, partial: Path) -> None:
    """Append to `partial` what it lacks of a file.

    Raises:
        OSError: The connection broke off; what came is kept.
    """
    there = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == _RANGE_NOT_SATISFIABLE:  # it was complete, or is of another file: the digest tells
            return
        raise
    with answer:
        goes_on = there > 0 and getattr(answer, "status", None) == 206
        size = int(answer.headers.get("Content-Length", 0)) + (there if goes_on else 0)
        done = there if goes_on else 0
        with partial.open("ab" if goes_on else "wb") as file, Progress(partial.stem[1:], size, done) as progress:
            while chunk := answer.read(CHUNK_BYTES):
                file.write(chunk)
                progress.advance(len(chunk))
    if progress.done < size:
        raise OSError(f"it ended after {progress.done:,} of {size:,} bytes")
