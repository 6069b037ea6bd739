"""A file is written whole or not at all, whatever becomes of the process and of the disk."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import Mock

import pytest

from deeplabv3.errors import InputError, OutputError
from deeplabv3.files import (
    cache_dir,
    cannot_write,
    make_dir,
    only_writer,
    open_growing,
    open_whole,
    partial_of,
    refuse_to_overwrite,
    remove,
    remove_partials,
    require_writable,
    write_whole,
)
from tests.disk import ERRORS, KILL, TEAR, Disk, in_child

OLD, NEW = b"old" * 20_000, b"new" * 30_000


class Place:
    """A folder with a file that is written anew, or in which nothing is yet."""

    def __init__(self, folder, is_there):
        self.folder, self.path, self.journal = folder / "disk", folder / "disk" / "run" / "last", folder / "calls"
        self.before = OLD if is_there else None
        self.folder.mkdir()
        if is_there:
            write_whole(self.path, OLD)

    def content(self):
        return self.path.read_bytes() if self.path.exists() else None

    def names(self):
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())

    def write(self, *fault, **options):
        """Write in a process of its own; how it ended and what it said."""

        def write():
            Disk(self.folder, self.journal, *fault, **options).install()
            write_whole(self.path, NEW)

        return in_child(write)

    def calls(self):
        return self.journal.read_text().splitlines()


@pytest.fixture
def places(tmp_path):
    """Makes such a folder for every trial."""

    def make(is_there):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return Place(folder, is_there)

    return make


def calls_of(places, is_there):
    place = places(is_there)
    assert place.write() == (0, "")
    assert place.content() == NEW
    return place.calls()


def test_file_is_flushed_before_it_is_renamed_and_its_folder_after(places):
    assert calls_of(places, False) == [
        *("mkdir run", "open .", "fsync .", "close ."),  # the folder outlives a power cut too
        *("open run", "open run/.last.partial", "write run/.last.partial", "fsync run/.last.partial"),
        *("close run/.last.partial", "rename run/last", "fsync run", "close run"),
    ]


@pytest.mark.parametrize("is_there", [True, False])
def test_killed_at_any_call_leaves_the_old_file_or_the_new_one(places, is_there):
    seen: Counter[object] = Counter()
    calls = calls_of(places, is_there)
    for which, call in enumerate(calls, 1):
        for fault in (KILL, TEAR) if call.startswith("write") else (KILL,):
            place = places(is_there)
            assert place.write(which, fault) == (-9, "")
            assert len(place.calls()) == which
            assert place.content() in (place.before, NEW), call
            seen[place.content() == NEW] += 1
            write_whole(place.path, NEW)  # nothing that is left behind is in its way
            assert place.content() == NEW
            assert place.names() == ["last"]
    assert min(seen.values()) >= 2


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(("name", "lasting"), [*[(name, False) for name in ERRORS], ("ENOSPC", True), ("EIO", True)])
def test_error_at_any_call_is_one_line_and_leaves_the_old_file(places, is_there, name, lasting):
    number = getattr(errno, name)
    seen: Counter[object] = Counter()
    for which, call in enumerate(calls_of(places, is_there), 1):
        place = places(is_there)
        code, said = place.write(which, number, lasting=lasting)
        if code == 0:  # what fails does not matter
            kind, content = "harmless", NEW
            assert call.startswith("close") or (is_there and call.startswith("mkdir"))
        else:
            assert said.startswith("OutputError: ")
            assert os.strerror(number) in said
            assert "\n" not in said
            kind = next(words for words in ("cannot be made", "is written, but", "cannot be written") if words in said)
            content = NEW if kind == "is written, but" else place.before
            folder = place.path.parent if kind == "cannot be made" else place.path
            assert str(folder) in said
            if kind == "cannot be written":
                assert "it needs 90,000 bytes and " in said
        seen[kind] += 1
        assert place.content() == content, call
        if not lasting:
            assert not any("partial" in name for name in place.names()), call
        write_whole(place.path, NEW)
        assert place.content() == NEW
        assert place.names() == ["last"]
    assert seen["cannot be written"] >= 5
    assert seen["is written, but"] == 1


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_disk_that_cannot_flush_folders_is_written_to(places, number):
    place = places(True)
    which = calls_of(places, True).index("fsync run") + 1
    assert place.write(which, number) == (0, "")
    assert place.content() == NEW


def test_error_is_told_where_the_disk_does_not_say_what_is_free(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    partial_of(tmp_path / "last").mkdir()
    with pytest.raises(OutputError, match=r"last cannot be written: Is a directory; it needs 3 bytes: choose another"):
        write_whole(tmp_path / "last", b"new")


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt, ValueError])
def test_error_while_a_file_is_made_leaves_the_old_one(tmp_path, error):
    write_whole(tmp_path / "last", OLD)

    def write():
        with open_whole(tmp_path / "last") as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert (tmp_path / "last").read_bytes() == OLD


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            OutputError,
            r"last cannot be written: No space .*; .* is kept",
        ),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_file_that_grows_is_there_at_once_and_stays(tmp_path, error, raised, said):
    def write():
        with open_growing(tmp_path / "new folder" / "last") as file:
            file.write(NEW)
            file.flush()
            assert (tmp_path / "new folder" / "last").read_bytes() == NEW
            raise error

    with pytest.raises(raised, match=said):
        write()
    assert (tmp_path / "new folder" / "last").read_bytes() == NEW


def test_only_own_leftovers_are_removed(tmp_path):
    for name in (".last.partial", ".other.partial", "last", "last.partial"):
        (tmp_path / name).write_text("mine")
    remove_partials([tmp_path / "last", tmp_path / "none"])
    assert partial_of(tmp_path / "last") == tmp_path / ".last.partial"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.partial", "last", "last.partial"]


def test_device_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "last")
    with pytest.raises(OutputError, match="last is there and is no file; choose another name"):
        write_whole(tmp_path / "last", NEW)
    assert (tmp_path / "last").is_fifo()
    assert len(list(tmp_path.iterdir())) == 1


# What the system itself refuses.


def refused(path, number, before=lambda: None):
    """What is said where a file cannot be written in a process of its own, and the old one is as it was."""

    def write():
        before()
        write_whole(path, NEW)

    old = path.read_bytes()
    code, said = in_child(write)
    assert code == 1
    assert said.startswith(f"OutputError: {path} cannot be written: {os.strerror(number)}; it needs 90,000 bytes and ")
    assert "\n" not in said
    assert path.read_bytes() == old
    assert not partial_of(path).exists()
    return said


def test_limit_of_a_files_size(tmp_path):
    write_whole(tmp_path / "last", OLD)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    said = refused(tmp_path / "last", errno.EFBIG, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard)))
    assert said.endswith("raise the limit of a file's size (ulimit -f) or choose another folder")


def test_full_device(tmp_path):
    write_whole(tmp_path / "last", OLD)
    partial_of(tmp_path / "last").symlink_to("/dev/full")
    assert refused(tmp_path / "last", errno.ENOSPC).endswith("make room or choose another folder")


@pytest.fixture
def small_disk(tmp_path):
    """150,000 bytes in memory, which one of the two files fills for more than a half."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=147456", "tmpfs", folder]).returncode:
        pytest.skip("only root may mount a disk, and not everywhere")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(small_disk):
    path = small_disk / "last"
    write_whole(path, OLD)
    assert "it needs 90,000 bytes and 86,016 are free: make room" in refused(path, errno.ENOSPC)
    path.with_name("other").write_bytes(b"")
    subprocess.run(["mount", "-o", "remount,size=294912", small_disk], check=True)
    write_whole(path, NEW)
    assert path.read_bytes() == NEW


def test_read_only_disk(small_disk):
    path = small_disk / "last"
    write_whole(path, OLD)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(path, errno.EROFS)
    with pytest.raises(OutputError, match="is read-only"):
        require_writable(small_disk)


@pytest.fixture
def closed_folder():
    """A folder that this process may read and not write, with a file; and what makes a process one that may not."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "closed"
        write_whole(folder / "last", OLD)
        for path, mode in ((Path(place), 0o755), (folder, 0o555)):
            path.chmod(mode)
        yield folder, (lambda: os.setuid(65534)) if os.geteuid() == 0 else lambda: None
        folder.chmod(0o755)


def test_folder_without_write_permission(closed_folder):
    folder, as_another = closed_folder
    assert refused(folder / "last", errno.EACCES, as_another).endswith(
        "change its permissions or choose another folder"
    )


def test_folder_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "stat", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(OutputError, match=f"^the folder {tmp_path} cannot be written: Permission denied; choose"):
        require_writable(tmp_path)


def test_folder_that_cannot_be_made_is_one_line(closed_folder):
    folder, as_another = closed_folder

    def make():
        as_another()
        make_dir(folder / "new" / "run")

    code, said = in_child(make)
    assert code == 1
    assert said == f"OutputError: the folder {folder}/new/run cannot be made: Permission denied; choose another one"


@pytest.mark.parametrize(
    ("own", "shared", "wanted"), [("/c", "/x", "/c"), ("", "/x", "/x/deeplabv3"), ("", "", "~/.cache/deeplabv3")]
)
def test_cache_is_where_the_user_says(monkeypatch, own, shared, wanted):
    monkeypatch.setenv("DEEPLABV3_CACHE", own)
    monkeypatch.setenv("XDG_CACHE_HOME", shared)
    assert cache_dir() == Path(wanted).expanduser()


def test_user_without_a_home_is_told(monkeypatch):
    for name in ("DEEPLABV3_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    with pytest.raises(OutputError, match="has no home folder to keep files in; set DEEPLABV3_CACHE to a folder"):
        cache_dir()


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "b").touch()
    refuse_to_overwrite([tmp_path / "a"])
    with pytest.raises(OutputError, match="b is there already; add --overwrite to replace it, or choose another place"):
        refuse_to_overwrite([tmp_path / "a", tmp_path / "b"])


def test_file_is_removed_whether_it_is_there_or_not(tmp_path):
    (tmp_path / "a").touch()
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"cannot be removed: (Is a directory|Operation not permitted); remove it"):
        remove(tmp_path)
    remove_partials([tmp_path / "none"])


def test_error_without_a_number_is_told(tmp_path):
    message = str(cannot_write(tmp_path / "a", OSError("the disk is gone")))
    assert "cannot be written: the disk is gone; " in message
    assert message.endswith(" are free: choose another folder")


@pytest.mark.parametrize("is_shared", [False, True])
def test_process_that_is_killed_holds_a_folder_no_longer(tmp_path, is_shared):
    """A process that it forked, and that lives on, does so only where both write."""
    source, target = os.pipe()
    holder = os.fork()
    if not holder:
        with only_writer(tmp_path, is_shared=is_shared):
            forked = os.fork()
            os.write(target, f"{os.getpid()} {forked}\n".encode())
            signal.pause()
    os.close(target)
    with os.fdopen(source) as pipe:
        forked = next(int(line.split()[1]) for line in (pipe.readline(), pipe.readline()) if int(line.split()[1]))
    try:
        with pytest.raises(InputError, match=f"another process writes into {tmp_path}; wait for it"):
            only_writer(tmp_path).__enter__()
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        with pytest.raises(InputError) if is_shared else nullcontext(), only_writer(tmp_path):
            pass
    finally:
        os.kill(forked, signal.SIGKILL)


def test_process_that_was_forked_closes_no_handle_of_its_own_for_a_folder(tmp_path):
    def leave():
        with only_writer(tmp_path):
            child = os.fork()
            if not child:
                other = os.open(tmp_path, os.O_RDONLY)  # gets the number that the lock had
        if not child:
            os.fstat(other)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    assert in_child(leave) == (0, "")


def test_folder_that_cannot_be_opened_is_not_held(tmp_path):
    with pytest.raises(OutputError, match=r"gone cannot be written: No such file or directory"):
        only_writer(tmp_path / "gone").__enter__()
