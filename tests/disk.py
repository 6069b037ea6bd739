"""A disk that fails: calls that change files are counted, and one of them goes wrong in a process of its own."""

import io
import os
import signal
from pathlib import Path

KILL, TEAR = "kill", "tear"
ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "EDQUOT", "EFBIG")


def in_child(run):
    """Fork, call a function, and tell how the process ended and what it raised."""
    source, target = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            run()
            code = 0
        except BaseException as error:
            os.write(target, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(code)
    os.close(target)
    with os.fdopen(source) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


class Disk:
    """What a process does to the files of a folder; `install` it in a child alone, since it is never taken off.

    Args:
        folder: Only what happens to files in it, and to itself, counts.
        journal: A file for a line a call, written before it is made: its name and the file's.
        which: The call that goes wrong, from 1; 0 for none.
        fault: "kill" ends the process before the call, "tear" in the middle of a write; a number is what the call
            fails with, a write behind half of its bytes.
        lasting: Whether all calls after it fail too.
    """

    def __init__(self, folder, journal, which=0, fault=KILL, *, lasting=False):
        self.folder, self.which, self.fault, self.lasting, self.count = str(folder), which, fault, lasting, 0
        self.process = os.getpid()  # processes that it forks do not count
        self.journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def install(self):
        for owner, name, call in (
            (Path, "mkdir", "mkdir"),
            (Path, "replace", "rename"),
            (Path, "unlink", "unlink"),
            (os, "open", "open"),
            (os, "fsync", "fsync"),
            (os, "close", "close"),
            (os, "truncate", "truncate"),
        ):
            setattr(owner, name, self.counted(call, getattr(owner, name)))
        really_open, disk = Path.open, self

        def opened(path, mode="r", *arguments, **options):
            if not disk.has(path) or "b" not in mode or mode == "rb":
                return really_open(path, mode, *arguments, **options)
            disk.about_to("open", path)
            return (io.BufferedRandom if "+" in mode else io.BufferedWriter)(File(disk, path, mode.replace("b", "")))

        setattr(Path, "open", opened)  # noqa: B010
        return self

    def counted(self, call, real):
        def replaced(place, *arguments, **options):
            path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else place
            if self.has(path):
                self.about_to(call, arguments[0] if call == "rename" else path)
            return real(place, *arguments, **options)

        return replaced

    def has(self, path):
        return f"{path}/".startswith(f"{self.folder}/") and os.getpid() == self.process

    def about_to(self, call, path, half=None):
        """Count a call, and do what is to go wrong with it; `half` makes a half of it."""
        self.count += 1
        os.write(self.journal, f"{call} {os.path.relpath(path, self.folder)}\n".encode())
        if self.count == self.which or (self.lasting and self.count > self.which > 0):
            if half and self.fault != KILL:
                half()
            if self.fault in (KILL, TEAR):
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(self.fault, os.strerror(self.fault))


class File(io.FileIO):
    """A file whose writing and closing count."""

    def __init__(self, disk, path, mode):
        super().__init__(path, mode)
        self.disk, self.path = disk, path

    def write(self, data):
        self.disk.about_to("write", self.path, lambda: super(File, self).write(bytes(data)[: len(data) // 2]))
        return super().write(data)

    def close(self):
        was_closed = self.closed
        super().close()
        if not was_closed:
            self.disk.about_to("close", self.path)
