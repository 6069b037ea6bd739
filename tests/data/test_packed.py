"""Packed splits that are damaged, changed or odd, and what is done with sound ones."""

import json
import os
import shutil
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import getitem
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from deeplabv3.cli import main
from deeplabv3.config import CheckConfig, InferenceConfig, ReportConfig
from deeplabv3.data import packed as packed_format
from deeplabv3.data.changes import changed_files
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import label_set_of, read_sample, train_id_table
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.packed import INDEX, packed_splits, read_index
from deeplabv3.data.packing import pack_split
from deeplabv3.data.unpacking import unpack_split
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.report.defects import checked
from deeplabv3.report.writing import write_report
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from tests.data.packs import damage, pack, reasons


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
        if path.is_relative_to(split.source) and (what == "is_dir" or path != split.source):  # is_dir calls stat
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


def test_two_label_sets_need_a_third_that_is_given(streets, tmp_path):
    coarse = LabelSet("coarse", tuple(replace(row, train_id=0) for row in CITYSCAPES.classes))
    for split, label_set in (("train", CITYSCAPES), ("val", coarse)):
        pack_split(streets, tmp_path, split, find_samples(streets, split), label_set)
    with pytest.raises(DatasetError, match=r"\(train with cityscapes, val with coarse\); give one with --labels"):
        label_set_of(tmp_path, None)


def test_index_that_writes_to_the_terminal_is_shown_as_text(streets, tmp_path):
    pack(streets, tmp_path)
    path = tmp_path / "train" / INDEX
    path.write_text(path.read_text().replace('"version": 1', '"version": "\\u001b[2J"'))
    with pytest.raises(DatasetError, match="has version") as error:
        read_index(tmp_path / "train")
    assert str(error.value).isprintable()


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
        (["pack", "{streets}", "{tmp}/other"], "other holds notes.txt, which is no packed split; choose a folder"),
        (["pack", "{streets}", "{file}"], "is a file; choose another one"),
        (["unpack", "{streets}", "{out}"], "is no packed data set"),
        (["unpack", "{out}/none", "{out}"], "there is no folder"),
        (["unpack", "{packed}", "{packed}/plain"], "lies in the packed data set"),
        (["submit", "{packed}", "--check", "x.zip", "--split", "val"], "deeplabv3 unpack"),
    ],
)
def test_mistakes_are_one_line(streets, packed, tmp_path, capsys, words, message):
    places = {name: tmp_path / name for name in ("out", "plain", "file")} | {
        "streets": streets,
        "packed": packed,
        "tmp": tmp_path,
    }
    (tmp_path / "plain" / "leftImg8bit").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
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
