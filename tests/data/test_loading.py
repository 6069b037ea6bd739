from dataclasses import replace

import pytest
import torch

from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import batch_keys, epoch_keys, eval_batches, num_batches, train_batches
from deeplabv3.errors import DatasetError, InputError
from tests.conftest import write_frame


def batches(config, workers=0, first_batch=0, epoch=0):
    samples = find_samples(config.data_dir, "train")
    config = replace(config, num_workers=workers)
    return list(train_batches(samples, CITYSCAPES, config, range(epoch, epoch + 1), first_batch))


def same(first, second):
    return len(first) == len(second) and all(
        torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and a.names == b.names
        for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(train_config, workers):
    assert same(batches(train_config), batches(train_config, workers))


def test_batches_do_not_depend_on_where_a_run_goes_on(train_config):
    assert same(batches(train_config)[1:], batches(train_config, first_batch=1))


def test_epochs_and_seeds_differ(train_config):
    assert not same(batches(train_config), batches(train_config, epoch=1))
    assert not same(batches(train_config), batches(replace(train_config, seed=1)))


def test_batch_is_uint8(train_config):
    batch = batches(train_config)[0]
    assert (batch.image.dtype, batch.image.shape) == (torch.uint8, (3, 3, 32, 48))
    assert (batch.label.dtype, batch.label.shape) == (torch.uint8, (3, 32, 48))


def test_order_is_a_permutation(train_config):
    third, fourth = ([key.index for key in epoch_keys(50, train_config, epoch)] for epoch in (3, 4))
    assert sorted(third) == list(range(50))
    assert third != fourth


def test_incomplete_batch_is_left_out(train_config):
    assert [len(keys) for keys in batch_keys(8, train_config, 0)] == [3, 3]


def test_too_few_images_for_a_batch(train_config):
    with pytest.raises(InputError, match="batch_size is 3 and the training split has 2 images; give at most 2"):
        num_batches(2, train_config)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_sample_is_named_from_any_process(train_config, tmp_path, workers):
    image = batches(train_config)[0].image[0].permute(1, 2, 0).numpy()
    for index in range(3):
        path = write_frame(tmp_path, f"a_000000_00000{index}", image, image[..., 0] * 0)
    path.write_bytes(b"broken")
    with pytest.raises(DatasetError, match="a_000000_000002_leftImg8bit.png"):
        batches(replace(train_config, data_dir=tmp_path), workers)


def test_eval_batches_keep_order_and_size(streets):
    samples = find_samples(streets, "val")
    grouped = list(eval_batches(samples, CITYSCAPES, 2))
    assert [len(batch) for batch in grouped] == [2, 1]
    assert [frame.name for batch in grouped for frame in batch] == [sample.name for sample in samples]


def test_frames_of_another_size_start_a_new_batch(tmp_path, rng):
    for index, width in enumerate((6, 6, 5, 6)):
        image = rng.integers(0, 256, (4, width, 3), dtype="uint8")
        write_frame(tmp_path, f"a_000000_00000{index}", image, image[..., 0] * 0, "val")
    batches = eval_batches(find_samples(tmp_path, "val"), CITYSCAPES, 4)
    shapes = [[frame.label_ids.shape for frame in batch] for batch in batches]
    assert shapes == [[(4, 6), (4, 6)], [(4, 5)], [(4, 6)]]
