"""The training loop on a tiny network: what it writes, what it learns, what it refuses."""

import csv
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from deeplabv3.cli import parse
from deeplabv3.config import Phase
from deeplabv3.data.batches import Batch
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.errors import DatasetError, InputError, NonFiniteError, OutputError
from deeplabv3.evaluation.confusion import no_counts
from deeplabv3.evaluation.scores import scores_from
from deeplabv3.files import write_whole
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import loop, validation
from deeplabv3.training.loop import train
from deeplabv3.training.schedule import learning_rate
from deeplabv3.training.state import PLACES, RunPaths
from deeplabv3.training.step import train_step
from tests.conftest import PHASES, write_frame
from tests.training.conftest import final_state, learner_of, undivided


def test_run_folder_is_complete(whole_run):
    config, history = whole_run
    names = {str(path.relative_to(config.run_dir)) for path in config.run_dir.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{name}.safetensors" for name in ("best", "last", "epoch_2", "epoch_4")}
    assert names == {"config.yaml", "log.jsonl", "losses.csv", "losses.png"} | checkpoints
    assert [json.loads(line) for line in (config.run_dir / "log.jsonl").read_text().splitlines()] == history
    with (config.run_dir / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["train_loss"]) for row in rows] == [entry["train_loss"] for entry in history]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]


def test_history_has_losses_and_miou_of_every_epoch(whole_run):
    _, history = whole_run
    assert [entry["step"] for entry in history] == [2, 4, 6, 8]
    assert [entry["learning_rate"] for entry in history] == [learning_rate(s, PHASES, 2) for s in (0, 2, 4, 6)]
    for entry in history:
        assert 0 < entry["train_loss"] < 10
        assert 0 < entry["val_loss"] < float("inf")
        assert 0 <= entry["miou"] <= 1
        assert set(entry["class_iou"]) == set(CITYSCAPES.names)


def test_checkpoint_says_which_epoch_was_reached(whole_run):
    config, _ = whole_run
    position = read_checkpoint(config.run_dir / "checkpoints/epoch_2.safetensors").record["position"]
    assert (position["epoch"], position["batch"], len(position["history"])) == (2, 0, 2)


def test_best_checkpoint_is_the_best(whole_run):
    config, history = whole_run
    best = read_checkpoint(RunPaths(config).best).record["position"]
    assert best["best_miou"] == max(entry["miou"] for entry in history)
    assert best["history"][-1]["miou"] == best["best_miou"]


def test_config_yaml_repeats_the_run(whole_run):
    config, _ = whole_run
    first, _, text = (config.run_dir / "config.yaml").read_text().partition("\n")
    command = shlex.split(first.removeprefix("# to repeat this run: "))
    assert command[:2] == ["deeplabv3", "train"]
    assert parse("train", command[2:]) == replace(config, run_dir=Path("NEW_RUN"))
    assert not set(yaml.safe_load(text)) & set(PLACES)


def test_same_seed_is_the_same_run(whole_run, tmp_path):
    config, _ = whole_run
    again = replace(config, run_dir=tmp_path / "again", num_workers=1)
    train(again)
    assert final_state(again) == final_state(config)


def test_run_is_not_overwritten(whole_run):
    config, _ = whole_run
    with pytest.raises(InputError, match=r"last.safetensors is there already: add --resume to go on"):
        train(config)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "losses.csv", "losses.png", "checkpoints/best.safetensors", "checkpoints/epoch_4.safetensors"],
)
def test_files_of_others_are_not_overwritten(train_config, name):
    path = train_config.run_dir / name
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(InputError, match=f"{name} is there already"):
        train(train_config)
    assert [file.read_text() for file in train_config.run_dir.rglob("*") if file.is_file()] == ["mine"]


def test_last_is_written_last(train_config, monkeypatch):
    """Only then is the epoch done: a crash before it repeats the epoch and writes the others again."""
    names = []

    def write(path, content):
        names.append(path.stem)
        return write_whole(path, content)

    monkeypatch.setattr(loop, "write_whole", write)
    train(replace(train_config, phases=train_config.phases[1:]))
    assert names == ["config", "best", "epoch_1", "last"]


def test_sizes_that_differ_are_found_before_training(train_config, tmp_path, streets):
    data = tmp_path / "d"
    shutil.copytree(streets, data)
    Image.new("L", (5, 5)).save(find_samples(data, "val")[2].label_path)
    with pytest.raises(DatasetError, match="is 5x5 and its image 64x96") as caught:
        train(replace(train_config, data_dir=data))
    assert "size-differs" in str(caught.value)
    assert str(caught.value).endswith("mend them, or add --skip-bad to leave these files out")
    assert not train_config.run_dir.exists()


def test_defective_files_are_left_out_if_asked(train_config, tmp_path, streets, capsys):
    """What is left is trained on as if nothing else had been there, and a resumed run too."""
    for name in ("mended", "broken"):
        shutil.copytree(streets, tmp_path / name)
    train_sample, val_sample = (find_samples(tmp_path / "mended", split)[1] for split in ("train", "val"))
    for sample in (train_sample, val_sample):
        sample.image_path.unlink()
        sample.label_path.unlink()
        sample.instance_path.unlink()
    for path in (train_sample.image_path, val_sample.label_path):
        path = tmp_path / "broken" / path.relative_to(tmp_path / "mended")
        path.write_bytes(path.read_bytes()[:99])
    broken = replace(train_config, data_dir=tmp_path / "broken", run_dir=tmp_path / "b", skip_bad=True)
    config = replace(train_config, data_dir=tmp_path / "mended", run_dir=tmp_path / "m")
    train(config)
    train(replace(broken, phases=broken.phases[:1]))
    train(replace(broken, resume=True))
    said = capsys.readouterr().err
    assert f"{train_sample.name}_leftImg8bit.png: it ends too early" in said
    assert "these files are left out; 5 train and 2 val frames remain" in said
    weights = [read_checkpoint(tmp_path / run / "checkpoints/epoch_4.safetensors").tensors for run in "bm"]
    assert digest(weights[0], "") == digest(weights[1], "")


def test_no_sound_frame_is_one_error(train_config, tmp_path):
    for split in ("train", "val"):
        image = np.full((9, 9, 3), len(split), np.uint8)
        write_frame(tmp_path / "d", f"a_{split}", image, np.zeros((9, 9), np.uint8), split)
    with pytest.raises(DatasetError, match="no frame of train is without a defect"):
        train(replace(train_config, data_dir=tmp_path / "d", skip_bad=True))


def test_ignored_classes_are_no_defect(train_config, tmp_path, rng):
    """A frame that shows nothing but what this run ignores is sound."""
    for split in ("train", "val"):
        for index in range(3):
            image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            write_frame(tmp_path / "d", f"a_{split}_00000{index}", image, np.full((40, 50), 7, np.uint8), split)
    config = replace(train_config, data_dir=tmp_path / "d", phases=train_config.phases[1:], ignored_classes=("road",))
    assert train(config)[0]["num_skipped"] == 1


def test_diverged_run_is_one_error(train_config):
    phases = (Phase(epochs=2, learning_rate=1e30),)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        train(replace(train_config, phases=phases))


def test_validation_without_a_number_is_recorded(train_config, monkeypatch, capsys):
    nothing = scores_from(no_counts(CITYSCAPES), CITYSCAPES, loss=float("inf"))
    monkeypatch.setattr(validation, "score_model", lambda *_, **__: nothing)
    history = train(replace(train_config, phases=train_config.phases[1:]))
    assert (history[0]["val_loss"], history[0]["miou"]) == (None, None)
    assert "validation loss nan, mIoU - %" in capsys.readouterr().out


def test_finished_run_has_a_page(train_config):
    train(replace(train_config, phases=train_config.phases[1:], report=True))
    page = (train_config.run_dir / "report" / "index.html").read_text()
    assert "deeplabv3 train" in page
    assert len(list((train_config.run_dir / "report").glob("worst_*.png"))) == 3
    assert (train_config.run_dir / "report" / "losses.png").exists()


def test_page_that_is_missing_is_written_by_resuming(train_config):
    config = replace(train_config, phases=train_config.phases[1:], report=True)
    train(config)
    shutil.rmtree(train_config.run_dir / "report")
    train(replace(config, resume=True))
    assert (train_config.run_dir / "report" / "index.html").exists()


def test_page_of_a_run_that_went_on_is_not_taken_for_its_end(train_config, monkeypatch):
    """It was killed before the page was written anew."""
    config = replace(train_config, phases=train_config.phases[1:], report=True)
    train(config)
    config = replace(config, phases=train_config.phases[1:] * 2, resume=True)
    page = train_config.run_dir / "report" / "index.html"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_run_page", lambda *_: None)
        train(config)
    assert "1 epochs of training with 2 steps" in page.read_text()
    train(config)
    assert "2 epochs of training with 4 steps" in page.read_text()


def test_page_of_another_run_is_not_overwritten(train_config):
    page = train_config.run_dir / "report" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("mine")
    with pytest.raises(InputError, match="index.html is there already"):
        train(train_config)


def test_validation_can_be_rarer(train_config):
    history = train(replace(train_config, eval_interval=3))
    assert [entry["miou"] is None for entry in history] == [True, True, False, False]


def test_own_folders_and_names(train_config, tmp_path):
    config = replace(
        train_config,
        phases=train_config.phases[1:],
        checkpoint_dir=tmp_path / "c",
        losses_dir=tmp_path / "l",
        checkpoint_name="net_epoch{epoch}_lr{lr}_wd{wd}",
    )
    train(config)
    kept = "net_epoch1_lr0.01_wd0.0005"
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        f"{name}.safetensors" for name in ("best", "last", kept)
    }
    assert {path.name for path in (tmp_path / "l").iterdir()} == {"losses.csv", "losses.png", f"{kept}.png"}


def test_all_ignored_batch_updates_nothing(tiny_config, train_config):
    torch.manual_seed(0)
    learner = learner_of(DeepLabV3(tiny_config), train_config)
    before = digest(learner.model.state_dict(), "")
    batch = Batch(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), torch.full((2, 20, 20), IGNORE_INDEX), ("a", "b"))
    assert train_step(learner, undivided(batch), 1.0, 0, train_config).value() is None
    assert digest(learner.model.state_dict(), "") == before


def test_run_with_only_ignored_pixels_is_finite(unchecked, train_config, tmp_path, rng):
    for split in ("train", "val"):
        for index in range(3):
            image = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            write_frame(tmp_path / "d", f"a_000000_00000{index}", image, np.zeros((40, 50), np.uint8), split)
    history = train(replace(train_config, data_dir=tmp_path / "d", phases=train_config.phases[1:]))
    assert (history[0]["train_loss"], history[0]["num_skipped"]) == (0, 1)
    assert history[0]["miou"] is None
    assert history[0]["val_loss"] is None


@pytest.mark.parametrize("where", ["weight", "gradient"])
def test_non_finite_numbers_stop_before_the_update(tiny_config, train_config, where):
    torch.manual_seed(0)
    learner = learner_of(DeepLabV3(tiny_config), train_config)
    model = learner.model
    if where == "weight":
        with torch.no_grad():
            model.classifier.bias[3] = float("nan")
    else:
        model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    momentum = [state["momentum_buffer"] for state in learner.optimizer.state.values()]
    weights = digest({name: value for name, value in model.named_parameters() if "bias" not in name}, "")
    batch = Batch(torch.zeros(2, 3, 20, 20, dtype=torch.uint8), torch.zeros(2, 20, 20), ("street_a", "street_b"))
    what = "loss is nan" if where == "weight" else "norm of the gradient is"
    with pytest.raises(NonFiniteError, match=rf"step 7: the {what}.*street_a, street_b"):
        train_step(learner, undivided(batch), 1.0, 7, train_config).value()
    assert digest({name: value for name, value in model.named_parameters() if "bias" not in name}, "") == weights
    assert len(momentum) > 60
    assert not any(buffer.any() for buffer in momentum)


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_set_is_looked_at_before_anything_is_written(train_config, tmp_path, split):
    other = "val" if split == "train" else "train"
    write_frame(tmp_path / "d", "a_000000_000000", np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9), np.uint8), other)
    with pytest.raises(DatasetError, match=f"leftImg8bit/{split}"):
        train(replace(train_config, data_dir=tmp_path / "d"))
    assert not train_config.run_dir.exists()


def test_output_folder_that_cannot_be_made(train_config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        train(replace(train_config, run_dir=tmp_path / "file" / "run"))
