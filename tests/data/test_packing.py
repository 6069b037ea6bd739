"""Packed splits: the same samples, nothing lost, nothing overwritten."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import reduce
from itertools import count, product
from operator import getitem
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.cli import main
from deeplabv3.config import CheckConfig, InferenceConfig, ReportConfig
from deeplabv3.data import packed as packed_format
from deeplabv3.data import packing
from deeplabv3.data.changes import changed_files
from deeplabv3.data.cityscapes import find_labelled, find_samples
from deeplabv3.data.frames import label_set_of, read_frame, read_sample, train_id_table
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.loading import train_batches
from deeplabv3.data.packed import INDEX, packed_splits, read_index
from deeplabv3.data.packing import JOURNAL, pack_split
from deeplabv3.data.unpacking import unpack_split
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.files import only_writer
from deeplabv3.report.defects import checked
from deeplabv3.report.writing import write_report
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from tests.conftest import REPOSITORY, write_frame


def pack(data_dir, out, split="train", label_set=CITYSCAPES, **options):
    samples = find_labelled(data_dir, split)
    return pack_split(data_dir, out, split, samples, label_set, num_workers=0, **options)


@pytest.fixture(scope="session")
def packed(streets, tmp_path_factory):
    """The tiny data set, packed; read only."""
    out = tmp_path_factory.mktemp("packed") / "streets"
    for split in ("train", "val"):
        pack(streets, out, split)
    return out


@pytest.fixture
def copy(streets, tmp_path):
    """A data set that a test may change, and where it is packed to."""
    shutil.copytree(streets, tmp_path / "data")
    return tmp_path / "data", tmp_path / "packed"


def reasons(data_dir, remembered=False):
    findings = checked(CheckConfig(data_dir=data_dir), label_set_of(data_dir, None), remembered=remembered)
    return [(finding.reason, finding.path.name) for finding in findings.findings]


def damage(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


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
    pack(data, out, progress=told.append)
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
    pack(data, out, progress=told.append)
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
    pack(data, out, progress=told.append)
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


def test_two_processes_do_not_pack_into_one_folder(copy):
    data, out = copy
    out.mkdir()
    with only_writer(out), pytest.raises(OutputError, match="another process writes into .*; wait for it"):
        pack(data, out)
    assert pack(data, out)


def test_file_system_without_large_files_is_told(copy):
    data, out = copy
    code = f"import sys\nfrom deeplabv3.cli import main\nsys.exit(main(['pack', {str(data)!r}, {str(out)!r}]))"
    limited = ["bash", "-c", 'ulimit -f 50; exec "$@"', "bash", sys.executable, "-c", code]
    ended = subprocess.run(limited, cwd=REPOSITORY, check=False, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "images.bin cannot be written: File too large; mend that and go on" in ended.stderr


def test_file_that_changes_while_it_is_packed_is_named(copy):
    data, out = copy
    samples = find_labelled(data, "train")
    planned = packing._planned(data, samples)
    os.utime(samples[0].label_path, (0, 0))
    with pytest.raises(DatasetError, match=f"{samples[0].label_path} changed while the data set was packed"):
        packing.pack_frame(planned[0], data, out, CITYSCAPES)


@pytest.mark.parametrize("name", ["images.bin", "labels.bin", "files.bin"])
def test_flipped_bit_is_found_and_named(packed, tmp_path, name):
    shutil.copytree(packed, tmp_path / "packed")
    assert reasons(tmp_path / "packed") == []
    damage(tmp_path / "packed" / "val" / name, -5)
    (reason, path) = reasons(tmp_path / "packed", remembered=True)[0]
    last = find_samples(packed, "val")[-1].name
    endings = {"images.bin": "leftImg8bit", "labels.bin": "gtFine_labelIds", "files.bin": "gtFine_instanceIds"}
    assert (reason, path) == ("checksum", f"{last}_{endings[name]}.png")


def test_damaged_index_or_short_file_is_one_line(packed, tmp_path):
    shutil.copytree(packed, tmp_path / "packed")
    index = tmp_path / "packed" / "val" / INDEX
    whole = index.read_bytes()
    for content in (whole[:-9], b"", b"[]", whole.replace(b'"height": 64', b'"height": 65', 1), b'{"format": "x"}'):
        index.write_bytes(content)
        with pytest.raises(DatasetError, match="is no sound index .*; pack the data set again"):
            read_index(index.parent)
    index.write_bytes(whole.replace(b'"version": 1', b'"version": 9'))
    with pytest.raises(DatasetError, match="has version 9 and this program reads 1"):
        read_index(index.parent)
    index.write_bytes(whole)
    flat = index.with_name("labels.bin")
    flat.write_bytes(flat.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="labels.bin has 18,431 bytes and its index says 18,432"):
        read_index(index.parent)


def test_path_out_of_the_data_set_is_refused(packed, tmp_path):
    split = read_index(packed / "val")
    bad = replace(split.frames[0], label=replace(split.frames[0].label, path="../../etc/passwd"))
    (tmp_path / INDEX).write_text(replace(split, frames=(bad,)).to_json())
    with pytest.raises(DatasetError, match="leads out of the data set"):
        read_index(tmp_path)


ODD_VALUES: tuple[object, ...] = (None, -1, 2**70, 1.5, True, "", "x", "a\0b", [], {}, [[300, 1]], [[0, -1]])


def leaves(values, path=()):
    """The places of all values in some JSON, those of its first frame alone."""
    items = values.items() if isinstance(values, dict) else enumerate(values[:1]) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def test_odd_values_with_a_right_checksum_are_refused_or_harmless(packed, tmp_path):
    shutil.copytree(packed / "val", tmp_path / "val")
    index = tmp_path / "val" / INDEX
    whole = json.loads(index.read_text())
    del whole["digest"]
    places = [place for place in leaves(whole) if place[0] != "labels"]
    refused = []
    for place, odd in product(places, ODD_VALUES):
        values = json.loads(json.dumps(whole))
        parent = reduce(getitem, place[:-1], values)
        parent[place[-1]] = odd
        index.write_text(json.dumps({**values, "digest": packed_format._digest(values)}))
        try:
            reasons(tmp_path)
            unpack_split(read_index(index.parent), tmp_path / "out", num_workers=0)
        except InputError as error:
            refused.append(str(error))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert not any("\n" in message for message in refused)
    assert len(refused) > 0.9 * len(places) * len(ODD_VALUES)


def test_frames_outside_their_file_are_refused(packed, tmp_path):
    shutil.copytree(packed / "val", tmp_path / "val")
    split = read_index(packed / "val")
    last = split.frames[-1]
    for bad in (
        replace(last, offset=last.offset + 1),
        replace(last, height=last.height + 1),
        replace(last, label=replace(last.label, offset=split.num_bytes["files.bin"])),
    ):
        (tmp_path / "val" / INDEX).write_text(replace(split, frames=(bad,)).to_json())
        with pytest.raises(DatasetError, match="is no sound index .* and not a whole number of"):
            read_index(tmp_path / "val")


@pytest.mark.parametrize("name", ["images.bin", "labels.bin"])
def test_file_that_is_replaced_while_it_is_read_is_told(packed, tmp_path, name):
    shutil.copytree(packed, tmp_path / "packed")
    sample, *_ = find_samples(tmp_path / "packed", "val")
    read_sample(sample, CITYSCAPES)
    path = tmp_path / "packed" / "val" / name
    shutil.copy(path, tmp_path / "other")
    (tmp_path / "other").rename(path)
    with pytest.raises(DatasetError, match=f"{path} has changed since its index was read"):
        read_sample(sample, CITYSCAPES)


def test_other_index_makes_no_packed_data_set(streets, tmp_path):
    shutil.copytree(streets, tmp_path / "data")
    (tmp_path / "data" / "notes").mkdir()
    (tmp_path / "data" / "notes" / INDEX).write_text("{}")
    assert packed_splits(tmp_path / "data") == ()
    assert reasons(tmp_path / "data") == []


@pytest.mark.parametrize("what", ["is_dir", "stat"])
def test_source_that_may_not_be_looked_at_is_no_change(packed, monkeypatch, what):
    split = read_index(packed / "val")
    real = getattr(Path, what)

    def refused(path, **options):
        if path.is_relative_to(split.source):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    monkeypatch.setattr(Path, what, refused)
    assert changed_files(split) == []


def test_train_ids_mean_what_they_mean_in_the_label_set(streets, tmp_path):
    """Files of trainIds, packed by one label set and read by another that numbers its classes in another way."""
    shutil.copytree(streets, tmp_path / "data")
    for sample in find_samples(streets, "train"):
        path = tmp_path / "data" / sample.label_path.relative_to(streets)
        path.unlink()
        label = read_sample(sample, CITYSCAPES)[1]
        Image.fromarray(label).save(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    pack(tmp_path / "data", tmp_path / "packed")
    turned = [replace(row, train_id=18 - row.train_id if row.train_id < 19 else 255) for row in CITYSCAPES.classes]
    for label_set in (LabelSet("turned", tuple(turned)), CITYSCAPES.without(["car"])):
        pairs = (find_samples(tmp_path / name, "train") for name in ("data", "packed"))
        for one, other in zip(*pairs, strict=True):
            np.testing.assert_array_equal(read_sample(one, label_set)[1], read_sample(other, label_set)[1])


def test_checksums_are_remembered_until_a_file_changes(copy, monkeypatch):
    data, out = copy
    for split in ("train", "val"):
        pack(data, out, split)

    def num_read():
        return checked(CheckConfig(data_dir=out), CITYSCAPES, remembered=True).num_read

    assert [num_read(), num_read()] == [9, 0]
    os.utime(out / "val" / "images.bin", (0, 0))
    assert [num_read(), num_read()] == [3, 0]


def test_changed_source_is_found_by_the_check(copy):
    data, out = copy
    for split in ("train", "val"):
        pack(data, out, split)
    image, other = sorted((data / "leftImg8bit/val").rglob("*.png"))[:2]
    os.utime(other, (0, 0))  # a copy has another time and the same content
    assert reasons(out) == []
    damage(image)
    assert reasons(out) == [("source-changed", image.name)]
    shutil.rmtree(data)
    assert reasons(out) == []


def test_missing_split_is_told(copy, train_config):
    data, out = copy
    pack(data, out)
    assert reasons(out) == [("missing-split", "val")]
    with pytest.raises(DatasetError, match="holds no packed split val; it holds train"):
        find_samples(out, "val")


def test_same_picture_in_two_packed_splits_is_found(copy):
    data, out = copy
    shutil.copy(*(next((data / "leftImg8bit" / split).rglob("*.png")) for split in ("val", "train")))
    for split in ("train", "val"):
        pack(data, out, split)
    assert [reason for reason, _ in reasons(out)] == ["same-image"]


def test_run_on_packed_data_is_that_on_plain_data(streets, packed, train_config, tmp_path):
    plain = train(train_config)
    flat = train(replace(train_config, data_dir=packed, run_dir=tmp_path / "other"))
    clock = ("seconds", "images_per_second", "waiting_share")
    for one, other in zip(plain, flat, strict=True):
        assert {name: one[name] for name in one if name not in clock} == {
            name: other[name] for name in other if name not in clock
        }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_scores_and_report_are_those_of_the_plain_data(streets, packed, train_config, tmp_path, num_workers):
    train(replace(train_config, phases=train_config.phases[1:]))
    model = RunPaths(train_config).last
    found = []
    for name, data_dir in (("plain", streets), ("flat", packed)):
        options = {"data_dir": data_dir, "model": model, "num_workers": num_workers}
        config = ReportConfig(**{**options, "report_dir": tmp_path / name, "inference": InferenceConfig(device="cpu")})
        found.append(write_report(config).to_json())
    assert found[0] == found[1]
    assert len(found[0]) > 3


def test_ignored_classes_are_ignored_in_packed_data(streets, packed):
    label_set = CITYSCAPES.without(["road", "car"])
    assert train_id_table(CITYSCAPES, label_set, False) is not None
    for one, other in zip(find_samples(streets, "train"), find_samples(packed, "train"), strict=True):
        np.testing.assert_array_equal(read_sample(one, label_set)[1], read_sample(other, label_set)[1])


def test_finer_label_set_is_read_from_the_label_files(streets, tmp_path):
    coarse = LabelSet("coarse", tuple(replace(row, train_id=0) for row in CITYSCAPES.classes))
    assert train_id_table(coarse, CITYSCAPES, False) is None
    pack(streets, tmp_path, label_set=coarse)
    assert label_set_of(tmp_path, None) == coarse
    for one, other in zip(find_samples(streets, "train"), find_samples(tmp_path, "train"), strict=True):
        np.testing.assert_array_equal(read_sample(one, CITYSCAPES)[1], read_sample(other, CITYSCAPES)[1])


def test_pack_and_unpack_are_verbs(streets, tmp_path, capsys):
    out, plain = tmp_path / "packed", tmp_path / "plain"
    assert main(["pack", str(streets), str(out)]) == 0
    assert f"train with: deeplabv3 train {out} RUN" in capsys.readouterr().out
    assert main(["check", str(out)]) == 0
    assert main(["unpack", str(out), str(plain)]) == 0
    assert main(["check", str(plain)]) == 0
    assert "6 train, 3 val frames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pack", "{packed}", "{out}"], "is packed already; give the data set that it was packed from"),
        (["pack", "{streets}", "{streets}/packed"], "lies in the data set"),
        (["pack", "{out}/none", "{out}"], "there is no folder"),
        (["pack", "{streets}", "{out}", "--splits", "[../x]"], "give names of folders"),
        (["pack", "{streets}", "{plain}"], "holds a data set as plain files; choose a folder of its own"),
        (["pack", "{streets}", "{file}"], "is a file; choose another one"),
        (["unpack", "{streets}", "{out}"], "is no packed data set"),
        (["unpack", "{packed}", "{packed}/plain"], "lies in the packed data set"),
        (["submit", "{packed}", "--check", "x.zip", "--split", "val"], "deeplabv3 unpack"),
    ],
)
def test_mistakes_are_one_line(streets, packed, tmp_path, capsys, words, message):
    places = {name: tmp_path / name for name in ("out", "plain", "file")} | {"streets": streets, "packed": packed}
    (tmp_path / "plain" / "leftImg8bit").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert main([word.format(**places) for word in words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_defect_stops_the_packing(copy, capsys):
    data, out = copy
    label = next((data / "gtFine/train").rglob("*labelIds.png"))
    label.write_bytes(b"")
    assert main(["pack", str(data), str(out)]) == 2
    assert "empty-file" in capsys.readouterr().err
    assert not out.exists()
    assert main(["pack", str(data), str(out), "--skip-bad"]) == 0
    assert len(read_index(out / "train").frames) == 5


def test_full_disk_is_told_before_packing(copy, monkeypatch):
    data, out = copy
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OutputError, match="has 0 bytes free and train needs"):
        pack(data, out)
