"""What the files of a data set hold, decoded by all cores, and remembered until they change.

The memory is one JSON file a data set in the user's cache folder, `checks/<digits of the data set's path>.json`: of
each file its size, the time of its last change, and its `Facts`. It knows nothing of label sets, so one memory serves
all. A memory that is missing, damaged or made by other decoders costs time and changes nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import PIL

from deeplabv3.cores import given_or_cores
from deeplabv3.data.findings import Fault
from deeplabv3.data.looking import Facts, look_at, state_of
from deeplabv3.data.packed import packed_splits
from deeplabv3.errors import OutputError
from deeplabv3.files import cache_dir, write_whole

Told = Callable[[int, int], None]
"""Called with the number of files that are read and of those to be read."""

State = tuple[int, int]
"""Size in bytes and time of the last change in nanoseconds."""

_VERSION = 2
_FEW_BYTES = 8_000_000  # up to which starting processes takes longer than they save


def facts_of(
    data_dir: Path,
    kinds: Mapping[Path, str],
    num_workers: int | None = None,
    progress: Told | None = None,
    remembered: bool = False,
) -> tuple[dict[Path, Facts], int]:
    """What files hold.

    Args:
        data_dir: The data set; its path is the name of its memory.
        kinds: Each file and what it should be.
        num_workers: Processes that decode; None takes one for each core where that pays.
        progress: Told after each file.
        remembered: Believe the memory of files whose size and time are the same.

    Returns:
        The facts of each file, and how many files were decoded for them.
    """
    states = {path: state_of(path) for path in kinds}
    memory = _read_memory(data_dir) if remembered else {}
    facts: dict[Path, Facts] = {}
    wanted: list[tuple[Path, str]] = []
    num_bytes = 0
    for path, state in states.items():
        known = memory.get(_key(path, data_dir))
        if isinstance(state, Fault):
            facts[path] = Facts((state,))
        elif known and known[0] == [*state, kinds[path]]:
            facts[path] = Facts.from_list(known[1])
        else:
            wanted.append((path, kinds[path]))
            num_bytes += state[0]
    workers = given_or_cores(num_workers, pays=num_bytes > _FEW_BYTES)
    try:
        for done, ((path, _), found) in enumerate(zip(wanted, _looked_at(wanted, workers), strict=True), 1):
            facts[path] = found
            if progress is not None:
                progress(done, len(wanted))
    finally:  # after Ctrl-C, too: the next start goes on from there
        if wanted:
            _write_memory(data_dir, states, kinds, facts)
    return facts, len(wanted)


def _looked_at(items: Sequence[tuple[Path, str]], num_workers: int) -> Iterator[Facts]:
    """The facts of each file, in order."""
    if num_workers == 0:
        return map(look_at, items)
    from deeplabv3.data.loading import read_in_order  # imports torch, which takes longer than a few files

    return read_in_order(look_at, items, num_workers, itemgetter(0))


def memory_path(data_dir: Path) -> Path:
    """Where a data set's memory is."""
    digits = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return cache_dir() / "checks" / f"{digits}.json"


def forget(data_dir: Path) -> None:
    """Have every file looked at again: one was not what is remembered of it, with its size and time as they were."""
    with suppress(OutputError, OSError):  # a disk that fails may be why
        for folder in (data_dir, *(data_dir / split for split in packed_splits(data_dir))):
            memory_path(folder).unlink(missing_ok=True)


def _head(data_dir: Path) -> dict[str, Any]:
    """What must be the same for a memory to be believed."""
    return {"version": _VERSION, "pillow": PIL.__version__, "data_dir": str(data_dir.resolve())}


def _key(path: Path, data_dir: Path) -> str:
    return path.relative_to(data_dir).as_posix()


def _read_memory(data_dir: Path) -> dict[str, Any]:
    with suppress(OutputError, OSError, ValueError, AttributeError, TypeError, IndexError, KeyError):
        values = json.loads(memory_path(data_dir).read_bytes())
        if values.pop("digest") == _digest(values["files"]) and values.pop("head") == _head(data_dir):
            return dict(values["files"])
    return {}


def _digest(files: Mapping[str, Any]) -> str:
    """SHA-256 over a memory, so that a damaged one is not believed."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _write_memory(
    data_dir: Path, states: Mapping[Path, State | Fault], kinds: Mapping[Path, str], facts: Mapping[Path, Facts]
) -> None:
    files = {
        _key(path, data_dir): [[*state, kinds[path]], facts[path].to_list()]
        for path, state in states.items()
        # Rights change without the time of the last change.
        if path in facts
        and not isinstance(state, Fault)
        and not any(fault.reason == "unreadable" for fault in facts[path].faults)
    }
    looked_at = {_key(path, data_dir) for path in facts}
    others = {key: value for key, value in _read_memory(data_dir).items() if key not in looked_at}  # of other splits
    files = others | json.loads(json.dumps(files))  # as it will be read
    with suppress(OutputError, OSError, UnicodeError):
        text = json.dumps({"head": _head(data_dir), "digest": _digest(files), "files": files})
        write_whole(memory_path(data_dir), text)
