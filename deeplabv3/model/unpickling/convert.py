"""A file of torch.save to a `.safetensors` file of its weights, without running anything in it."""

from __future__ import annotations

import os
import stat
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import UntypedStorage

from deeplabv3.model.unpickling import Refused, one_line
from deeplabv3.model.unpickling.containers import Layout, inspect
from deeplabv3.model.unpickling.contents import find_notes, find_weights, plain_tensors
from deeplabv3.model.unpickling.pickles import stand_ins

MAX_BYTES_FACTOR = 2  # of the file's size: each value may be in the weights under two names
MAX_BYTES_MORE = 1 << 20
ADVICE = "Check the documentation"  # torch's messages go on to recommend weights_only=False
REASON = "WeightsUnpickler error: "


class Storages:
    """Every piece of memory that torch fills from a file, as it is made."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self.taken: list[tuple[UntypedStorage, int]] = []

    def take(self, storage: Any, _: str) -> Any:
        """Note a storage; torch calls this as its `map_location`."""
        self.taken.append((storage, storage.nbytes()))
        self.num_bytes += storage.nbytes()
        if self.num_bytes > self.max_bytes:
            raise Refused(f"claims {self.num_bytes:,} bytes of values in {self.max_bytes:,} of its own; do not use it")
        return storage

    def require(self, layout: Layout) -> None:
        """Require that the storages are those of the file, whole, no more and no less.

        Raises:
            Refused: Some were made up, were grown afterwards, or were not filled.
        """
        sizes = Counter(num_bytes for _, num_bytes in self.taken if num_bytes)
        wrong = any(storage.nbytes() != num_bytes for storage, num_bytes in self.taken)
        if layout.storages is not None:
            wrong |= not sizes <= layout.storages
        if layout.num_storages is not None:
            wrong |= layout.num_storages != len(self.taken)
            wrong |= layout.payload_bytes != sum(8 + num_bytes for _, num_bytes in self.taken)
        if wrong:
            raise Refused(
                "does not hold the values that its pickle describes, so it is damaged or made up; fetch it again"
            )


def open_regular(path: Path) -> tuple[BinaryIO, int]:
    """Open a file that is a file and no pipe or device; also returns its size in bytes.

    Raises:
        Refused: It is something else, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}; check its permissions") from error
    file = os.fdopen(descriptor, "rb")
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        file.close()
        raise Refused("is no ordinary file; give a file of weights")
    return file, state.st_size


def read(file: BinaryIO, size: int) -> Any:
    """What a file of torch.save holds; names of known metadata are replaced by inert objects.

    Raises:
        Refused: It is something else, is damaged, or wants more than values.
    """
    storages = Storages(size)
    try:
        layout = inspect(file, size)
        file.seek(0)
        with warnings.catch_warnings(), torch.serialization.safe_globals([*stand_ins(layout.names)]):
            warnings.simplefilter("ignore")
            # From an open file, because torch.load takes a path that ends in .safetensors for another format.
            value = torch.load(file, map_location=storages.take, weights_only=True, mmap=False)
    except Refused:
        raise
    except UnpicklingError as error:
        _, found, reason = str(error).partition(REASON)
        detail = one_line(UnpicklingError(reason.partition(ADVICE)[0])) if found else "its pickle is malformed"
        raise Refused(f"cannot be read as weights ({detail}); it is damaged or made up: fetch it again") from error
    except Exception as error:  # torch raises ten kinds for damaged files
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise Refused(f"needs much more memory than its {size:,} bytes justify; do not use it") from error
        raise Refused(
            f"cannot be read as weights ({one_line(error)}); it is damaged or cut off: fetch it again"
        ) from error
    storages.require(layout)
    return value


def convert(source: Path, target: Path) -> None:
    """Write the weights in `source` to `target` as `.safetensors`, the texts beside them as its metadata.

    Raises:
        Refused: `source` is not read; the message says why and what to do.
    """
    file, size = open_regular(source)
    with file:
        root = read(file, size)
    weights = find_weights(root)
    tensors = plain_tensors(weights, MAX_BYTES_FACTOR * size + MAX_BYTES_MORE)
    notes = find_notes(root, weights)
    try:
        safetensors.torch.save_file(tensors, target, notes)
    except Exception as error:
        with suppress(OSError):
            target.unlink()
        raise Refused(
            f"cannot be turned into plain tensors ({one_line(error)}); make room for {size:,} bytes in the temporary "
            "folder, or set TMPDIR to another one"
        ) from error
