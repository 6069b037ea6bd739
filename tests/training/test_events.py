"""What TensorBoard reads of a run: the curves of its history, pictures of a few frames, and nothing twice."""

import errno
import io
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServerAccumulator

from deeplabv3.config import InferenceConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.images import read_image
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.streets import write_streets
from deeplabv3.errors import InputError, OutputError
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.prediction.render import colorize, overlay
from deeplabv3.training import events
from deeplabv3.training.events import Events, event_files, require_tensorboard, spread
from deeplabv3.training.loop import train
from tests.conftest import REPOSITORY

ALL = {"scalars": 0, "images": 0}


def entry_of(epoch, *, validated=True, **changed):
    """An epoch of two steps."""
    return {
        "epoch": epoch,
        "step": 2 * epoch,
        "learning_rate": 0.5 / epoch,
        "train_loss": 1 / epoch,
        "val_loss": 2 / epoch if validated else None,
        "miou": epoch / 8 if validated else None,
        "class_iou": {"road": epoch / 4, "traffic light": None} if validated else None,
        "images_per_second": 8.0,
        "waiting_share": 0.25,
    } | changed


HISTORY = [entry_of(1), entry_of(2, validated=False), entry_of(3), entry_of(4)]


def read(folder):
    return EventAccumulator(str(folder), size_guidance=ALL).Reload()


def curve(folder, tag="loss/train"):
    return [(point.step, point.value) for point in read(folder).Scalars(tag)]


def picture_steps(folder):
    accumulator = read(folder)
    return {tag: [image.step for image in accumulator.Images(tag)] for tag in accumulator.Tags()["images"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run" / "tensorboard"


@pytest.fixture(scope="module")
def samples(streets):
    return find_samples(streets, "val")


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return DeepLabV3(tiny_config)


def draw(folder_or_events, step, model, samples):
    writer = folder_or_events if isinstance(folder_or_events, Events) else Events(folder_or_events)
    writer.pictures(step, model, samples, CITYSCAPES, InferenceConfig())


def test_curves_are_those_of_the_history(folder):
    writer = Events(folder)
    for entry in HISTORY:
        writer.epoch(entry)
    assert curve(folder) == [(entry["step"], pytest.approx(entry["train_loss"])) for entry in HISTORY]
    assert curve(folder, "rate") == [(2, 0.5), (4, 0.25), (6, pytest.approx(0.5 / 3)), (8, 0.125)]
    assert curve(folder, "speed/images_per_second") == [(step, 8.0) for step in (2, 4, 6, 8)]
    assert curve(folder, "speed/waiting_share") == [(step, 0.25) for step in (2, 4, 6, 8)]


def test_what_was_not_validated_is_left_out(folder):
    writer = Events(folder)
    for entry in HISTORY:
        writer.epoch(entry)
    assert curve(folder, "miou/val") == [(2, 0.125), (6, 0.375), (8, 0.5)]
    assert curve(folder, "loss/val") == [(2, 2.0), (6, pytest.approx(2 / 3)), (8, 0.5)]
    assert curve(folder, "iou/road") == [(2, 0.25), (6, 0.75), (8, 1.0)]
    tags = {"loss/train", "loss/val", "rate", "miou/val", "iou/road"}
    tags |= {"speed/images_per_second", "speed/waiting_share"}
    assert set(read(folder).Tags()["scalars"]) == tags
    (path,) = event_files(folder)
    assert {value.tag for event in events._events_in(path.read_bytes()) for value in event.summary.value} == tags


def test_average_of_the_weights_has_a_curve_of_its_own(folder):
    Events(folder).epoch(entry_of(1, unaveraged_miou=0.75))
    assert curve(folder, "miou/val_unaveraged") == [(2, 0.75)]


def test_epoch_can_be_read_before_the_run_ends(folder):
    writer = Events(folder)
    writer.epoch(HISTORY[0])
    assert curve(folder) == [(2, 1.0)]
    writer.epoch(HISTORY[1])
    assert curve(folder) == [(2, 1.0), (4, 0.5)]


def test_nothing_is_there_before_something_is_written(folder):
    Events(folder)
    assert not folder.exists()
    assert event_files(folder) == []


def test_frames_are_spread_evenly():
    assert spread(500) == [0, 125, 250, 375]
    assert spread(4) == [0, 1, 2, 3]
    assert spread(3) == [0, 1, 2]
    assert spread(0) == []


def test_pictures_are_overlays_of_the_frames(folder, model, samples):
    draw(folder, 2, model, samples)
    accumulator = read(folder)
    assert accumulator.Tags()["images"] == [f"frames/{sample.name}" for sample in samples]
    for sample in samples:
        (event,) = accumulator.Images(f"frames/{sample.name}")
        seen = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"), np.int16)
        assert (event.step, event.height, event.width) == (2, *seen.shape[:2])
        image = read_image(sample.image_path)
        wanted = overlay(image, colorize(predict_image(model.eval(), image), CITYSCAPES), 0.55)
        height, width = image.shape[:2]
        assert seen.shape[0] > height  # the legend
        assert np.abs(seen[:height, :width] - wanted).mean() < 6  # JPEG


def test_pictures_keep_their_size_while_classes_come_and_go(folder, model, samples):
    sizes = set()
    for number in range(2):
        torch.nn.init.normal_(model.classifier.weight)  # another prediction
        draw(folder / str(number), 2, model, samples)
        (event,) = read(folder / str(number)).Images(f"frames/{samples[0].name}")
        sizes.add((event.height, event.width))
    assert len(sizes) == 1


def test_large_frames_are_made_smaller(folder, model, tmp_path):
    write_streets(tmp_path / "large", num_train=1, num_val=1, height=320, width=640, seed=1)
    (sample,) = find_samples(tmp_path / "large", "val")
    draw(folder, 2, model, [sample])
    (event,) = read(folder).Images(f"frames/{sample.name}")
    assert event.width == 512
    assert 256 < event.height < 400


def test_modes_and_random_state_are_as_before(folder, model, samples):
    model.train()
    frozen = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in frozen:
        module.eval()
    statistics = [module.running_mean.clone() for module in frozen]
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    draw(folder, 2, model, samples)
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert all(module.training != (module in frozen) for module in model.modules())
    assert all(torch.equal(module.running_mean, old) for module, old in zip(frozen, statistics, strict=True))


def test_modes_are_given_back_after_a_broken_frame(folder, model, samples, monkeypatch):
    monkeypatch.setattr(events, "read_image_of", lambda _: (_ for _ in ()).throw(InputError("broken")))
    model.train()
    with pytest.raises(InputError, match="broken"):
        draw(folder, 2, model, samples)
    assert all(module.training for module in model.modules())
    assert not folder.exists()


def test_run_that_goes_on_hides_what_lies_beyond_it(folder, model, samples):
    writer = Events(folder)
    for entry in HISTORY:
        writer.epoch(entry)
        draw(writer, entry["step"], model, samples[:1])
    resumed = Events(folder, HISTORY[:2])
    resumed.epoch(entry_of(3, train_loss=7.0))
    draw(resumed, 6, model, samples[:1])
    assert curve(folder) == [(2, 1.0), (4, 0.5), (6, 7.0)]
    assert picture_steps(folder) == {f"frames/{samples[0].name}": [2, 4, 6]}
    server = ServerAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()  # has rules of its own
    assert [event.step for event in server.Tensors("loss/train")] == [2, 4, 6]


def test_run_that_goes_on_at_its_end_hides_and_repeats_nothing(folder, model, samples):
    writer = Events(folder)
    for entry in HISTORY[:2]:
        writer.epoch(entry)
        draw(writer, entry["step"], model, samples[:1])
    for reached in (2, 3):  # resumed twice within a second
        Events(folder, HISTORY[:reached]).epoch(HISTORY[reached])
    assert curve(folder) == [(entry["step"], pytest.approx(entry["train_loss"])) for entry in HISTORY]
    assert picture_steps(folder) == {f"frames/{samples[0].name}": [2, 4]}
    assert len(event_files(folder)) == 3


def test_epoch_that_a_crash_left_out_is_written_anew(folder):
    Events(folder).epoch(HISTORY[0])
    Events(folder, HISTORY[:2])
    assert curve(folder) == [(2, 1.0), (4, 0.5)]


def test_epoch_that_was_hidden_counts_as_left_out(folder):
    writer = Events(folder)
    for entry in HISTORY:
        writer.epoch(entry)
    Events(folder, HISTORY[:2]).epoch(HISTORY[2])
    Events(folder, [*HISTORY[:3], entry_of(4, train_loss=7.0)])
    assert curve(folder) == [(2, 1.0), (4, 0.5), (6, pytest.approx(1 / 3)), (8, 7.0)]


def test_run_that_began_without_events_has_all_of_them(folder):
    Events(folder, HISTORY).epoch(entry_of(5))
    assert [step for step, _ in curve(folder)] == [2, 4, 6, 8, 10]
    assert [step for step, _ in curve(folder, "miou/val")] == [2, 6, 8, 10]


def test_epochs_after_a_gap_are_in_order(folder):
    Events(folder).epoch(HISTORY[0])
    with_gap = Events(folder, HISTORY[:1])
    with_gap.epoch(HISTORY[2])
    Events(folder, HISTORY[:3])
    assert [step for step, _ in curve(folder)] == [2, 4, 6]


@pytest.mark.parametrize("kept", [-1, -30, 3])
def test_torn_record_is_written_anew(folder, kept):
    writer = Events(folder)
    for entry in HISTORY[:2]:
        writer.epoch(entry)
    (path,) = event_files(folder)
    path.write_bytes(path.read_bytes()[:kept])
    Events(folder, HISTORY[:2])
    assert curve(folder) == [(2, 1.0), (4, 0.5)]


def test_record_of_zeros_is_written_anew(folder):
    """A power cut can leave a file whose size outlived its content."""
    writer = Events(folder)
    writer.epoch(HISTORY[0])
    (path,) = event_files(folder)
    size = path.stat().st_size
    writer.epoch(HISTORY[1])
    content = path.read_bytes()
    path.write_bytes(content[: size + 12] + bytes(len(content) - size - 12))
    Events(folder, HISTORY[:2])
    assert curve(folder) == [(2, 1.0), (4, 0.5)]


def test_full_disk_is_one_line_and_leaves_whole_records(folder, monkeypatch):
    writer = Events(folder)
    writer.epoch(HISTORY[0])
    (path,) = event_files(folder)
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(
            OutputError,
            match=r"cannot be written: No space left on device; it needs 121 bytes and .* are free: make room",
        ) as caught:
            writer.epoch(HISTORY[1])
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    Events(folder, HISTORY[:2])
    assert curve(folder) == [(2, 1.0), (4, 0.5)]


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder .*file/tensorboard cannot be made: Not a directory"):
        Events(tmp_path / "file" / "tensorboard").epoch(HISTORY[0])


def test_run_says_how_to_go_on_where_its_events_cannot_be_written(whole_run, tmp_path):
    config = replace(whole_run[0], run_dir=tmp_path / "run", tensorboard=True)
    shutil.copytree(whole_run[0].run_dir, config.run_dir)
    (config.run_dir / "tensorboard").touch()
    with pytest.raises(OutputError, match="tensorboard cannot be made: .*, then go on from .*last.* with --resume"):
        train(replace(config, resume=True))


def test_file_that_cannot_be_read_is_named(folder):
    (folder / "events.out.tfevents.0000000001.deeplabv3").mkdir(parents=True)
    with pytest.raises(OutputError, match="0000000001.deeplabv3 cannot be read: Is a directory; remove it"):
        Events(folder)


def test_missing_package_is_named_with_its_line(monkeypatch):
    require_tensorboard()
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(InputError, match=r"need an extra: pip install 'deeplabv3\[tensorboard\]'$"):
        require_tensorboard()


def test_module_does_without_the_package_until_it_is_asked():
    code = "import sys, deeplabv3.training.events\nsys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0


def test_names_of_any_kind_can_be_tags(folder):
    Events(folder).epoch(entry_of(1, class_iou={"a/b \udcff\n$": 0.5}))
    assert curve(folder, "iou/a/b ??$") == [(2, 0.5)]
