import numpy as np
import pytest
from PIL import Image

from deeplabv3.data.cityscapes import find_labels, find_samples
from deeplabv3.data.frames import read_sample
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import DatasetError
from tests.conftest import write_frame

IMAGE = np.zeros((4, 6, 3), np.uint8)
LABEL = np.full((4, 6), 7, np.uint8)


def test_pairs_are_sorted_by_name(tmp_path):
    for name in ("b_000000_000001", "a_000000_000002", "a_000000_000001"):
        write_frame(tmp_path, name, IMAGE, LABEL)
    samples = find_samples(tmp_path, "train")
    assert [sample.name for sample in samples] == ["a_000000_000001", "a_000000_000002", "b_000000_000001"]


def test_frame_is_read(tmp_path):
    write_frame(tmp_path, "a_000000_000001", IMAGE, LABEL)
    image, label = read_sample(find_samples(tmp_path, "train")[0], CITYSCAPES)
    assert image.shape == (4, 6, 3)
    assert (label == 0).all()


def test_hidden_folders_are_no_cities(tmp_path):
    """The check leaves them alone, so nothing else may read them."""
    for name in ("a_000000_000001", ".old_000000_000001", "b_000000_000001"):
        write_frame(tmp_path, name, IMAGE, LABEL)
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "train/b").rename(tmp_path / kind / "train/.b")
    assert [sample.name for sample in find_samples(tmp_path, "train")] == ["a_000000_000001"]
    assert [sample.name for sample in find_labels(tmp_path, "train")] == ["a_000000_000001"]


def test_jpeg_images_are_found(tmp_path):
    path = write_frame(tmp_path, "a_000000_000001", IMAGE, LABEL)
    Image.fromarray(IMAGE).save(path.with_suffix(".jpg"))
    path.unlink()
    assert find_samples(tmp_path, "train")[0].image_path.suffix == ".jpg"


def test_train_ids_are_used_where_there_are_no_label_ids(tmp_path):
    write_frame(tmp_path, "a_000000_000001", IMAGE, LABEL)
    path = tmp_path / "gtFine/train/a/a_000000_000001_gtFine_labelIds.png"
    path.rename(path.with_name("a_000000_000001_gtFine_labelTrainIds.png"))
    sample = find_samples(tmp_path, "train")[0]
    assert sample.train_ids
    assert (read_sample(sample, CITYSCAPES)[1] == 7).all()


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(DatasetError, match="there is no folder .*nowhere; give the one that holds leftImg8bit/"):
        find_samples(tmp_path / "nowhere", "train")


def test_missing_split_shows_what_is_expected(tmp_path):
    with pytest.raises(DatasetError, match="leftImg8bit/val; expected are images like leftImg8bit/val/<city>"):
        find_samples(tmp_path, "val")


def test_empty_split_says_0_images(tmp_path):
    (tmp_path / "leftImg8bit/train/a").mkdir(parents=True)
    (tmp_path / "leftImg8bit/train/a/notes.txt").touch()
    with pytest.raises(DatasetError, match="0 images in .*expected are"):
        find_samples(tmp_path, "train")


def test_image_without_label_is_named(tmp_path):
    write_frame(tmp_path, "a_000000_000001", IMAGE, LABEL)
    write_frame(tmp_path, "a_000000_000002", IMAGE, None)
    with pytest.raises(DatasetError, match="a_000000_000002_leftImg8bit.png has no label; put a_000000_000002_gtFine"):
        find_samples(tmp_path, "train")


def test_sizes_that_differ_are_named(tmp_path):
    write_frame(tmp_path, "a_000000_000001", IMAGE, LABEL[:, :5])
    with pytest.raises(DatasetError, match="is 4x5 and its image 4x6"):
        read_sample(find_samples(tmp_path, "train")[0], CITYSCAPES)
