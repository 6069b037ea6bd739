"""What may be another one when a run goes on, and what may not."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from deeplabv3.config import LossConfig, Phase
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.errors import CheckpointError, DatasetError, InputError
from deeplabv3.model import device
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from deeplabv3.training.stopping import Stopped


def test_resume_on_other_classes_is_refused(whole_run):
    config, _ = whole_run
    with pytest.raises(InputError, match="was trained on other classes"):
        train(replace(config, resume=True, ignored_classes=("train",)))


def test_resume_within_another_epoch_is_refused(whole_run, tmp_path, stop_at):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    stop_at(1)
    with pytest.raises(Stopped):
        train(config)
    with pytest.raises(
        InputError, match="within an epoch of 2 steps of 3 from 6 images .* and cannot go on in one of 3 steps of 2"
    ):
        train(replace(config, resume=True, batch_size=2))


@pytest.fixture
def stopped_in_second_epoch(whole_run, tmp_path, stop_at):
    """After two of its six batches; the data set is a copy."""
    config = replace(whole_run[0], run_dir=tmp_path / "run", data_dir=tmp_path / "d", batch_size=1)
    shutil.copytree(whole_run[0].data_dir, config.data_dir)
    stop_at(8)
    with pytest.raises(Stopped):
        train(config)
    stop_at(-1)
    return replace(config, resume=True)


def test_epoch_of_a_frame_that_is_left_out_begins_anew(stopped_in_second_epoch, capsys):
    config = stopped_in_second_epoch
    find_samples(config.data_dir, "train")[0].image_path.write_bytes(b"")
    with pytest.raises(DatasetError, match="it has 0 bytes; .*\nmend them, or add --skip-bad"):
        train(config)
    with pytest.raises(InputError, match="cannot go on in .*; give the options that it began with"):
        train(replace(config, skip_bad=True, batch_size=2))
    history = train(replace(config, skip_bad=True))
    err = capsys.readouterr().err
    assert err.count("epoch 2 begins anew, from the weights as they were after 2 of its batches") == 1
    assert [entry["step"] for entry in history] == [6, 10, 15, 20]
    assert all(entry["num_skipped"] == 0 for entry in history)


def test_frame_that_breaks_with_its_time_as_it_was_can_be_left_out(stopped_in_second_epoch, capsys):
    """What the check remembers of it is not believed any more once it could not be read."""
    config = stopped_in_second_epoch
    path = find_samples(config.data_dir, "train")[0].image_path
    state = path.stat()
    path.write_bytes(bytes(state.st_size))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DatasetError, match="the run is saved at epoch .*: put that right and add --resume"):
        train(config)
    with pytest.raises(DatasetError, match="mend them, or add --skip-bad"):
        train(config)
    assert len(train(replace(config, skip_bad=True))) == 4


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("class_sampling", 0.5)])
def test_epoch_in_another_order_is_not_gone_on_with(whole_run, tmp_path, stop_at, name, value):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    was = getattr(config, name)
    stop_at(1)
    with pytest.raises(Stopped):
        train(config)
    with pytest.raises(InputError, match=rf"within an epoch that {name} {was} arranged, not {value}; give {was}"):
        train(replace(config, resume=True, **{name: value}))
    stop_at(1)  # the last of its epoch
    with pytest.raises(Stopped):
        train(replace(config, resume=True))
    stop_at(-1)
    train(replace(config, resume=True, **{name: value}))


@pytest.fixture
def stop_and_relabel(stop_at):
    """Stop a new run after some steps; then its first training frame shows no road any more, but sidewalk."""

    def stop(config, which):
        stop_at(which)
        with pytest.raises(Stopped):
            train(replace(config, resume=False))
        stop_at(-1)
        show_no_road(find_samples(config.data_dir, "train")[:1])

    return stop


def show_no_road(samples):
    for sample in samples:
        values = np.asarray(Image.open(sample.label_path))
        Image.fromarray(np.where(values == 7, 8, values)).save(sample.label_path)


def test_epoch_that_was_drawn_by_other_labels_is_not_gone_on_with(stopped_in_second_epoch, stop_and_relabel):
    config = replace(stopped_in_second_epoch, class_sampling=0.5, run_dir=stopped_in_second_epoch.run_dir / "sampled")
    stop_and_relabel(config, 1)
    with pytest.raises(InputError, match="cannot go on in one of frames that are drawn by other labels; restore"):
        train(config)


def test_labels_that_weights_follow_from_are_told_of(stopped_in_second_epoch, stop_and_relabel, capsys):
    folder = stopped_in_second_epoch.run_dir / "weighed"
    config = replace(stopped_in_second_epoch, loss=LossConfig(class_weights="counts"), run_dir=folder)
    stop_and_relabel(config, 1)
    train(config)
    assert "note: the labels of training show something else than before" in capsys.readouterr().err


def test_drawn_epoch_that_is_trained_is_validated_whatever_the_labels_are_by_now(
    stopped_in_second_epoch, stop_and_relabel
):
    folder = stopped_in_second_epoch.run_dir / "sampled"
    config = replace(stopped_in_second_epoch, class_sampling=0.5, run_dir=folder)
    stop_and_relabel(config, 6)  # the last of its epoch
    assert [entry["step"] for entry in train(config)] == [6, 12, 18, 24]


def test_other_frames_of_validation_are_told(stopped_in_second_epoch, capsys):
    for path in stopped_in_second_epoch.data_dir.rglob(
        f"{find_samples(stopped_in_second_epoch.data_dir, 'val')[0].name}*"
    ):
        path.unlink()
    train(stopped_in_second_epoch)
    assert "note: the frames of val are others than before; the best checkpoint so far was" in capsys.readouterr().err


def test_label_set_of_another_name_is_the_same(stopped_in_second_epoch, tmp_path, capsys):
    classes = [{"name": row.name, "id": row.id, "color": [1, 2, row.train_id]} for row in CITYSCAPES.evaluated]
    ignored = [row.id for row in CITYSCAPES.classes if row.train_id == IGNORE_INDEX]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"classes": classes, "ignored_ids": ignored}))
    config = replace(stopped_in_second_epoch, run_dir=tmp_path / "own", labels=tmp_path / "mine.yaml", resume=False)
    config = replace(config, phases=(Phase(epochs=1, learning_rate=0.01),))
    train(config)
    (tmp_path / "mine.yaml").rename(tmp_path / "ours.yaml")
    longer = (Phase(epochs=2, learning_rate=0.01),)
    train(replace(config, labels=tmp_path / "ours.yaml", phases=longer, resume=True))
    assert "note: the label set has another name, or other colours" in capsys.readouterr().err


def test_epoch_that_taught_nothing_says_so(stopped_in_second_epoch, capsys):
    config = replace(stopped_in_second_epoch, run_dir=stopped_in_second_epoch.run_dir / "none", resume=False)
    show_no_road(find_samples(config.data_dir, "train"))
    weights = (1.0,) + (0.0,) * 18  # no frame shows a road
    train(replace(config, loss=LossConfig(class_weights=weights), phases=(Phase(epochs=1, learning_rate=0.01),)))
    assert "training loss 0.0000 (nothing was learned: no batch had a pixel" in capsys.readouterr().out


def test_frame_whose_name_is_no_text_is_trained_on(stopped_in_second_epoch):
    config = replace(stopped_in_second_epoch, run_dir=stopped_in_second_epoch.run_dir / "bytes", resume=False)
    name = find_samples(config.data_dir, "train")[0].name
    for path in config.data_dir.rglob(f"{name}*"):
        path.rename(path.with_name(path.name.replace(name, f"{name}\udcfc")))
    assert len(train(replace(config, phases=(Phase(epochs=1, learning_rate=0.01),)))) == 1


def test_shorter_phases_leave_a_finished_run_as_it_is(whole_run, tmp_path, capsys):
    config = replace(whole_run[0], run_dir=tmp_path / "run", losses_dir=tmp_path / "losses")
    train(config)
    plots = {path: path.read_bytes() for path in config.losses_dir.iterdir()}
    shorter = replace(config, resume=True, phases=(Phase(epochs=2, learning_rate=0.05),))
    assert len(train(shorter)) == 4
    assert "epoch 4 is done" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in config.losses_dir.iterdir()} == plots


def test_longer_phases_go_on_within_the_epoch_that_was_cut_short(train_config):
    """Epochs have two steps; without a decay of the rate, the longer run is known from its beginning."""
    config = replace(train_config, phases=(Phase(steps=5, learning_rate=0.01),), poly_power=0.0)
    whole = replace(config, run_dir=config.run_dir.with_name("whole"))
    train(replace(config, phases=(Phase(steps=3, learning_rate=0.01),)))
    history, wanted = train(replace(config, resume=True)), train(whole)
    assert [entry["step"] for entry in history] == [entry["step"] for entry in wanted] == [2, 4, 5]
    assert [entry["train_loss"] for entry in history] == pytest.approx([entry["train_loss"] for entry in wanted])
    ours, theirs = (read_checkpoint(RunPaths(run).last) for run in (config, whole))
    assert digest(ours.tensors, "") == digest(theirs.tensors, "")


def test_epoch_that_was_cut_short_is_not_gone_on_with_in_another_order(train_config):
    """Its frames would come twice or never; the next epoch begins instead."""
    train(replace(train_config, phases=(Phase(steps=3, learning_rate=0.01),)))
    phases = (Phase(steps=6, learning_rate=0.01),)
    assert [entry["step"] for entry in train(replace(train_config, phases=phases, resume=True, seed=1))] == [2, 3, 6]


def test_schedule_does_not_go_back(train_config):
    train(replace(train_config, batch_size=2, phases=(Phase(epochs=2, learning_rate=0.01),)))
    longer = replace(train_config, batch_size=6, phases=(Phase(epochs=4, learning_rate=0.01),), resume=True)
    last = RunPaths(train_config).last
    before = last.read_bytes()
    with pytest.raises(
        InputError,
        match="was saved after step 6, and with 1 steps of 6 from 6 images .* its next epoch would end at step 3; keep",
    ):
        train(longer)
    assert last.read_bytes() == before


def test_schedule_of_steps_leaves_none_out(train_config):
    """Behind two epochs of one step, two epochs of three would be six; counted in epochs, it goes on behind them."""
    train(replace(train_config, batch_size=6, phases=(Phase(steps=2, learning_rate=0.01),)))
    last = RunPaths(train_config).last
    before = last.read_bytes()
    longer = replace(train_config, batch_size=2, phases=(Phase(steps=9, learning_rate=0.01),), resume=True)
    with pytest.raises(InputError, match="saved after step 2, and with .* it would go on at step 6 of phases that are"):
        train(longer)
    assert last.read_bytes() == before
    history = train(replace(longer, phases=(Phase(epochs=3, learning_rate=0.01),)))
    assert [entry["step"] for entry in history] == [1, 2, 9]


def test_resume_with_other_images_says_so(whole_run, tmp_path, capsys):
    config = replace(whole_run[0], run_dir=tmp_path / "run", data_dir=tmp_path / "d")
    shutil.copytree(whole_run[0].run_dir, config.run_dir)
    shutil.copytree(whole_run[0].data_dir, config.data_dir)
    sample = find_samples(config.data_dir, "train")[0]
    for path in (sample.image_path, sample.label_path):
        path.rename(path.with_name(path.name.replace(sample.name, "other_000000_000000")))
    train(replace(config, resume=True))
    assert "an epoch of 2 steps of 3 from 6 images" in capsys.readouterr().err


def test_steps_that_are_not_left_out_are_no_reason_to_refuse(train_config, tmp_path):
    """Of a phase that comes later, and of a run that is finished."""
    first = Phase(epochs=2, learning_rate=0.01)
    data = shutil.copytree(train_config.data_dir, tmp_path / "d")
    config = replace(train_config, data_dir=data, batch_size=6, phases=(first,))
    train(config)
    later = replace(config, batch_size=2, phases=(first, Phase(steps=2, learning_rate=0.01)), resume=True)
    assert [entry["step"] for entry in train(later)] == [1, 2, 8]
    sample = find_samples(data, "train")[0]
    for path in (sample.image_path, sample.label_path):
        path.rename(path.with_name(path.name.replace(sample.name, "other_000000_000000")))
    assert len(train(later)) == 3


def test_resume_with_another_model_is_refused(whole_run):
    config, _ = whole_run
    with pytest.raises(CheckpointError, match="another network .width 16 -> 32.; give the options that it began with"):
        train(replace(config, resume=True, model=replace(config.model, width=32)))


@pytest.mark.parametrize("is_native", [True, False])
def test_precision_that_a_machine_chose_is_recorded(whole_run, tmp_path, monkeypatch, capsys, stop_at, is_native):
    config = replace(whole_run[0], run_dir=tmp_path / "run", precision="auto")
    monkeypatch.setattr(device, "has_native_bfloat16", lambda _: is_native)
    stop_at(1)
    with pytest.raises(Stopped):
        train(config)
    stop_at(-1)
    ours, theirs = ("bfloat16", "float32") if is_native else ("float32", "bfloat16")
    assert f"precision: {ours}" in RunPaths(config).config.read_text()
    monkeypatch.setattr(device, "has_native_bfloat16", lambda _: not is_native)
    train(replace(config, resume=True))
    assert f"goes on with other values than it began with: precision {ours} -> {theirs}" in capsys.readouterr().err


def test_resume_with_other_values_says_so(whole_run, capsys):
    config, _ = whole_run
    train(replace(config, resume=True, momentum=0.5))
    assert "goes on with other values than it began with: momentum 0.9 -> 0.5" in capsys.readouterr().err
