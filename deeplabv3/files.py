"""Writing files so that a crash at any moment leaves the old file or the new one, and never half of either."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from deeplabv3.errors import InputError, OutputError

MOST_NAME_BYTES = 255
"""In the name of a file, on the file systems in use."""


def cache_dir() -> Path:
    """Folder of what is fetched or worked out once: `$DEEPLABV3_CACHE`, or `deeplabv3` in the user's cache.

    Raises:
        OutputError: Neither is said, and the user has no home, as in many a container.
    """
    if own := os.environ.get("DEEPLABV3_CACHE"):
        return Path(own)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "deeplabv3"
    try:
        return Path.home() / ".cache" / "deeplabv3"
    except RuntimeError as error:
        raise OutputError("this user has no home folder to keep files in; set DEEPLABV3_CACHE to a folder") from error


def is_there(path: Path) -> bool:
    """Whether a path leads to anything.

    From Python 3.14 on, `Path.exists`, `is_file` and `is_dir` say no, too, of what may not be looked at.

    Raises:
        OSError: It may not be looked at.
    """
    return _mode(path) != 0


def is_file(path: Path) -> bool:
    """Whether a path leads to an ordinary file; an error as in `is_there`."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder; an error as in `is_there`."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """The type and the rights of what a path leads to; 0 for nothing."""
    try:
        return path.stat().st_mode
    except ValueError:  # no path has such a name
        return 0
    except OSError as error:
        if error.errno in _ABSENT or getattr(error, "winerror", None) in _ABSENT_ON_WINDOWS:
            return 0
        raise


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EBADF, errno.ELOOP)
_ABSENT_ON_WINDOWS = (21, 123, 1921)  # a drive that is empty, a name with a star, a link that leads to itself


def make_dir(path: Path) -> None:
    """Make a folder to write into, with its parents, so that it outlives a power cut.

    Raises:
        OutputError: That is not possible.
    """
    try:
        missing = [folder for folder in (path, *path.parents) if not is_there(folder)]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            flush_dir(folder.parent)
    except OSError as error:
        raise OutputError(f"the folder {path} cannot be made: {error.strerror}; choose another one") from error


def require_writable(path: Path) -> None:
    """Find out whether a folder is there or could be made, and written into, without making it.

    Raises:
        OutputError: It could not.
    """
    there = path
    try:
        while not is_there(there):
            there = there.parent
    except OSError as error:  # it lies in one that may not be entered
        raise OutputError(f"the folder {path} cannot be written: {error.strerror}; choose another one") from error
    if not there.is_dir():
        raise OutputError(f"the folder {path} cannot be made: {there} is a file; choose another one")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {path} cannot be written: {there} is read-only; choose another one")


@contextmanager
def only_writer(path: Path, *, waiting: Callable[[], None] | None = None, is_shared: bool = False) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder, where the system can (not every network disk can).

    The folder is free again when this process ends, however it does.

    Args:
        path: The folder, which is there.
        waiting: Called before another process that has it is waited for; with None that is refused.
        is_shared: Whether processes that this one forks (not those that it starts in another way) write there too and
            hold it for as long as they live; else one that outlives this process would keep the next one out.

    Raises:
        InputError: Another process has it.
        OutputError: It cannot be opened.
    """
    try:
        fcntl: Any = import_module("fcntl")
    except ImportError:  # Windows
        yield
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise cannot_write(path, error) from error
    if not is_shared:
        _UNSHARED.add(handle)
    try:
        _lock(fcntl, handle, path, waiting)
        yield
    finally:
        if is_shared or handle in _UNSHARED:  # it is not in a forked process
            with suppress(OSError):
                if not is_shared:
                    fcntl.flock(handle, fcntl.LOCK_UN)  # whoever else has the handle
            with suppress(OSError):  # nothing was written through it
                os.close(handle)
            _UNSHARED.discard(handle)


_UNSHARED: set[int] = set()
"""Handles that hold a folder and that a forked process must not hold."""


def _let_go() -> None:
    """Close what this process, just forked, must not hold."""
    while _UNSHARED:
        os.close(_UNSHARED.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _lock(fcntl: Any, handle: int, path: Path, waiting: Callable[[], None] | None) -> None:
    """Lock an open folder; a file system that has no locks is left without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if waiting is None:
            raise InputError(f"another process writes into {path}; wait for it, or choose another folder") from error
        waiting()
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        return


def refuse_to_overwrite(paths: Iterable[Path]) -> None:
    """Stop before results that are there already.

    Raises:
        OutputError: One of them exists.
    """
    for path in paths:
        if is_there(path):
            raise OutputError(f"{path} is there already; add --overwrite to replace it, or choose another place")


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all.

    The content goes to a hidden file beside the target and is flushed to the disk; then it is renamed over the target
    and the folder is flushed, so that the rename outlives a power cut.

    Args:
        path: The file; its folder is made if need be.
        content: Text is written as UTF-8.

    Raises:
        OutputError: It cannot be written; what was at `path` is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    with open_whole(path, num_bytes=len(data)) as file:
        file.write(data)


@contextmanager
def open_whole(path: Path, *, num_bytes: int | None = None) -> Iterator[BinaryIO]:
    """`write_whole` for content that comes in parts: what is written in the `with` statement is there after it.

    Args:
        path: The file; its folder is made if need be.
        num_bytes: How many will be written, for the error; None if that is not known.

    Raises:
        OutputError: It cannot be written; as after any other error in the `with` statement, what was at `path` is
            untouched. Where the folder cannot be flushed at the end, the new file is there, and the message says so.
    """
    make_dir(path.parent)
    partial = partial_of(path)
    try:
        if path.exists() and not path.is_file():  # renaming would put a file where a device is
            raise OutputError(f"{path} is there and is no file; choose another name")
        with _opened_dir(path.parent) as folder:  # now, because an error behind the renaming would come too late
            with partial.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            try:
                _flush(folder)
            except OSError as error:
                raise OutputError(
                    f"{path} is written, but its folder cannot be flushed ({error.strerror}), so a power cut may lose "
                    "it: look after the disk"
                ) from error
    except OSError as error:
        remove_partials([path])
        raise cannot_write(path, error, num_bytes) from error
    except BaseException:
        remove_partials([path])
        raise


@contextmanager
def open_growing(path: Path) -> Iterator[BinaryIO]:
    """A file of content that is of use at any length: it has its name at once, and keeps it whatever comes.

    Args:
        path: The file, which is replaced; its folder is made if need be.

    Raises:
        OutputError: It cannot be written, or not to its end.
    """
    make_dir(path.parent)
    try:
        with path.open("w+b") as file:
            flush_dir(path.parent)
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{cannot_write(path, error)}; what was written until then is kept") from error


def partial_of(path: Path) -> Path:
    """Where a file is written before it is renamed to `path`."""
    name = f".{path.name}.partial"
    if len(os.fsencode(name)) > MOST_NAME_BYTES:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial"
    return path.with_name(name)


def remove_partials(paths: Iterable[Path]) -> None:
    """Remove what a process that was killed, or a disk that failed, left half written of some files, where possible."""
    for path in paths:
        with suppress(OSError):
            partial_of(path).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file that may not be there.

    Raises:
        OutputError: It cannot be removed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path} cannot be removed: {error.strerror}; remove it yourself") from error


def cannot_write(path: Path, error: OSError, num_bytes: int | None = None) -> OutputError:
    """What to raise where the system refuses to write a file: cause, bytes and next step in one line.

    Args:
        path: The file.
        error: What the system said.
        num_bytes: How many bytes the file has; None if that is not known.
    """
    room = "" if num_bytes is None else f"; it needs {num_bytes:,} bytes"
    with suppress(OSError):  # a disk that fails may not tell
        free = f"{shutil.disk_usage(path.parent).free:,}"
        room = f"{room} and {free} are free" if room else f"; {free} bytes are free"
    remedy = _REMEDIES.get(error.errno or 0, "choose another folder")
    return OutputError(f"{path} cannot be written: {error.strerror or error}{room}: {remedy}")


_REMEDIES = {
    errno.ENOSPC: "make room or choose another folder",
    errno.EDQUOT: "make room within your quota or choose another folder",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f) or choose another folder",
    errno.EACCES: "change its permissions or choose another folder",
    errno.EROFS: "make the disk writable or choose another folder",
    errno.EIO: "look after the disk or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def flush_dir(path: Path) -> None:
    """Bring a folder's entries to the disk."""
    with _opened_dir(path) as folder:
        _flush(folder)


@contextmanager
def _opened_dir(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        with suppress(OSError):  # nothing was written through it
            os.close(handle)


def _flush(folder: int) -> None:
    """Flush an open folder. Some network disks cannot, and say so; they keep their entries elsewhere."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
