"""What a check remembers of files that do not change."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.packed import INDEX, packed_splits
from deeplabv3.data.remembering import forget, memory_path
from deeplabv3.errors import DatasetError
from tests.data.packs import pack
from tests.data.planting import DEFECTS
from tests.data.tree import Tree, refused


def test_unchanged_file_is_not_read_again(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True).num_read == 30
    DEFECTS["zero_bytes"](tree)
    DEFECTS["one_unknown_id"](tree)
    for number in (2, 0):
        findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True)
        assert findings.num_read <= number
        assert {(f.path.relative_to(tmp_path).as_posix(), f.reason) for f in findings.findings} == tree.expected
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES).num_read == 30


def test_changed_time_alone_is_looked_at(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    tree.found()
    path = tree.labels[tree.frames[0]]
    os.utime(path, ns=(1, 1))
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True).num_read == 1


@pytest.mark.parametrize("damage", ["cut", "text", "flip", "list"])
def test_damaged_memory_is_not_believed(tmp_path, rng, damage):
    tree = Tree(tmp_path, rng)
    tree.found()
    path = memory_path(tmp_path)
    content = path.read_text()
    changed = {"cut": content[:-9], "text": "{}", "flip": content.replace(", 24]", ", 25]", 1), "list": "[]"}[damage]
    assert changed != content
    path.write_text(changed)
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True)
    assert (findings.num_read, findings.findings) == (30, ())


def test_memory_that_cannot_be_written_only_costs_time(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path / "d", rng)
    (tmp_path / "file").touch()
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "file"))
    assert tree.found() == tree.found(remembered=True) == set()


def test_disk_that_fails_hinders_no_forgetting(tmp_path, monkeypatch):
    """A run that such a disk ends is told of the disk, and no other error takes its place."""
    monkeypatch.setattr(Path, "exists", Mock(side_effect=OSError(5, "Input/output error")))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / INDEX).touch()
    with pytest.raises(OSError, match="Input/output"):
        packed_splits(tmp_path)
    forget(tmp_path)


def test_user_without_a_home_checks_all_the_same(streets, tmp_path, rng, monkeypatch):
    """What is packed, too."""
    pack(streets, tmp_path / "packed", "val")
    for name in ("DEEPLABV3_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("Could not determine home directory.")))
    tree = Tree(tmp_path / "d", rng)
    assert tree.found() == tree.found(remembered=True) == set()
    assert check_dataset(tmp_path / "packed", ("val",), CITYSCAPES, remembered=True).findings == ()


def test_short_memory_is_not_remembered_of_a_file(tmp_path, rng, monkeypatch):
    """It ends the check instead, and the next one finds nothing wrong."""
    Tree(tmp_path, rng)
    with monkeypatch.context() as patch:
        patch.setattr("deeplabv3.data.images.as_shown", Mock(side_effect=MemoryError))
        with pytest.raises(DatasetError, match="it needs more memory than there is"):
            check_dataset(tmp_path, ("train",), CITYSCAPES, num_workers=0)
    assert not check_dataset(tmp_path, ("train",), CITYSCAPES, remembered=True).findings


def test_what_was_seen_before_an_interruption_is_remembered(tmp_path, rng):
    Tree(tmp_path, rng)

    def interrupt(done, _):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_dataset(tmp_path, ("train", "val"), CITYSCAPES, num_workers=0, remembered=True, progress=interrupt)
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, num_workers=0, remembered=True).num_read == 10


def test_one_split_is_remembered_while_another_is_checked(tmp_path, rng):
    Tree(tmp_path, rng)
    splits = ("train", "val")
    assert check_dataset(tmp_path, splits, CITYSCAPES).num_read > 0
    check_dataset(tmp_path, ("val",), CITYSCAPES)
    assert check_dataset(tmp_path, splits, CITYSCAPES, remembered=True).num_read == 0


def test_file_that_can_no_longer_be_read_is_forgotten(tmp_path, rng, monkeypatch):
    """Rights change without the time of the last change, so what was seen before must not be believed any more."""
    tree = Tree(tmp_path, rng)
    assert tree.found() == set()
    path = tree.labels[tree.frames[0]]
    with refused(monkeypatch, path):
        wanted = {(path.relative_to(tmp_path).as_posix(), "unreadable")}
        assert tree.found() == tree.found(remembered=True) == wanted
    assert check_dataset(tmp_path, ("train", "val"), CITYSCAPES, remembered=True).num_read == 1
