"""Packing: the same samples, nothing lost, nothing overwritten."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.cli import main
from deeplabv3.data import packing
from deeplabv3.data.cityscapes import find_labelled, find_samples
from deeplabv3.data.frames import read_frame, read_sample
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import train_batches
from deeplabv3.data.packed import INDEX, packed_splits, read_index
from deeplabv3.data.packing import JOURNAL, pack_split
from deeplabv3.data.unpacking import unpack_split
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.files import only_writer
from tests.conftest import REPOSITORY, write_frame
from tests.data.packs import pack, reasons


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_batches_are_those_of_the_plain_data(streets, packed, train_config, workers):
    config = replace(train_config, num_workers=workers)
    plain, flat = (
        list(train_batches(find_samples(data_dir, "train"), CITYSCAPES, config, range(1)))
        for data_dir in (streets, packed)
    )
    assert len(plain) == len(flat) == 2
    for one, other in zip(plain, flat, strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label)
        assert one.names == other.names


def test_whole_frames_are_those_of_the_plain_data(streets, packed):
    pairs = zip(find_samples(streets, "val"), find_samples(packed, "val"), strict=True)
    for one, other in ([read_frame(sample, CITYSCAPES, instances=True) for sample in pair] for pair in pairs):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.label_ids, other.label_ids)
        np.testing.assert_array_equal(one.instance_ids, other.instance_ids)


def test_frames_of_any_size_and_format(tmp_path, rng):
    for number, (size, suffix) in enumerate(
        [((1, 1), ".png"), ((7, 300), ".png"), ((64, 5), ".webp"), ((3, 3), ".bmp")]
    ):
        image = rng.integers(0, 256, (*size, 3), dtype="uint8")
        path = write_frame(tmp_path / "data", f"a_000000_00000{number}", image, np.full(size, 7, np.uint8))
        path.unlink()
        Image.fromarray(image).save(path.with_suffix(suffix))
    pack(tmp_path / "data", tmp_path / "packed")
    found = [find_samples(tmp_path / name, "train") for name in ("data", "packed")]
    for one, other in zip(*found, strict=True):
        for plain, flat in zip(read_sample(one, CITYSCAPES), read_sample(other, CITYSCAPES), strict=True):
            np.testing.assert_array_equal(plain, flat)


def test_unpacked_is_what_was_packed(streets, packed, tmp_path):
    for split in ("train", "val"):
        unpack_split(read_index(packed / split), tmp_path, num_workers=0)
    wanted = [path for path in sorted(streets.rglob("*.png")) if not path.stem.endswith("color")]
    found = sorted(tmp_path.rglob("*.png"))
    assert [path.relative_to(tmp_path) for path in found] == [path.relative_to(streets) for path in wanted]
    for one, other in zip(wanted, found, strict=True):
        if "gtFine" in one.name:
            assert one.read_bytes() == other.read_bytes()
        else:
            np.testing.assert_array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(other)))


def test_unpacking_goes_on_and_overwrites_nothing(packed, tmp_path):
    split = read_index(packed / "val")
    unpack_split(split, tmp_path, num_workers=0)
    first, *_, last = sorted(tmp_path.rglob("*.png"))
    first.unlink()
    unpack_split(split, tmp_path, num_workers=0)
    assert first.exists()
    last.write_bytes(first.read_bytes())
    with pytest.raises(OutputError, match="is there already and holds something else"):
        unpack_split(split, tmp_path, num_workers=0)


@pytest.mark.parametrize("name", ["leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", "gtFine/val/ulm/u_gtFine_labelIds.png"])
def test_data_sets_are_not_mixed_by_unpacking(packed, tmp_path, capsys, name):
    other = tmp_path / name
    other.parent.mkdir(parents=True)
    other.touch()
    assert main(["unpack", str(packed), str(tmp_path)]) == 2
    assert f"{other} is there already, of another data set; choose a folder" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_packing_again_does_nothing(copy):
    data, out = copy
    assert pack(data, out)
    before = (out / "train" / INDEX).stat().st_mtime_ns
    assert not pack(data, out)
    assert (out / "train" / INDEX).stat().st_mtime_ns == before


def test_changed_source_is_packed_again_on_request_only(copy):
    data, out = copy
    pack(data, out)
    image = find_samples(data, "train")[0].image_path
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(image)
    with pytest.raises(OutputError, match=f"packed before .*{image.name} has changed; add --overwrite"):
        pack(data, out)
    assert pack(data, out, overwrite=True)
    assert not read_sample(find_samples(out, "train")[0], CITYSCAPES)[0].any()
    assert [path.name for path in out.iterdir()] == ["train"]


def test_other_frames_labels_or_things_are_not_replaced(copy, streets):
    data, out = copy
    pack(data, out)
    samples = find_labelled(data, "train")
    with pytest.raises(OutputError, match="packed from 6 frames, and there are 5 now"):
        pack_split(data, out, "train", samples[1:], CITYSCAPES)
    with pytest.raises(OutputError, match="packed with another label set, cityscapes"):
        pack(data, out, label_set=CITYSCAPES.without(["car"]))
    with pytest.raises(OutputError, match="packed from "):
        pack(streets, out)
    instances = samples[0].instance_path
    with pytest.raises(OutputError, match=f"packed before {instances} went; add --overwrite"):
        pack_split(data, out, "train", [replace(samples[0], instance_path=None), *samples[1:]], CITYSCAPES)
    (out / "val").mkdir()
    with pytest.raises(OutputError, match="is there already and is no packed split"):
        pack(data, out, "val")


@pytest.fixture
def interrupted(copy, monkeypatch):
    """A packing that was interrupted after three frames, each of them flushed."""
    data, out = copy
    real = packing.pack_frame
    names: list[str] = []

    def pack_frame(frame, **options):
        if len(names) == 3:
            raise KeyboardInterrupt
        names.append(frame.name)
        return real(frame, **options)

    monkeypatch.setattr(packing, "_FRAMES_A_FLUSH", 2)
    with monkeypatch.context() as patch:
        patch.setattr(packing, "pack_frame", pack_frame)
        with pytest.raises(KeyboardInterrupt):
            pack(data, out)
    assert packed_splits(out) == ()
    return data, out


def test_interrupted_packing_goes_on(interrupted):
    data, out = interrupted
    with (out / ".train.partial" / JOURNAL).open("a") as journal:
        journal.write('{"name": "cut o')
    told: list[int] = []
    pack(data, out, progress=told.append, skipped=told.append)
    assert told == [3, 1, 1, 1]
    assert damaged(out) == []
    assert [path.name for path in out.iterdir()] == ["train"]
    assert not (out / "train" / JOURNAL).exists()


def damaged(out):
    return [pair for pair in reasons(out) if pair[0] != "missing-split"]


def test_interrupted_packing_of_what_changed_begins_anew(interrupted):
    data, out = interrupted
    os.utime(find_samples(data, "train")[0].image_path, (0, 0))
    told: list[int] = []
    pack(data, out, progress=told.append, skipped=told.append)
    assert told == [0, *[1] * 6]


def test_killed_packing_goes_on(copy):
    data, out = copy
    code = (
        "import os, signal, sys\n"
        "from deeplabv3.data import packing\n"
        "packing._FRAMES_A_FLUSH = 1\n"
        "real, done = packing.pack_frame, []\n"
        "def pack_frame(frame, **options):\n"
        "    if len(done) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(frame)\n"
        "    return real(frame, **options)\n"
        "packing.pack_frame = pack_frame\n"
        "from deeplabv3.cli import main\n"
        f"main(['pack', {str(data)!r}, {str(out)!r}, '--num-workers', '0'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False, capture_output=True)
    assert ended.returncode == -signal.SIGKILL
    assert packed_splits(out) == ()
    told: list[int] = []
    pack(data, out, progress=told.append, skipped=told.append)
    assert told == [2, 1, 1, 1, 1]
    assert damaged(out) == []


def test_packing_that_is_killed_at_any_change_of_the_disk_goes_on(replaced, tmp_path):
    """A process is killed before its first change, another one before its second, until one comes to its end."""
    data, before = replaced
    for number in count(1):
        out = tmp_path / str(number)
        shutil.copytree(before, out)
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                sys.addaudithook(killer(number))
                pack(data, out, overwrite=True)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            pack(data, out)
        except OutputError:  # the earlier one is still there, whole
            pack(data, out, overwrite=True)
        assert [path.name for path in out.iterdir()] == ["train"]
        assert {path.name for path in (out / "train").iterdir()} == {INDEX, "images.bin", "labels.bin", "files.bin"}
        assert damaged(out) == []
        assert not read_sample(find_samples(out, "train")[0], CITYSCAPES)[0].any()
        if code == 0:
            break
    assert number > 30


@pytest.fixture
def replaced(copy):
    """A data set of two frames that was packed, and of which one is another since."""
    data, out = copy
    for sample in find_samples(data, "train")[2:]:
        sample.image_path.unlink()
        sample.label_path.unlink()
    pack(data, out)
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(find_samples(data, "train")[0].image_path)
    return data, out


def killer(number):
    """An audit hook that kills its process before the n-th change of the disk."""
    seen = []

    def hook(event, arguments):
        if "pym-" in str(arguments[:1]):  # memory that Python shares, which would be left behind
            return
        is_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if is_writing or event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"):
            seen.append(event)
            if len(seen) == number:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


@pytest.mark.parametrize("name", ["thesis/chapter.txt", "index.json/a", "more.bin"])
def test_what_packing_did_not_write_is_not_removed(copy, name):
    data, out = copy
    if name == "more.bin":
        pack(data, out)
    path = out / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("precious")
    with pytest.raises(OutputError, match="is no packed split|is nothing that packing wrote"):
        pack(data, out, overwrite=True)
    assert path.read_text() == "precious"


def test_damaged_split_can_be_replaced(copy):
    data, out = copy
    pack(data, out)
    (out / "train" / INDEX).write_text("{")
    (out / "train" / "images.bin").unlink()
    pack(data, out, overwrite=True)
    assert damaged(out) == []


@pytest.mark.parametrize("which", range(1, 9))
def test_flush_that_fails_once_loses_no_frame(copy, monkeypatch, which):
    """The system tells of a failed write once; the next flush succeeds, whatever was lost."""
    data, out = copy
    calls, really = [], os.fsync

    def fsync(handle):
        calls.append(handle)
        if len(calls) == which:
            raise OSError(errno.EIO, "Input/output error")
        really(handle)

    monkeypatch.setattr(packing, "_FRAMES_A_FLUSH", 2)
    monkeypatch.setattr(os, "fsync", fsync)
    with suppress(OutputError):
        pack(data, out)
    pack(data, out)
    names = [frame.name for frame in read_index(out / "train").frames]
    assert names == [sample.name for sample in find_samples(data, "train")]
    assert damaged(out) == []


def test_journal_that_has_a_frame_twice_is_gone_on_with_before_it(interrupted):
    data, out = interrupted
    journal = out / ".train.partial" / JOURNAL
    plan, one, two, _ = journal.read_text().splitlines(keepends=True)
    journal.write_text(plan + one + one + two)
    told: list[int] = []
    pack(data, out, skipped=told.append)
    assert told == [1]
    assert damaged(out) == []


@pytest.mark.parametrize("change", [lambda _: None, Path.unlink, lambda path: path.write_bytes(b"other")])
def test_original_that_is_there_is_left_alone(tmp_path, rng, change):
    """A PNG beside it would be the same frame twice; one that is gone is made as a PNG."""
    pixels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path = write_frame(tmp_path / "plain", "a_000000_000000", pixels, np.full((4, 6), 7, np.uint8))
    jpeg = path.with_suffix(".jpg")
    Image.fromarray(pixels).save(jpeg)
    path.unlink()
    pack(tmp_path / "plain", tmp_path / "packed")
    change(jpeg)
    split = read_index(tmp_path / "packed" / "train")
    if jpeg.exists() and jpeg.read_bytes() == b"other":
        with pytest.raises(OutputError, match=r"\.jpg is there already and holds something else"):
            unpack_split(split, tmp_path / "plain", num_workers=0)
    else:
        is_gone = not jpeg.exists()
        unpack_split(split, tmp_path / "plain", num_workers=0)
        assert path.exists() == is_gone
    assert len(list(path.parent.iterdir())) == 1


def test_two_processes_do_not_pack_into_one_folder(copy):
    data, out = copy
    out.mkdir()
    with only_writer(out), pytest.raises(InputError, match="another process writes into .*; wait for it"):
        pack(data, out)
    assert pack(data, out)


def test_file_system_without_large_files_is_told(copy):
    data, out = copy
    code = f"import sys\nfrom deeplabv3.cli import main\nsys.exit(main(['pack', {str(data)!r}, {str(out)!r}]))"
    limited = ["bash", "-c", 'ulimit -f 50; exec "$@"', "bash", sys.executable, "-c", code]
    ended = subprocess.run(limited, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "(ulimit -f) or choose another folder; the same command goes on in this one" in ended.stderr


def test_file_that_changes_while_it_is_packed_is_named(copy):
    data, out = copy
    samples = find_labelled(data, "train")
    planned = packing._planned(data, samples)
    os.utime(samples[0].label_path, (0, 0))
    with pytest.raises(DatasetError, match=f"{samples[0].label_path} changed while the data set was packed"):
        packing.pack_frame(planned[0], data, out, CITYSCAPES)


def test_picture_that_turns_out_to_be_of_another_size_is_told(tmp_path, rng, monkeypatch):
    """As where its orientation stands behind its pixels: it must not be written over another frame's."""
    image = rng.integers(0, 256, (7, 300, 3), dtype="uint8")
    write_frame(tmp_path / "data", "a_000000_000000", image, np.full((7, 300), 7, np.uint8))
    monkeypatch.setattr(packing, "image_size", lambda _: (300, 7))
    with pytest.raises(DatasetError, match="a_000000_000000_leftImg8bit.png is 7x300 and was taken for 300x7 "):
        pack(tmp_path / "data", tmp_path / "packed")
    assert not (tmp_path / "packed/train").exists()


def test_file_that_changes_while_it_is_read_is_told(copy, monkeypatch):
    """To other content of the same length."""
    data, out = copy
    path, whole = find_samples(data, "train")[1].label_path, Path.read_bytes

    def read(self):
        content = whole(self)
        if self == path:
            os.utime(self, ns=(0, 0))
        return content

    monkeypatch.setattr(Path, "read_bytes", read)
    with pytest.raises(DatasetError, match="changed while the data set was packed; start again with the same command"):
        pack(data, out)
