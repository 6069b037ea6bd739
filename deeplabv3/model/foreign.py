"""Weights that another program wrote: `.safetensors` files, and files of torch.save without running anything in them.

A `.safetensors` file holds no code and is read here. Everything else may be a pickle, which is a program, and is read
by `deeplabv3.model.unpickling` in a process of its own, with limits of memory and time. That process hands back plain
tensors in a `.safetensors` file in a private folder, or one line that says why not.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from torch import Tensor

import deeplabv3.model.unpickling
from deeplabv3.errors import CheckpointError
from deeplabv3.model.unpickling import Refused, one_line, shown
from deeplabv3.model.unpickling.contents import MAX_ENTRIES, MAX_NOTE, MAX_NUM_NOTES, without_prefix
from deeplabv3.model.unpickling.limits import FORBIDDEN_EXIT

MAX_FILE_BYTES = 4 << 30
MAX_HEADER_BYTES = 100_000_000  # what safetensors itself allows
MAX_ANSWER_BYTES = 10_000
CPU_SECONDS = 30
CPU_BYTES_PER_SECOND = 10 << 20  # reading takes a hundredth of this time
START_SECONDS = 60  # importing torch on a busy machine
WAITING_FACTOR = 4  # a slow disk
KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
DTYPES = frozenset("BOOL U8 I8 I16 I32 I64 F16 BF16 F32 F64".split())


@dataclass(frozen=True)
class Foreign:
    """Weights that another program wrote.

    Attributes:
        path: The file.
        tensors: By name; dense, contiguous, on the CPU, of ordinary types, all values finite.
        notes: Texts found beside the weights by their place in the file ("meta.config", "epoch"), untrusted. Numbers
            and lists are JSON. Of a `.safetensors` file, its metadata.
    """

    path: Path
    tensors: dict[str, Tensor]
    notes: dict[str, str]


def read_foreign(path: Path) -> Foreign:
    """Read a file of weights that another program wrote; nothing in it is run.

    Args:
        path: `.safetensors`, or what torch.save wrote: weights by name, alone or with other things beside them.

    Raises:
        CheckpointError: It cannot be read, is damaged, or holds something else than weights.
    """
    try:
        if is_safetensors(path, require_ordinary(path)):
            tensors, notes = read_plain(path)
        else:
            tensors, notes = read_apart(path)
        require_values(tensors)
    except Refused as refused:
        raise CheckpointError(f"{path} {refused}") from refused
    return Foreign(path, without_prefix(tensors), notes)


def require_ordinary(path: Path) -> int:
    """The size in bytes of a file that is no folder, pipe or device.

    Raises:
        Refused: It is something else, is not there, or is empty or huge.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"cannot be read: {reason}; give the path of a file of weights") from error
    if stat.S_ISDIR(state.st_mode):
        raise Refused("is a folder; give the file of weights in it")
    if not stat.S_ISREG(state.st_mode):
        raise Refused("is a pipe or a device; give an ordinary file of weights")
    if not state.st_size:
        raise Refused("is empty; fetch it again")
    if state.st_size > MAX_FILE_BYTES:
        raise Refused(f"has {state.st_size:,} bytes, of at most {MAX_FILE_BYTES:,}; save the weights alone")
    return state.st_size


def is_safetensors(path: Path, size: int) -> bool:
    """Whether a file begins as `.safetensors` does: the length of a header, and its opening brace."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise Refused(f"cannot be read: {error.strerror}; check its permissions") from error
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def read_plain(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a `.safetensors` file.

    Raises:
        Refused: It is damaged, or has tensors of other types than ours.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            names = list(file.keys())
            if not names:
                raise Refused("holds no tensors; give a file of weights")
            if len(names) > MAX_ENTRIES:
                raise Refused(f"holds {len(names):,} tensors, of at most {MAX_ENTRIES:,}; give a file of weights")
            for name in names:
                dtype = file.get_slice(name).get_dtype()
                if dtype not in DTYPES:
                    raise Refused(f"has {shown(name)} of type {shown(dtype)}; save it as float32")
            tensors = {name: file.get_tensor(name).clone() for name in names}  # independent of the file from here on
    except Refused:
        raise
    except Exception as error:  # the reader raises many kinds for damaged files
        raise Refused(f"is damaged or cut off ({one_line(error)}); fetch it again") from error
    short = {name: text for name, text in notes.items() if len(text) <= MAX_NOTE}
    return tensors, dict(list(short.items())[:MAX_NUM_NOTES])


def read_apart(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights and notes of a file of torch.save, read by a process of its own.

    Raises:
        Refused: It is not read; the message says why.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="deeplabv3-") as folder:  # only this user may enter it
            target = Path(folder) / "weights.safetensors"
            unpickle(path.absolute(), target)
            return read_plain(target)
    except OSError as error:
        reason = f"{error.strerror} for {sys.executable} in {tempfile.gettempdir()}"
        raise Refused(f"cannot be read in a process of its own: {reason}; see whether there is room") from error


def unpickle(source: Path, target: Path) -> None:
    """Convert a file by `deeplabv3.model.unpickling`, in a process that has no input and few limits to break.

    Raises:
        Refused: It did not succeed; the message says why.
    """
    cpu_seconds = CPU_SECONDS + source.stat().st_size // CPU_BYTES_PER_SECOND
    command = [sys.executable, "-s", "-m", deeplabv3.model.unpickling.__name__]
    answer = target.with_name("answer.json")
    with answer.open("w+b") as file:
        try:
            status = subprocess.run(
                [*command, os.fspath(source), os.fspath(target), str(cpu_seconds)],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                cwd=target.parent,
                env=environment(),
                timeout=START_SECONDS + WAITING_FACTOR * cpu_seconds,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired as error:
            raise Refused(
                f"took more than {error.timeout:.0f} s to read; it is damaged or hostile: do not use it"
            ) from error
        file.seek(0)
        require_success(status, file.read(MAX_ANSWER_BYTES), cpu_seconds)


def environment() -> dict[str, str]:
    """The variables that the reading process gets: where its modules are, and no one's keys."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    # Not the current folder, which an empty entry means: a torch.py may lie beside a downloaded file.
    folders = [*sys.path, os.fspath(Path(deeplabv3.__file__).parent.parent)]
    paths = [os.fspath(Path(path).absolute()) for path in folders if path]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **threads, "PYTHONPATH": os.pathsep.join(paths)}


def require_success(status: int, answer: bytes, cpu_seconds: int) -> None:
    """Turn the end of the reading process into one line, unless it was a good one.

    Raises:
        Refused: It refused the file, or ended in another way.
    """
    if status < 0:
        if -status == getattr(signal, "SIGXCPU", 0):
            raise Refused(
                f"took more than {cpu_seconds} s of computing to read; it is damaged or hostile: do not use it"
            )
        raise Refused(f"ended the reading process by signal {-status}; it is damaged or hostile: do not use it")
    if status == FORBIDDEN_EXIT:
        raise Refused("tried to start a program, to connect or to write a file, and was stopped: do not use it")
    try:
        refused = json.loads(answer).get("refused")
    except (ValueError, AttributeError):
        refused = f"ended the reading process with status {status} and no answer; see whether `import torch` works"
    if status or refused:
        words = str(refused or f"failed with status {status}")[:1_000]
        raise Refused("".join(sign if sign.isprintable() else " " for sign in words))


def require_values(tensors: dict[str, Tensor]) -> None:
    """Require numbers that a network can compute with.

    Raises:
        Refused: One is NaN or infinite, or becomes so in float32.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
            raise Refused(f"has NaN or infinite values in {shown(name)}; use a checkpoint from before that")
