"""`--batch-size auto`: the number that is found, recorded, and kept."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deeplabv3.config import Phase
from deeplabv3.data.photometric import recolored
from deeplabv3.errors import InputError, NonFiniteError
from deeplabv3.model.checkpoint import read_checkpoint
from deeplabv3.training import beginning, fitting
from deeplabv3.training.fitting import fits, largest_batch, largest_that
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from deeplabv3.training.step import Outcome, train_step
from deeplabv3.training.stopping import Stopped
from tests.training.conftest import CPU, final_state

CUDA = torch.device("cuda")  # nothing here asks for one


@given(st.integers(0, 3000), st.integers(1, 1500))
def test_largest_is_the_threshold(threshold, limit):
    asked = []

    def is_possible(number):
        asked.append(number)
        return number <= threshold

    assert largest_that(is_possible, limit) == min(threshold, limit)
    assert len(asked) == len(set(asked)) <= 2 * limit.bit_length() + 1
    assert max(asked) <= limit


@pytest.fixture
def memory(monkeypatch):
    """Let so many images fit."""

    def arrange(images):
        monkeypatch.setattr(fitting, "fits", lambda number, *_: number <= images)

    return arrange


@pytest.mark.parametrize(
    ("room", "accumulation", "num_samples", "found"),
    [(5, 1, 100, 5), (5, 4, 100, 20), (5, 4, 11, 8), (5000, 1, 3000, 1024), (5000, 2, 367, 366), (9, 4, 3, 4)],
)
def test_batch_is_what_memory_and_data_set_allow(train_config, memory, room, accumulation, num_samples, found):
    memory(room)
    assert largest_batch(replace(train_config, accumulation=accumulation), CUDA, num_samples) == found


def test_not_even_one_image_is_one_line(train_config, memory):
    memory(0)
    with pytest.raises(InputError, match="memory of cuda is too small for one crop of 32x48; lower crop_size") as error:
        largest_batch(train_config, CUDA, 6)
    assert "\n" not in str(error.value)


def test_main_memory_is_not_tried_out(train_config):
    with pytest.raises(InputError, match="batch_size is auto, .* and device is cpu; give a number") as error:
        train(replace(train_config, batch_size="auto"))
    assert "\n" not in str(error.value)
    assert not train_config.run_dir.exists()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_trial_goes_through_every_phase(train_config, monkeypatch, precision):
    """Two steps each, at the phase's stride, of the images asked for."""
    seen = []

    def watched(learner, batch, *rest):
        seen.append((learner.model.config.output_stride, len(batch.parts[0].image)))
        return train_step(learner, batch, *rest)

    monkeypatch.setattr(fitting, "train_step", watched)
    phases = (Phase(epochs=1, learning_rate=0.1), Phase(epochs=1, learning_rate=0.1, output_stride=8))
    config = replace(train_config, phases=phases, precision=precision, average_decay=0.9, recompute=True)
    assert fits(2, config, CPU)
    assert seen == [(16, 2), (16, 2), (8, 2), (8, 2)]


def test_trial_holds_what_the_run_will(train_config, monkeypatch):
    """Gradients beside the maps, colours that change, and weights of classes."""
    step = Mock()
    monkeypatch.setattr(fitting, "train_step", step)
    assert fits(2, replace(train_config, photometric_distortion=False), CPU)
    _, batch, *_, class_weights = step.call_args.args
    assert (len(batch.parts), batch.parts[0].color, class_weights) == (1, None, None)
    loss = replace(train_config.loss, class_weights="counts")
    assert fits(2, replace(train_config, accumulation=3, photometric_distortion=True, loss=loss), CPU)
    _, batch, *_, class_weights = step.call_args.args
    assert (sum(batch.shares), len(batch.parts), len(class_weights)) == (1, 2, train_config.model.num_classes)
    image = batch.parts[0].image.float()
    assert torch.equal(recolored(image, batch.parts[0].color), image)


def test_trial_whose_numbers_overflow_fits(train_config, monkeypatch):
    """Random weights under frozen batch norm leave float16's range; memory is what is asked."""
    monkeypatch.setattr(Outcome, "value", Mock(side_effect=NonFiniteError("the loss is nan")))
    assert fits(2, train_config, CPU)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 18.10 GB, other allocations: 1 MB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_trial_that_runs_out_of_memory_does_not_fit(train_config, monkeypatch, error):
    monkeypatch.setattr(fitting, "train_step", Mock(side_effect=error))
    assert not fits(2, train_config, CPU)


def test_trial_that_fails_otherwise_is_an_error(train_config, monkeypatch):
    monkeypatch.setattr(fitting, "train_step", Mock(side_effect=RuntimeError("a shape")))
    with pytest.raises(RuntimeError, match="a shape"):
        fits(2, train_config, CPU)


def test_run_goes_on_with_the_number_that_it_found(whole_run, tmp_path, monkeypatch, stop_at, capsys):
    config = replace(whole_run[0], run_dir=tmp_path / "run", batch_size="auto")
    monkeypatch.setattr(beginning, "largest_batch", lambda *_: 3)
    stop_at(3)
    with pytest.raises(Stopped):
        train(config)
    assert yaml.safe_load(RunPaths(config).config.read_text())["batch_size"] == 3
    monkeypatch.setattr(beginning, "largest_batch", lambda *_: 2)
    train(replace(config, resume=True))
    assert "other values" not in capsys.readouterr().err
    assert read_checkpoint(RunPaths(config).last).record["config"]["batch_size"] == 3
    assert final_state(config) == final_state(whole_run[0])
