"""What `deeplabv3 export` adds to a file: a record of what the network is, and a SHA-256 over all before it.

    .onnx   the graph; two more entries of the model's metadata, "deeplabv3" (JSON) and "deeplabv3.sha256"
    .pt2    the zip file with an entry "deeplabv3.json"; the comment of the zip file is the SHA-256

Either file ends with the 64 digits of the SHA-256, and every other reader takes both for what they are: metadata. They
find damage, and no malice: whoever changes a file can write its digest anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from deeplabv3.errors import CheckpointError
from deeplabv3.files import is_file

RECORD_KEY = "deeplabv3"
DIGEST_KEY = "deeplabv3.sha256"
RECORD_FILE = "deeplabv3.json"
NUM_DIGITS = 64

_METADATA_FIELD, _KEY_FIELD, _VALUE_FIELD = 0x72, 0x0A, 0x12
"""Tags of ModelProto.metadata_props and of its entries' key and value (onnx.proto): field number, then wire type 2."""


def sealed_onnx(graph: bytes, record: str) -> bytes:
    """An ONNX model with its record and its digest.

    A serialised protobuf message may be followed by more entries of a list that it holds, so nothing is parsed.

    Args:
        graph: The serialised ModelProto.
        record: JSON.
    """
    content = graph + _entry(RECORD_KEY, record)
    framing = _entry(DIGEST_KEY, "0" * NUM_DIGITS)[:-NUM_DIGITS]
    return _with_digest(content + framing)


def sealed_zip(archive: bytes) -> bytes:
    """A zip file without a comment, with its digest as the comment."""
    return _with_digest(archive[:-2] + NUM_DIGITS.to_bytes(2, "little"))


def read_sealed(path: Path) -> bytes:
    """The content of an exported file that is whole.

    Raises:
        CheckpointError: It cannot be read, is damaged, or was not written by `deeplabv3 export`.
    """
    try:
        if not is_file(path):
            raise CheckpointError(f"there is no file {path}; write one with: deeplabv3 export MODEL {path.name}")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if content[-NUM_DIGITS:] == _digest(content[:-NUM_DIGITS]):
        return content
    if DIGEST_KEY.encode() in content or RECORD_FILE.encode() in content:
        raise CheckpointError(f"{path} is damaged or cut off: its SHA-256 does not fit its content; export it again")
    raise CheckpointError(
        f"{path} has no record of deeplabv3 export: another program wrote it, or it is cut off; give a whole one, or "
        "the checkpoint that it was made from"
    )


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _with_digest(content: bytes) -> bytes:
    return content + _digest(content)


def _entry(key: str, value: str) -> bytes:
    """A serialised ModelProto that holds one entry of metadata and nothing else."""
    entry = _field(_KEY_FIELD, key.encode()) + _field(_VALUE_FIELD, value.encode())
    return _field(_METADATA_FIELD, entry)


def _field(tag: int, content: bytes) -> bytes:
    length, digits = len(content), bytearray()
    while length >= 0x80:  # seven bits a byte, the lowest first
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([tag, *digits, length]) + content
