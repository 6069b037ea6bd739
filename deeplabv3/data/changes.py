"""Whether the data set that a packed split was made from is still what it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

from deeplabv3.data.packed import PackedSplit, SourceFile
from deeplabv3.files import is_folder


def changed_files(split: PackedSplit) -> list[SourceFile]:
    """The files of the source that are not as they were when it was packed.

    None if the source is gone as a whole, or may not be looked at: who reads it need not be who packed it.
    A file of the same size and another time is read: to copy a data set changes times and nothing else.
    """
    try:
        if not is_folder(split.source):
            return []
    except PermissionError:
        return []
    return [file for frame in split.frames for file in frame.files if _has_changed(split.source / file.path, file)]


def _has_changed(path: Path, file: SourceFile) -> bool:
    try:
        status = path.stat()
        if status.st_size != file.num_bytes or status.st_mtime_ns == file.modified_ns:
            return status.st_size != file.num_bytes
        return hashlib.sha256(path.read_bytes()).hexdigest() != file.sha256
    except PermissionError:
        return False
    except OSError:
        return True
