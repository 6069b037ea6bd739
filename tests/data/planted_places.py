"""Files that lie in the wrong place, have the wrong name, are missing or there twice."""

import os

import numpy as np
from PIL import Image

from tests.data.tree import as_png, defect, files, save


@defect
def image_without_label(tree):
    frame = tree.take()
    tree.labels[frame].unlink()
    tree.expect(tree.images[frame], "no-label")


@defect
def label_without_image(tree):
    frame = tree.take("val")
    tree.images[frame].unlink()
    tree.expect(tree.labels[frame], "no-image")


@defect
def dangling_link(tree):
    path = files(tree)
    path.unlink()
    path.symlink_to(tree.root / "nowhere.png")
    tree.expect(path, "dangling-link")


@defect
def folder_under_the_name_of_a_file(tree):
    path = files(tree)
    path.unlink()
    path.mkdir()
    tree.expect(path, "not-a-file")


@defect
def pipe_under_the_name_of_a_file(tree):
    path = files(tree)
    path.unlink()
    os.mkfifo(path)
    tree.expect(path, "not-a-file")


@defect
def frame_twice_in_a_split(tree):
    frame = tree.take()
    path = as_png(tree, frame).with_suffix(".jpg")
    save(tree.pixels(), path)
    tree.expect(path, "frame-twice")


@defect
def frame_in_two_splits(tree):
    _, name = frame = tree.take()
    city = name.split("_")[0]
    for path in (tree.images[frame], tree.labels[frame]):
        copy = tree.root / str(path.relative_to(tree.root)).replace("/train/", "/val/")
        copy.parent.mkdir(exist_ok=True)
        array = tree.pixels() if path == tree.images[frame] else tree.label_ids()
        save(array, copy)
    assert city in str(copy)
    tree.expect(tree.images[frame], "in-two-splits")


@defect
def same_file_under_another_name_in_val(tree):
    train, val = tree.take(), tree.take("val")
    path = tree.images[val]
    path.unlink()
    tree.images[val] = path = path.with_suffix(tree.images[train].suffix)
    path.write_bytes(tree.images[train].read_bytes())
    tree.expect(tree.images[train], "same-image")


@defect
def same_pixels_saved_anew_in_val(tree):
    train, val = tree.take(), tree.take("val")
    save(np.asarray(Image.open(as_png(tree, train))), as_png(tree, val))
    tree.expect(tree.images[train], "same-image")


@defect
def label_among_the_images(tree):
    """The label of a frame, which then lacks none: it only lies in the wrong place."""
    frame = tree.take()
    path = tree.labels[frame].rename(tree.images[frame].parent / tree.labels[frame].name)
    tree.expect(path, "misplaced")


@defect
def image_among_the_labels(tree):
    frame = tree.take()
    path = tree.images[frame].rename(tree.labels[frame].parent / tree.images[frame].name)
    tree.expect(path, "misplaced")


@defect
def label_in_another_city(tree):
    path = tree.labels[tree.take()]
    city = {"aachen": "bochum", "bochum": "aachen"}[path.parent.name]
    tree.expect(path.rename(path.parent.parent / city / path.name), "misplaced")


@defect
def frame_in_another_city(tree):
    frame = tree.take()
    for path in (tree.images[frame], tree.labels[frame], tree.instances[frame]):
        city = {"aachen": "bochum", "bochum": "aachen"}[path.parent.name]
        tree.expect(path.rename(path.parent.parent / city / path.name), "misplaced")


@defect
def labels_in_another_split(tree):
    frame = tree.take()
    for path in (tree.labels[frame], tree.instances[frame]):
        target = tree.root / str(path.relative_to(tree.root)).replace("/train/", "/val/")
        target.parent.mkdir(exist_ok=True)
        tree.expect(path.rename(target), "misplaced")


@defect
def image_without_a_city(tree):
    path = tree.images[tree.take()]
    tree.expect(path.rename(path.parent.parent / path.name), "misplaced")


@defect
def label_too_deep(tree):
    path = tree.labels[tree.take()]
    (path.parent / "more").mkdir(exist_ok=True)
    tree.expect(path.rename(path.parent / "more" / path.name), "misplaced")


@defect
def image_without_the_ending(tree):
    path = tree.images[tree.take()]
    tree.expect(path.rename(path.with_name(path.name.replace("_leftImg8bit", ""))), "bad-name")


@defect
def label_without_the_ending(tree):
    path = tree.labels[tree.take()]
    tree.expect(path.rename(path.with_name(path.name.replace("_gtFine_labelIds", ""))), "bad-name")


@defect
def suffix_in_capitals(tree):
    frame = tree.take()
    path = (tree.images, tree.labels)[tree.rng.integers(2)][frame]
    tree.expect(path.rename(path.with_suffix(path.suffix.upper())), "wrong-case")


@defect
def ending_in_small_letters(tree):
    frame = tree.take()
    path = (tree.images, tree.labels)[tree.rng.integers(2)][frame]
    name = path.name.replace("_leftImg8bit", "_leftimg8bit").replace("_labelIds", "_labelids")
    tree.expect(path.rename(path.with_name(name)), "wrong-case")


@defect
def system_that_cannot_read(tree):
    """A file of the system that nobody can read, whatever his rights."""
    path = files(tree)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    tree.expect(path, "unreadable")


@defect
def link_to_itself(tree):
    path = files(tree)
    path.unlink()
    path.symlink_to(path.name)
    tree.expect(path, "unreadable")
