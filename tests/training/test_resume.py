"""A run that was stopped, broken or killed goes on as if nothing had happened, or says why it cannot."""

import os
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch

from deeplabv3.config import Phase
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.errors import CheckpointError, DatasetError, InputError
from deeplabv3.files import only_writer
from deeplabv3.model import device
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.training import loop, stopping, validation
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths, write_history
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import final_state, ignored_sigterm, timeless


@pytest.mark.parametrize("step", [1, 2, 3, 4, 7, 8])
def test_stopped_and_resumed_is_uninterrupted(whole_run, tmp_path, stop_at, step):
    """Step 4 is 2+2 epochs; 2, 4 and 8 stop before a validation, odd ones within an epoch, 7 in the second phase."""
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    stop_at(step)
    with pytest.raises(Stopped, match=r"saved in .*last.safetensors") as stopped:
        train(config)
    assert stopped.value.exit_code == 130
    train(replace(config, resume=True))
    assert final_state(config) == final_state(whole_run[0])


def test_two_stops_in_one_run(whole_run, tmp_path, stop_at):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    for _ in range(2):
        stop_at(3, signal.SIGTERM)
        with pytest.raises(Stopped) as stopped:
            train(config)
        assert stopped.value.exit_code == 143
        config = replace(config, resume=True)
    stop_at(-1)
    train(config)
    assert final_state(config) == final_state(whole_run[0])


def test_stop_during_validation(whole_run, tmp_path, monkeypatch):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(validation, "score_model", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Stopped, match="stopped in epoch 1 of 4, batch 2 of 2"):
            train(config)
    train(replace(config, resume=True))
    assert final_state(config) == final_state(whole_run[0])


def test_finished_run_resumes_to_itself(whole_run, capsys):
    config, history = whole_run
    before = final_state(config)
    assert timeless(train(replace(config, resume=True))) == timeless(history)
    assert final_state(config) == before
    assert capsys.readouterr() == ("all 4 epochs are done already; longer --phases go on from here\n", "")


def test_leftovers_of_a_killed_run_are_removed(whole_run, tmp_path):
    """Those under names of this run; nothing else is touched."""
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    shutil.copytree(whole_run[0].run_dir, config.run_dir)
    own = [config.run_dir / "checkpoints" / f".{name}.safetensors.partial" for name in ("best", "last", "epoch_2")]
    other = config.run_dir / "checkpoints" / ".other.safetensors.partial"
    for path in (*own, other):
        path.write_text("half")
    train(replace(config, resume=True))
    assert list(config.run_dir.rglob("*.partial")) == [other]


@pytest.mark.parametrize("which", ["run_dir", "checkpoint_dir", "losses_dir"])
def test_two_runs_do_not_write_into_one_folder(train_config, tmp_path, which):
    """Nothing that the other one writes is touched, nor begun; behind it the folder is free."""
    folder = tmp_path / "held"
    config = replace(train_config, **{which: folder})
    folder.mkdir()
    partial = folder / ".last.safetensors.partial"
    partial.write_text("half")
    with only_writer(folder), pytest.raises(InputError, match=f"^another process writes into {folder}; wait for it"):
        train(config)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [partial]
    for _ in range(2):
        with only_writer(folder):
            pass


def require_held(folder):
    with pytest.raises(InputError, match="another process writes into"):
        only_writer(folder).__enter__()


def watched(monkeypatch, name, watch):
    """Has a function called before one of the loop's, each time."""
    real = getattr(loop, name)
    monkeypatch.setattr(loop, name, lambda *arguments: (watch(), real(*arguments))[1])


def test_run_holds_its_folders_to_its_end(whole_run, tmp_path, monkeypatch):
    """Two names of one folder are one."""
    config = replace(whole_run[0], run_dir=tmp_path / "run", checkpoint_dir=tmp_path / "link")
    config.run_dir.mkdir()
    config.checkpoint_dir.symlink_to(config.run_dir)
    held = []
    for name in ("set_up", "train_step", "write_history"):
        watched(monkeypatch, name, lambda name=name: held.append((name, require_held(config.run_dir))))
    train(config)
    assert len({name for name, _ in held}) == 3
    assert held[-1][0] == "write_history"  # the one at the end
    with only_writer(config.run_dir):
        pass


def test_new_run_holds_folders_that_it_made(whole_run, tmp_path, monkeypatch):
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    watched(monkeypatch, "train_step", lambda: [require_held(folder) for folder in RunPaths(config).folders])
    train(config)


def test_run_that_came_and_went_meanwhile_is_not_overwritten(whole_run, tmp_path, monkeypatch):
    """Neither had made its folder when both had found none."""
    config = replace(whole_run[0], run_dir=tmp_path / "run")
    monkeypatch.setattr(loop, "load_initial_weights", lambda *_: shutil.copytree(whole_run[0].run_dir, config.run_dir))
    with pytest.raises(InputError, match=r"is there already: add --resume to go on with its run"):
        train(config)
    assert final_state(config) == final_state(whole_run[0])


@pytest.mark.parametrize("split", ["train", "val"])
def test_broken_frame_ends_the_run_saved(unchecked, train_config, streets, tmp_path, whole_run, split):
    """Broken after the check: it is found out when the frame is read."""
    data = tmp_path / "d"
    shutil.copytree(streets, data)
    path = find_samples(data, split)[0].image_path
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    config = replace(whole_run[0], data_dir=data, run_dir=tmp_path / "run")
    with pytest.raises(DatasetError, match=f"{path.name} .*; the run is saved at epoch 1 of 4, .*add --resume"):
        train(config)
    path.write_bytes(content)
    train(replace(config, resume=True))
    assert final_state(config) == final_state(whole_run[0])


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


def test_epoch_of_a_frame_that_is_left_out_begins_anew(whole_run, tmp_path, stop_at, capsys):
    config = replace(whole_run[0], run_dir=tmp_path / "run", data_dir=tmp_path / "d")
    shutil.copytree(whole_run[0].data_dir, config.data_dir)
    stop_at(3)
    with pytest.raises(Stopped):
        train(config)
    stop_at(-1)
    find_samples(config.data_dir, "train")[0].image_path.write_bytes(b"")
    with pytest.raises(DatasetError, match="it has 0 bytes; .*\nmend them, or add --skip-bad"):
        train(replace(config, resume=True))
    history = train(replace(config, resume=True, skip_bad=True, batch_size=2))
    assert "epoch 2 begins anew, from the weights as they were after 1 of its batches" in capsys.readouterr().err
    assert [entry["step"] for entry in history] == [2, 4, 6, 8]
    assert all(entry["num_skipped"] == 0 for entry in history)


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


def test_shorter_phases_leave_a_finished_run_as_it_is(whole_run, tmp_path, capsys):
    config = replace(whole_run[0], run_dir=tmp_path / "run", losses_dir=tmp_path / "losses")
    train(config)
    plots = {path: path.read_bytes() for path in config.losses_dir.iterdir()}
    shorter = replace(config, resume=True, phases=(Phase(epochs=2, learning_rate=0.05),))
    assert len(train(shorter)) == 4
    assert "all 4 epochs are done already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in config.losses_dir.iterdir()} == plots


def test_reader_that_a_signal_to_all_ends_is_no_broken_frame(train_config, monkeypatch):
    """In a validation by several processes, which go on to its end."""

    def end_reader(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise DatasetError("a process that reads images was ended by SIGTERM")

    monkeypatch.setattr(stopping, "num_processes", lambda: 2)
    monkeypatch.setattr(loop, "validate", end_reader)
    with pytest.raises(Stopped, match=r"stopped in epoch .*; saved in ") as stopped:
        train(train_config)
    assert stopped.value.exit_code == 143


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


def test_run_that_failed_at_once_can_be_started_again(train_config, monkeypatch):
    def fail(*arguments):
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", fail)
        with pytest.raises(InputError, match="memory of cpu is too small for batch_size 3 with crops of 32x48; lower"):
            train(train_config)
    assert len(train(replace(train_config, phases=train_config.phases[1:]))) == 1


def test_second_interrupt_ends_at_once(train_config, monkeypatch):
    def two_signals(*arguments):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "train_step", two_signals)
    with pytest.raises(KeyboardInterrupt):
        train(train_config)


def test_signals_do_not_disturb_the_save(train_config, stop_at, monkeypatch):
    stop_at(1, signal.SIGTERM)

    def encode(*arguments):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
            os.kill(os.getpid(), number)
        return b"state"

    monkeypatch.setattr(loop, "encode_checkpoint", encode)
    with pytest.raises(Stopped):
        train(train_config)
    assert RunPaths(train_config).last.read_bytes() == b"state"


def test_signal_after_the_last_step_changes_nothing(train_config, stop_at, monkeypatch):
    def signal_and_write(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        write_history(*arguments)

    with ignored_sigterm(), monkeypatch.context() as patch:
        patch.setattr(loop, "write_history", signal_and_write)
        assert len(train(replace(train_config, phases=train_config.phases[1:]))) == 1


def test_training_outside_the_main_thread(train_config):
    results = []
    config = replace(train_config, phases=train_config.phases[1:])
    thread = threading.Thread(target=lambda: results.append(train(config)))
    thread.start()
    thread.join()
    assert len(results[0]) == 1


def test_nothing_to_resume(train_config):
    with pytest.raises(InputError, match="there is no run to resume"):
        train(replace(train_config, resume=True))
    assert not train_config.run_dir.exists()


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


@pytest.mark.parametrize("kept", [True, False])
def test_run_that_lost_its_last_checkpoint_is_not_begun_anew(whole_run, tmp_path, kept):
    """What else there is of it would be overwritten."""
    config = replace(whole_run[0], run_dir=tmp_path / "run", resume=True)
    shutil.copytree(whole_run[0].run_dir, config.run_dir)
    paths = RunPaths(config, 2)
    for path in [paths.last] if kept else paths.checkpoint_dir.iterdir():
        path.unlink()
    before = {path: path.read_bytes() for path in config.run_dir.rglob("*") if path.is_file()}
    copied = r"last.safetensors is gone, and .*best.safetensors is there; copy a kept checkpoint to its place"
    with pytest.raises(InputError, match=copied if kept else "there is no run to resume: .*; choose another folder"):
        train(config)
    assert {path: path.read_bytes() for path in config.run_dir.rglob("*") if path.is_file()} == before
    if kept:
        shutil.copy(paths.kept(2), paths.last)
        train(config)
        assert final_state(config) == final_state(whole_run[0])


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
