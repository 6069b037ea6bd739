"""Planted defects: exactly the planted files are named, with the right reason, and nothing else."""

import json
import os
import re
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplabv3.config import CheckConfig
from deeplabv3.data import looking, remembering
from deeplabv3.data.checking import check_dataset
from deeplabv3.data.cityscapes import find_labelled
from deeplabv3.data.findings import REASONS
from deeplabv3.data.frames import read_sample
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.official import FRAMES_OF_CITY, note_on_number
from deeplabv3.errors import DatasetError
from deeplabv3.report.defects import check
from tests.conftest import REPOSITORY
from tests.data.pictures import PNG, png, saved
from tests.data.planting import DEFECTS
from tests.data.tree import IDS, SIZE, Tree, make_sound, refused, save


def test_there_are_enough_kinds():
    assert len(DEFECTS) >= 40


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defect_is_found_and_nothing_else(tmp_path, name):
    for seed in range(2):
        tree = Tree(tmp_path / str(seed), np.random.default_rng([seed, len(name)]))
        DEFECTS[name](tree)
        assert tree.found() == tree.expected != set(), (name, seed)


@pytest.mark.parametrize("seed", range(20))
def test_several_defects_are_all_found_in_one_pass(tmp_path, seed):
    rng = np.random.default_rng([7, seed])
    tree = Tree(tmp_path, rng)
    make_sound(tree)
    assert tree.found() == set()
    for name in rng.choice(sorted(DEFECTS), 3, replace=False):
        DEFECTS[name](tree)
    assert tree.found() == tree.found(remembered=True) == tree.expected
    bad = {tmp_path / path for path, _ in tree.expected}
    for split in ("train", "val"):
        for sample in find_labelled(tmp_path, split, bad):
            read_sample(sample, CITYSCAPES)


@pytest.mark.slow
def test_recall_and_precision_over_a_thousand_trees(tmp_path):
    """Each kind alone and with others, per file and reason; what is sound in them is never named."""
    names, start = sorted(DEFECTS), time.perf_counter()
    num_planted = num_found = num_right = 0
    for seed in range(1020):
        rng = np.random.default_rng([11, seed])
        tree = Tree(tmp_path / str(seed), rng)
        make_sound(tree)
        others = [name for name in names if name != names[seed % len(names)]]
        for name in (names[seed % len(names)], *rng.choice(others, seed // len(names) % 3, replace=False)):
            DEFECTS[name](tree)
        found = tree.found()
        num_planted, num_found = num_planted + len(tree.expected), num_found + len(found)
        num_right += len(found & tree.expected)
        assert found == tree.expected, (seed, found ^ tree.expected)
        shutil.rmtree(tree.root)
    print(f"{len(names)} kinds in 1,020 trees: {num_planted} planted, {num_found} found, {num_right} right; "
          f"recall {num_right / num_planted:.1%}, precision {num_right / num_found:.1%}; "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip


def named_frames(folder, split, numbers):
    """A split whose images, labels and cities have real names, and small pictures."""
    for city, number in numbers.items():
        images, labels = folder / "leftImg8bit" / split / city, folder / "gtFine" / split / city
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(number):
            name = f"{city}_{index:06}_000019"
            image = struct.pack("<II", index, len(city)).ljust(12, city[:1].encode())
            (images / f"{name}_leftImg8bit.bmp").write_bytes(
                saved(np.frombuffer(image, np.uint8).reshape(2, 2, 3), "BMP")
            )
            (labels / f"{name}_gtFine_labelIds.png").write_bytes(ROADS)


ROADS = saved(np.full((2, 2), 7, np.uint8), "PNG")
VAL = FRAMES_OF_CITY["val"]


def test_official_numbers_are_those_of_the_paper():
    """Cordts et al. 2016 (arXiv 1604.01685)."""
    assert [sum(numbers.values()) for numbers in FRAMES_OF_CITY.values()] == [2975, 500, 1525]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (VAL, ""),
        ({**VAL, "lindau": 58}, "val has 499 frames with the names of Cityscapes, which has 500 (lindau 58 of 59); "),
        ({**VAL, "munster": 175, "lindau": 2}, "444 frames .* (lindau 2 of 59, munster 175 of 174); "),
        ({"frankfurt": 267, "lindau": 1}, "268 frames .* (lindau 1 of 59, munster 0 of 174); "),
        ({"frankfurt": 3, "lindau": 1, "munster": 1}, "5 frames "),
        ({**VAL, "springfield": 9}, ""),
        ({"lindau": 59}, ""),
        ({"frankfurt": 20, "munster": 20}, ""),
        ({"springfield": 300}, ""),
    ],
)
def test_split_of_cityscapes_that_is_not_complete_is_noted(numbers, said):
    names = [f"{city}_{index:06}_000019" for city, number in numbers.items() for index in range(number)]
    note = note_on_number("val", names)
    assert re.match(f".*{re.escape(said)}".replace(re.escape(".*"), ".*"), note) if said else note == ""


def test_number_is_told_and_is_no_defect(tmp_path, capsys):
    """Half of the frames are gone with their labels, which no file tells."""
    named_frames(tmp_path, "val", {"frankfurt": 4, "lindau": 3, "munster": 2})
    found = check(CheckConfig(data_dir=tmp_path, splits=("val",), num_workers=0, out=tmp_path / "found.json"))
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("note: val has 9 frames with the names of Cityscapes, which has 500 (frankfurt 4 of 267, ")
    assert found.findings == ()
    record = json.loads((tmp_path / "found.json").read_text())
    assert (record["num_defects"], record["notes"]) == (0, [{"split": "val", "message": found.notes["val"]}])


@pytest.mark.parametrize("names", [["streets1_000000_000000"], ["aachen_1", "a"], [], ["frankfurt"]])
def test_own_frames_are_not_counted(names):
    assert note_on_number("train", names * 3000) == note_on_number("mine", names) == ""


def test_interlaced_png_is_sound(tmp_path):
    """In sizes at which some passes are empty."""
    for height, width in ((1, 1), (1, 9), (5, 2), (13, 17)):
        (tmp_path / "a.png").write_bytes(png(np.zeros((height, width), np.uint8), 8, 0, interlaced=True))
        facts = looking.look_at((tmp_path / "a.png", "labelIds"))
        assert (facts.faults, facts.size, facts.counts) == ((), (height, width), ((0, height * width),))


def test_every_truncation_of_a_png_is_found(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(rng.choice(IDS, (5, 7))).save(path)
    content = path.read_bytes()
    for length in range(len(PNG), len(content)):
        path.write_bytes(content[:length])
        assert [fault.reason for fault in looking.look_at((path, "labelIds")).faults] == ["truncated"], length


def test_every_flipped_bit_of_a_label_is_found(tmp_path, rng):
    path = tmp_path / "a.png"
    Image.fromarray(rng.choice(IDS, (5, 7))).save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (1, 16, 128):
            changed = bytearray(content)
            changed[place] ^= bit
            path.write_bytes(changed)
            assert looking.look_at((path, "labelIds")).faults, (place, bit)


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine"])
def test_missing_split_is_one_finding(tmp_path, rng, folder):
    tree = Tree(tmp_path, rng)
    (tmp_path / folder / "val").rename(tmp_path / "elsewhere")
    tree.expect(tmp_path / folder / "val", "missing-split")
    assert tree.found() == tree.expected


def test_empty_split_is_one_finding(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for split, name in tree.frames:
        if split == "val":
            tree.images[split, name].unlink()
    tree.expect(tmp_path / "leftImg8bit" / "val", "empty-split")
    assert tree.found() == tree.expected


def test_split_without_public_labels_needs_none(tmp_path, rng):
    for name in ("a_0", "a_1"):
        path = tmp_path / "leftImg8bit" / "test" / "a" / f"{name}_leftImg8bit.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), path)
    assert check_dataset(tmp_path, ("test",), CITYSCAPES).findings == ()
    label = tmp_path / "gtFine" / "test" / "a" / "a_0_gtFine_labelIds.png"
    label.parent.mkdir(parents=True)
    save(np.full((4, 6), 3, np.uint8), label)
    assert check_dataset(tmp_path, ("test",), CITYSCAPES).findings == ()


def test_file_that_may_not_be_read(tmp_path, rng, monkeypatch):
    """The system lets root read everything, so that it is made to refuse; and it is asked again the next time."""
    tree = Tree(tmp_path, rng)
    path = tree.labels[tree.take()]
    with refused(monkeypatch, path):
        assert tree.found() == {(path.relative_to(tmp_path).as_posix(), "unreadable")}
    assert tree.found(remembered=True) == set()


def test_folder_that_may_not_be_listed(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path, rng)
    folder, scandir = tmp_path / "gtFine" / "val" / "ulm", os.scandir

    def refuse(path):
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = {tree.images[frame] for frame in tree.frames if frame[1].startswith("ulm")}
    for path in images:
        tree.expect(path, "no-label")
    tree.expect(folder, "unreadable")
    assert tree.found() == tree.expected


def test_real_cities_may_be_links(tmp_path, rng):
    tree = Tree(tmp_path / "d", rng)
    city = tmp_path / "d" / "leftImg8bit" / "train" / "aachen"
    city.rename(tmp_path / "aachen")
    city.symlink_to(tmp_path / "aachen")
    assert tree.found() == set()


def test_whole_split_of_train_ids(tmp_path, rng):
    """Even labels whose values could be those of ids, because the others cannot."""
    tree = Tree(tmp_path, rng)
    for split, name in tree.frames:
        if split == "val":
            values = (0, 1, 2, 4) if name.endswith("0") else (0, 2, 8, 10)
            save(rng.choice(np.array(values, np.uint8), SIZE), tree.labels[split, name])
            tree.expect(tree.labels[split, name], "train-ids")
    assert tree.found() == tree.expected


@pytest.mark.parametrize("ids", [(7, 8), (1, 7, 8, 11), (0, 3, 7, 8, 11, 17), (7, 11, 12, 13)])
def test_few_label_ids_are_not_taken_for_train_ids(tmp_path, rng, ids):
    tree = Tree(tmp_path, rng)
    for path in tree.labels.values():
        save(rng.choice(np.array(ids, np.uint8), SIZE, p=[0.3 / (len(ids) - 2)] * (len(ids) - 2) + [0.4, 0.3])
             if len(ids) > 2 else rng.choice(np.array(ids, np.uint8), SIZE), path)  # fmt: skip
    assert tree.found() == set()


def test_own_ids_are_not_taken_for_train_ids(tmp_path, rng):
    """Few pixels are labelled, and the numbers of both kinds overlap: the table says which ids are ignored."""
    tree = Tree(tmp_path, rng)
    for path in (*tree.labels.values(), *tree.instances.values()):
        path.unlink()
    for (split, _), path in tree.labels.items():
        tree.write(
            f"gtFine/{split}/{{}}/{path.name}", rng.choice(np.uint8([0, 1, 2, 3, 4]), SIZE, p=[0.6, 0.1, 0.1, 0.1, 0.1])
        )
    classes = [{"name": f"class {number}", "id": number, "color": [number, 0, 0]} for number in range(2, 7)]
    own = LabelSet.from_dict({"classes": classes, "ignored_ids": [0, 1]})
    findings = check_dataset(tmp_path, ("train", "val"), own, num_workers=0)
    assert not findings.findings
    for values in ([0, 1, 2, 3, 4], [4, 9, 10, 255]):
        for path in tree.labels.values():
            save(rng.choice(np.uint8(values), SIZE), path)
        found = check_dataset(tmp_path, ("train", "val"), CITYSCAPES, num_workers=0).findings
        assert len(found) == len(tree.labels)
        assert all(one.text.endswith("; classes of your own are named with --labels FILE.yaml") for one in found)
    narrow = LabelSet.from_dict({"classes": classes, "ignored_ids": [0]})  # no 255
    (first, *_) = check_dataset(tmp_path, ("train", "val"), narrow, num_workers=0).findings
    assert first.text.endswith(": correct it, or add to classes or ignored_ids")


def test_train_id_files_and_own_classes(tmp_path, rng):
    labels = LabelSet.from_dict(
        {
            "classes": [{"name": "a", "id": 4, "color": [1, 2, 3]}, {"name": "b", "id": 9, "color": [3, 2, 1]}],
            "ignored_ids": [0],
        }
    )
    for index, (kind, values) in enumerate((("labelIds", (0, 4, 9)), ("labelTrainIds", (0, 1, 255)))):
        for folder, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", f"gtFine_{kind}")):
            path = tmp_path / folder / "train" / "x" / f"f{index}_{ending}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(rng.integers(0, 9, (6, 8), dtype=np.uint8), path)
        label = np.full((6, 8), values[0], np.uint8)
        label[0, :3] = values
        label[1, :] = values[1]
        save(label, path)
    findings = check_dataset(tmp_path, ("train",), labels)
    assert findings.findings == ()
    counts = findings.splits["train"]
    assert (counts.num_frames, counts.frames, counts.ignored_pixels) == (2, (2, 2), 39)
    assert counts.pixels == (9 + 38, 1 + 9)


def test_counts_are_those_of_the_labels(streets):
    findings = check_dataset(streets, ("train", "val"), CITYSCAPES)
    for split, counts in findings.splits.items():
        labels = [read_sample(sample, CITYSCAPES)[1] for sample in find_labelled(streets, split)]
        pixels = sum(np.bincount(label.ravel(), minlength=256) for label in labels)
        assert counts.pixels == tuple(pixels[:19])
        assert counts.ignored_pixels == pixels[255]
        assert counts.frames == tuple(sum((label == k).any() for label in labels) for k in range(19))
        assert counts.num_frames == len(labels)


def test_workers_change_nothing(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for name in ("zero_bytes", "label_rgb", "one_unknown_id"):
        DEFECTS[name](tree)
    alone, helped = (check_dataset(tmp_path, ("train", "val"), CITYSCAPES, num_workers=n) for n in (0, 2))
    assert alone == helped


def test_progress_counts_up_to_the_end(streets):
    told = []
    check_dataset(streets, ("val",), CITYSCAPES, progress=lambda *numbers: told.append(numbers))
    assert told == [(number, 9) for number in range(1, 10)]


def test_second_look_opens_no_file(tmp_path, rng, monkeypatch):
    tree = Tree(tmp_path, rng)
    tree.found()
    monkeypatch.setattr(remembering, "look_at", None)
    assert tree.found(remembered=True) == set()


def test_label_set_may_change_without_reading(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    tree.found()
    own = LabelSet.from_dict({"classes": [{"name": "road", "id": 7, "color": [1, 2, 3]}]})
    findings = check_dataset(tmp_path, ("train", "val"), own, remembered=True)
    assert findings.num_read == 0
    assert {finding.reason for finding in findings.findings} == {"unknown-id"}


def test_folder_without_a_data_set_is_the_users_mistake(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        check_dataset(tmp_path / "none", ("train",), CITYSCAPES)
    with pytest.raises(DatasetError, match="holds neither leftImg8bit/ nor gtFine/"):
        check_dataset(tmp_path, ("train",), CITYSCAPES)


def test_every_reason_is_planted_and_documented():
    names = ("planted_contents.py", "planted_places.py", "test_checking.py", "test_packed.py")
    source = "".join(Path(__file__).with_name(name).read_text() for name in names)
    page = (REPOSITORY / "docs/data.md").read_text().split("\n## Checking")[1].split("\n## ")[0]
    assert all(f'"{reason}"' in source for reason in REASONS)
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert rows == list(REASONS)


def test_link_to_itself_is_a_finding_and_not_the_end(tmp_path, rng):
    Tree(tmp_path, rng)
    loop = tmp_path / "leftImg8bit" / "train" / "loop"
    loop.symlink_to("loop")
    (finding,) = check_dataset(tmp_path, ("train", "val"), CITYSCAPES).findings
    assert (finding.path, finding.reason) == (loop, "unreadable")
    assert "mend or remove the link" in finding.text
