"""A run that was stopped, broken or killed goes on as if nothing had happened, or says why it cannot."""

import os
import shutil
import signal
import threading
from dataclasses import replace

import pytest
import torch

from deeplabv3.data.cityscapes import find_samples
from deeplabv3.errors import DatasetError, InputError
from deeplabv3.files import only_writer
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
    assert capsys.readouterr() == ("nothing is left to train: epoch 4 is done; more epochs go on from here\n", "")


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
