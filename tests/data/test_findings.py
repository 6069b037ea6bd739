"""What a check says of single cases, each of them the nearest to its neighbour that is told otherwise."""

import shutil

import numpy as np
import pytest
from PIL import Image

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.labels import CITYSCAPES
from tests.data.tree import SIZE, Tree, save


@pytest.fixture
def tree(tmp_path, rng):
    return Tree(tmp_path, rng)


def texts(tree):
    """The text of each finding, by path below the data set and reason."""
    findings = check_dataset(tree.root, ("train", "val"), CITYSCAPES, num_workers=0).findings
    return {(finding.path.relative_to(tree.root).as_posix(), finding.reason): finding.text for finding in findings}


def said_of(tree, path, reason):
    """The text of the one finding that there is."""
    tree.expect(path, reason)
    found = texts(tree)
    assert found.keys() == tree.expected
    return found[path.relative_to(tree.root).as_posix(), reason]


@pytest.mark.parametrize(
    ("value", "is_known"),
    [(33, True), (34, False), (256, False), (999, False), (1000, True), (33_999, True), (34_000, False)],
)
def test_instance_is_a_label_id_times_a_thousand(tree, value, is_known):
    path = tree.instances[tree.frames[0]]
    save(np.full(SIZE, value, np.uint16), path)
    if is_known:
        assert tree.found() == set()
    else:
        seen = 34 if value > 999 else value
        text = said_of(tree, path, "unknown-id")
        assert text.startswith(f"it holds {seen}, which is not among the label ids of {CITYSCAPES.name} (0-33): ")


def test_unknown_values_are_said_in_the_plural(tree):
    label = tree.label_ids()
    label[3, :2] = (34, 40)
    save(label, path := tree.labels[tree.frames[0]])
    assert said_of(tree, path, "unknown-id").startswith("it holds 34, 40, which are not among the label ids of ")


@pytest.mark.parametrize("is_whole", [True, False])
def test_sizes_are_compared_with_the_first_that_is_known(tree, is_whole):
    frame = tree.frames[0]
    save(np.full((3, 5), 26003, np.uint16), tree.instances[frame])
    if not is_whole:
        tree.images[frame].write_bytes(b"")
        tree.expect(tree.images[frame], "empty-file")
    first = "image" if is_whole else "label"
    text = said_of(tree, tree.instances[frame], "size-differs")
    assert text.startswith(f"it is 3x5 and its {first} 16x24 (height x width); ")


def test_files_that_cannot_be_read_are_not_the_same_picture(tree):
    for frame in (tree.frames[0], tree.frames[-1]):
        tree.images[frame].write_bytes(b"")
        tree.expect(tree.images[frame], "empty-file")
    assert tree.found() == tree.expected


def test_same_picture_within_a_split_is_no_defect(tree):
    for split in ("train", "val"):
        pixels = tree.pixels()
        for frame in (frame for frame in tree.frames if frame[0] == split):
            tree.images[frame].unlink()
            save(pixels, tree.images[frame].with_suffix(".png"))
    assert tree.found() == set()


def test_label_without_an_image_is_looked_at_all_the_same(tree):
    frame = tree.take()
    tree.images[frame].unlink()
    tree.labels[frame].write_bytes(b"")
    tree.expect(tree.labels[frame], "no-image")
    tree.expect(tree.labels[frame], "empty-file")
    assert tree.found() == tree.expected


@pytest.mark.parametrize("split", ["train", "val"])
def test_second_label_of_a_frame_in_another_split_is_one_without_an_image(tree, split):
    other = {"train": "val", "val": "train"}[split]
    path = tree.labels[tree.take(split)]
    target = tree.root / path.relative_to(tree.root).as_posix().replace(f"/{split}/", f"/{other}/")
    target.parent.mkdir(exist_ok=True)
    shutil.copy(path, target)
    assert "there is no leftImg8bit" in said_of(tree, target, "no-image")


@pytest.mark.parametrize("suffix", ["", ".gif", ".ppm"])
def test_image_of_another_ending_is_named_as_it_is(tree, suffix):
    path = tree.images[tree.take()]
    path = path.rename(path.with_suffix(suffix))
    text = said_of(tree, path, "bad-name")
    assert text.startswith(f"the ending is {suffix or 'missing'}; read are .png, .jpg, ")


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_label_of_another_ending_is_named_as_it_is(tree, suffix):
    path = tree.labels[tree.take()]
    path = path.rename(path.with_suffix(suffix))
    assert said_of(tree, path, "bad-name").startswith(f"the ending is {suffix or 'missing'}; a label is a .png: ")


@pytest.mark.parametrize("ending", ["_gtFine_labelId", "_gtFine_labels", "_labelIds_old", ""])
def test_label_of_another_name_is_told_once(tree, ending):
    """Its frame is not said to have none."""
    path = tree.labels[tree.take()]
    path = path.rename(path.with_name(path.name.replace("_gtFine_labelIds", ending)))
    assert texts(tree).keys() == {(path.relative_to(tree.root).as_posix(), "bad-name")}


@pytest.mark.parametrize(
    "name",
    [
        "README",
        "notes.txt",
        "a_leftImg8bit.json",
        "a_leftImg8bit.json/b.txt",
        "._a_leftImg8bit.png",
        ".hidden/a_leftImg8bit.png",
    ],
)
def test_other_things_are_passed_over(tree, name):
    for folder in (tree.images[tree.frames[0]].parent, tree.labels[tree.frames[0]].parent):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("not looked at")
    assert tree.found() == set()


@pytest.mark.parametrize("folder", ["images", "labels"])
@pytest.mark.parametrize("suffix", [".gif", ".tga", ".JPG"])
def test_picture_of_any_other_name_is_told(tree, folder, suffix):
    path = getattr(tree, folder)[tree.frames[0]].with_name(f"other{suffix}")
    path.write_bytes(b"GIF89a")
    found = texts(tree)
    assert found.keys() >= {(path.relative_to(tree.root).as_posix(), "bad-name")}


@pytest.mark.parametrize(("depth", "is_found"), [(2, True), (4, True), (5, False)])
def test_misplaced_file_is_found_four_folders_down(tree, depth, is_found):
    path = tree.labels[tree.take()]
    folder = path.parent.parent.joinpath(*"abcde"[:depth])
    folder.mkdir(parents=True)
    path = path.rename(folder / path.name)
    if is_found:
        assert said_of(tree, path, "misplaced").startswith(
            "lies too deep below gtFine/train; expected is gtFine/train/"
        )
    else:
        assert [reason for _, reason in tree.found()] == ["no-label"]


def test_folder_of_any_other_name_is_looked_through(tree):
    path = tree.labels[tree.take()]
    folder = path.parent / "more.png"
    folder.mkdir()
    path = path.rename(folder / path.name)
    assert said_of(tree, path, "misplaced").startswith("lies too deep below gtFine/train; ")


def test_links_are_followed_to_cities_alone(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = tree.labels[tree.take()]
    path.rename(elsewhere / path.name)
    (path.parent / "more").symlink_to(elsewhere)
    assert [reason for _, reason in tree.found()] == ["no-label"]


def test_name_may_have_more_than_one_line(tree):
    for files in (tree.images, tree.labels, tree.instances):
        path = files[tree.frames[0]]
        path.rename(path.with_name(path.name.replace("000000_", "000000_\n", 1)))
    assert tree.found() == set()


def test_wrong_name_in_a_wrong_place_is_a_wrong_name(tree):
    path = tree.images[tree.take()]
    path = path.rename(path.parent.parent / path.with_suffix(".gif").name)
    assert said_of(tree, path, "bad-name").startswith("the ending is .gif; ")


def test_file_without_a_city_is_told_where_it_lies(tree):
    path = tree.images[tree.take()]
    path = path.rename(path.parent.parent / path.name)
    assert said_of(tree, path, "misplaced").startswith("lies directly in leftImg8bit/train; expected is ")


def test_city_is_the_longest_that_a_name_begins_with(tree):
    """A frame of aachen_east may lie in aachen's folder only if there is no such city."""
    frame = tree.take()
    name = frame[1].replace(frame[1].split("_")[0], "aachen_east")
    for files in (tree.images, tree.labels, tree.instances):
        path = files[frame]
        target = path.parents[1] / "aachen_east" / path.name.replace(frame[1], name)
        target.parent.mkdir(exist_ok=True)
        files[frame] = path.rename(target)
    assert tree.found() == set()
    path = tree.labels[frame]
    path = path.rename(path.parents[1] / "bochum" / path.name)
    assert said_of(tree, path, "misplaced") == (
        "the name begins with aachen_east and the folder is bochum; move it to aachen_east/"
    )


def test_files_of_a_frame_lie_in_one_city_whatever_they_are_called(tree):
    frame = tree.take()
    for files, city in ((tree.images, "aachen"), (tree.labels, "bochum"), (tree.instances, "aachen")):
        path = files[frame]
        files[frame] = path.rename(path.parents[1] / city / path.name.replace(frame[1], "scene_1"))
    text = said_of(tree, tree.labels[frame], "misplaced")
    assert text == "its image lies in the folder aachen; move it to aachen/"


def test_of_two_files_of_a_frame_that_is_named_which_is_not_read(tree):
    frame = tree.take()
    path = tree.images[frame]
    path.unlink()
    for suffix in (".bmp", ".webp"):
        save(tree.pixels(), path.with_suffix(suffix))
    text = said_of(tree, path.with_suffix(".bmp"), "frame-twice")
    assert text.startswith(f"the frame is there as {path.with_suffix('.webp').name} in ")


def test_label_of_train_ids_serves_where_there_are_no_ids(tree):
    path = tree.labels[tree.take()]
    label = np.array([CITYSCAPES.train_id_of_id[value] for value in tree.label_ids().ravel()], np.uint8).reshape(SIZE)
    save(label, path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    assert tree.found() == set()
    path.unlink()
    assert tree.found() == set()


def test_labels_of_the_other_numbering_are_not_counted(tree):
    before = check_dataset(tree.root, ("train",), CITYSCAPES, num_workers=0).splits["train"]
    path = tree.labels[tree.take()]
    label = np.asarray(Image.open(path))
    save(CITYSCAPES.train_id_of_id[label], path)
    findings = check_dataset(tree.root, ("train",), CITYSCAPES, num_workers=0)
    assert [finding.reason for finding in findings.findings] == ["train-ids"]
    after = findings.splits["train"]
    lost = [int((CITYSCAPES.train_id_of_id[label] == train_id).sum()) for train_id in range(19)]
    assert list(after.pixels) == [pixels - gone for pixels, gone in zip(before.pixels, lost, strict=True)]
    assert list(after.frames) == [num - (gone > 0) for num, gone in zip(before.frames, lost, strict=True)]
    assert (before.num_frames, after.num_frames) == (6, 6)


def test_instances_alone_are_no_label_of_another_split(tree):
    frame = tree.take()
    tree.labels[frame].unlink()
    path = tree.instances[frame]
    target = tree.root / path.relative_to(tree.root).as_posix().replace("/train/", "/val/")
    target.parent.mkdir(exist_ok=True)
    path.rename(target)
    tree.expect(tree.images[frame], "no-label")
    assert tree.found() == tree.expected


def test_label_of_a_frame_whose_image_is_in_the_test_split_stays_where_it_is(tree):
    frame = tree.take("val")
    path = tree.images[frame]
    target = tree.root / path.relative_to(tree.root).as_posix().replace("/val/", "/test/")
    target.parent.mkdir(parents=True)
    path.rename(target)
    findings = check_dataset(tree.root, ("train", "val", "test"), CITYSCAPES, num_workers=0).findings
    assert [(finding.path, finding.reason) for finding in findings] == [(tree.labels[frame], "no-image")]


def test_frame_of_two_splits_keeps_its_label_in_each(tree):
    """Also where the other one lacks it."""
    frame = tree.take("val")
    path = tree.images[frame]
    target = tree.root / path.relative_to(tree.root).as_posix().replace("/val/", "/train/")
    target.parent.mkdir(exist_ok=True)
    save(tree.pixels(), target.with_suffix(".png"))
    for reason in ("in-two-splits", "no-label"):
        tree.expect(target.with_suffix(".png"), reason)
    assert tree.found() == tree.expected


def test_image_without_a_label_is_looked_at_all_the_same(tree):
    frame = tree.take()
    tree.images[frame].write_bytes(b"")
    tree.labels[frame].unlink()
    for reason in ("empty-file", "no-label"):
        tree.expect(tree.images[frame], reason)
    assert tree.found() == tree.expected


def test_file_in_a_wrong_place_is_looked_at_all_the_same(tree):
    path = tree.images[tree.take()]
    path = path.rename(path.parent.parent / path.name)
    path.write_bytes(b"")
    for reason in ("misplaced", "empty-file"):
        tree.expect(path, reason)
    assert tree.found() == tree.expected


def test_file_of_the_right_name_is_read_before_one_of_a_wrong_one(tree):
    frame = tree.take()
    path = tree.images[frame].with_suffix(".webp")
    tree.images[frame].unlink()
    save(tree.pixels(), path)
    wrong = path.with_suffix(".PNG")
    wrong.write_bytes(b"not looked at")
    assert "looked for is " in said_of(tree, wrong, "wrong-case")


def label_of(counts):
    """A label of so many pixels of each value."""
    values = np.concatenate([np.full(number, value, np.uint8) for value, number in counts.items()])
    assert values.size == SIZE[0] * SIZE[1]
    return values.reshape(SIZE)


@pytest.mark.parametrize(
    ("counts", "is_swapped"),
    [
        ({7: 192, 3: 96, 5: 96}, False),  # half of the pixels would be trained
        ({7: 191, 3: 97, 5: 96}, True),
        ({7: 191, 3: 97, 18: 96}, True),
        ({7: 191, 3: 97, 19: 96}, False),  # 19 is no trainId
        ({5: 200, 3: 184}, False),  # nothing would be trained, but all is known
        ({0: 200, 8: 100, 7: 84}, False),  # the void id is no sign of anything
        ({7: 300, 8: 60, 3: 23, 255: 1}, True),  # 255 is no label id
        ({7: 300, 8: 83, 255: 1}, False),
    ],
)
def test_numbering_of_a_label_is_told_by_its_values(tree, counts, is_swapped):
    path = tree.labels[tree.take()]
    save(label_of(counts), path)
    reasons = {reason for name, reason in tree.found() if name == path.relative_to(tree.root).as_posix()}
    assert ("train-ids" in reasons) == is_swapped


@pytest.mark.parametrize(("trained", "num_swapped"), [(192, 5), (191, 10)])
def test_numbering_of_a_split_is_told_by_all_of_its_pixels(tree, trained, num_swapped):
    """Of half of its labels more than half of the pixels would be trained, so that these alone would not be told."""
    few = 2 * trained - 300
    for number, path in enumerate(tree.labels.values()):
        save(label_of({7: 300, 3: 84} if number % 2 else {7: few, 3: 344 - few, 5: 20, 2: 20}), path)
    assert [reason for _, reason in tree.found()] == ["train-ids"] * num_swapped


@pytest.mark.parametrize("kind", ["color", "polygons", "instanceTrainIds"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".json"])
def test_files_that_nothing_reads_may_be_anything(tree, kind, suffix):
    path = tree.labels[tree.frames[0]]
    path.with_name(path.name.replace("labelIds.png", f"{kind}{suffix}")).write_bytes(b"")
    assert tree.found() == set()
