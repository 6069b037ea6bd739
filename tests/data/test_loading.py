from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from deeplabv3.config import CheckConfig
from deeplabv3.data.batches import SharedBatches
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_sample
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import eval_batches, train_batches
from deeplabv3.data.sampling import batch_keys, class_pixels, epoch_keys, num_batches
from deeplabv3.data.workers import read_by_workers
from deeplabv3.errors import DatasetError, InputError
from deeplabv3.report.defects import checked
from deeplabv3.training.loop import train
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


def samples_by_name(config, epoch=0):
    """The sample of each frame, whatever the order: its image's bytes and its change of colour."""
    return {
        name: (image.numpy().tobytes(), color.numpy().tobytes())
        for batch in batches(config, epoch=epoch)
        for name, image, color in zip(batch.names, batch.image, batch.color, strict=True)
    }


@pytest.mark.parametrize(("seed", "epoch"), [(1, 0), (0, 1)])
def test_same_frame_is_augmented_anew_in_another_epoch_and_run(train_config, seed, epoch):
    one, other = samples_by_name(train_config), samples_by_name(replace(train_config, seed=seed), epoch)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name][0] != other[name][0], name
        assert one[name][1] != other[name][1], name


def test_batch_is_uint8_and_channels_last(train_config):
    batch = batches(train_config)[0]
    assert (batch.image.dtype, batch.image.shape) == (torch.uint8, (3, 3, 32, 48))
    assert batch.image.is_contiguous(memory_format=torch.channels_last)
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


def shown(*frames):
    """Which classes each frame shows, as numbers of pixels."""
    return np.array([[9 * (train_id in frame) for train_id in range(19)] for frame in frames])


def test_half_of_the_samples_are_drawn_for_their_classes(train_config):
    frames = shown(*[{0}] * 98, {0, 12}, {0, 12, 17})
    config = replace(train_config, class_sampling=0.5)
    keys = [key for epoch in range(60) for key in epoch_keys(100, config, epoch, frames)]
    drawn = [key for key in keys if key.wanted_class is not None]
    assert len(drawn) == len(keys) // 2
    assert all(frames[key.index, key.wanted_class] for key in drawn)
    for train_id in (0, 12, 17):
        assert sum(key.wanted_class == train_id for key in drawn) == pytest.approx(1000, rel=0.1)
    assert sum(key.index == 99 for key in keys) > 1200  # of 60 without it


def test_frame_that_comes_again_is_augmented_anew(train_config):
    config = replace(train_config, class_sampling=1.0)
    keys = epoch_keys(6, config, 0, shown(*[{3}] * 6))
    assert len({(key.index, key.again) for key in keys}) == 6
    assert len({key.index for key in keys}) < 6
    samples = find_samples(config.data_dir, "train")
    stream = train_batches(samples, CITYSCAPES, config, range(1), 0, shown(*[{3}] * 6))
    pairs = (pair for batch in stream for pair in zip(batch.names, batch.image, strict=True))
    found = [(name, image.numpy().tobytes()) for name, image in pairs]
    assert len(set(found)) == 6 > len({name for name, _ in found})


@pytest.mark.parametrize("workers", [0, 2])
def test_crop_that_was_drawn_for_a_class_shows_it(train_config, tmp_path, rng, workers):
    """Four pixels of a bus in a frame of which a crop shows a sixtieth."""
    for index in range(6):
        image, label = rng.integers(0, 256, (120, 240, 3), dtype="uint8"), np.full((120, 240), 7, np.uint8)
        row, column = rng.integers(0, 119), rng.integers(0, 239)
        label[row : row + 2, column : column + 2] = 28
        write_frame(tmp_path, f"a_000000_00000{index}", image, label)
    config = replace(train_config, class_sampling=1.0, crop_size=(20, 24), scale_range=(1, 1), num_workers=workers)
    bus, frames = 15, find_samples(tmp_path, "train")
    labels = [batch.label for batch in train_batches(frames, CITYSCAPES, config, range(3), 0, shown(*[{bus}] * 6))]
    assert all((label == bus).any() for label in torch.cat(labels))
    config = replace(config, class_sampling=0.0)
    labels = [batch.label for batch in train_batches(frames, CITYSCAPES, config, range(3), 0)]
    assert sum((label == bus).any() for label in torch.cat(labels)) < 9  # of 18


def test_no_class_to_draw_for_is_told(train_config):
    with pytest.raises(InputError, match="class_sampling is 0.5 and no training frame shows a class that is trained"):
        epoch_keys(6, replace(train_config, class_sampling=0.5), 0, shown(*[()] * 6))


def test_without_class_sampling_each_frame_comes_once(train_config):
    assert epoch_keys(50, train_config, 2) == epoch_keys(50, train_config, 2, shown(*[{1}] * 50))


@pytest.mark.parametrize("workers", [0, 2])
def test_sampled_batches_do_not_depend_on_workers_or_where_a_run_goes_on(train_config, workers):
    config = replace(train_config, class_sampling=0.5, cat_max_ratio=0.75, num_workers=workers)
    samples = find_samples(config.data_dir, "train")
    pixels = shown(*[{0, 11}] * 5, {0, 13})
    whole = list(train_batches(samples, CITYSCAPES, replace(config, num_workers=0), range(3), 0, pixels))
    later = list(train_batches(samples, CITYSCAPES, config, range(1, 3), 1, pixels))
    assert len(whole) == 6
    assert same(whole[3:], later)


def test_pixels_of_each_class_are_counted(train_config):
    findings = checked(CheckConfig(data_dir=train_config.data_dir), CITYSCAPES)
    samples = find_samples(train_config.data_dir, "train")
    counts = class_pixels(samples, findings.label_values, CITYSCAPES)
    for sample, row in zip(samples, counts, strict=True):
        label = read_sample(sample, CITYSCAPES)[1]
        np.testing.assert_array_equal(row, np.bincount(label.ravel(), minlength=256)[:19])


def test_colors_travel_with_the_batch(train_config):
    batch = batches(train_config)[0]
    assert batch.color is not None
    assert (batch.color.dtype, batch.color.shape) == (torch.float32, (3, 3, 4))
    assert batches(replace(train_config, photometric_distortion=False))[0].color is None


def test_memory_that_another_process_took_is_told(monkeypatch):
    refused = RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")
    monkeypatch.setattr(torch.Tensor, "share_memory_", Mock(side_effect=refused))
    with pytest.raises(InputError, match=r"/dev/shm has .* bytes free and the processes .* share 24; give fewer"):
        SharedBatches(1, 2, (1, 3))
    refused = RuntimeError(
        "unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"
    )
    monkeypatch.setattr(torch.Tensor, "share_memory_", Mock(side_effect=refused))
    with pytest.raises(InputError, match=r"no memory can be shared \(.*Too many open files.*\); give --num-workers 0"):
        SharedBatches(1, 2, (1, 3))


def test_validation_waits_as_long_as_training(train_config, monkeypatch):
    """What a run is told of its readers goes for both."""
    read = Mock(side_effect=read_by_workers)
    monkeypatch.setattr("deeplabv3.data.loading.read_by_workers", read)
    train(replace(train_config, worker_timeout_seconds=77.0))
    told = [call.kwargs["timeout_seconds"] for call in read.call_args_list]
    assert told.count(77.0) == 1 + 4  # the batches of the run, and four validations
