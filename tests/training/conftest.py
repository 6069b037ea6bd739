"""A tiny run, and what two runs are compared by."""

import os
import signal
from contextlib import contextmanager

import pytest
import torch

from deeplabv3.data.batches import Batch
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.training import beginning, loop, step
from deeplabv3.training.learner import enter_phase, make_learner
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths
from tests.conftest import make_config

CPU = torch.device("cpu")

CLOCK = ("seconds", "images_per_second", "waiting_share")


@contextmanager
def ignored_sigterm():
    """Signals that arrive when training has given its handlers back must not end the tests."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def timeless(history):
    """A history without what depends on the clock."""
    return [{name: value for name, value in entry.items() if name not in CLOCK} for entry in history]


def final_state(config):
    """All that a run leaves behind, less what depends on the clock."""
    state = []
    for path in (RunPaths(config).last, RunPaths(config).best):
        checkpoint = read_checkpoint(path)
        position = checkpoint.record["position"]
        state.append((digest(checkpoint.tensors, ""), {**position, "history": timeless(position["history"])}))
    return state


def learner_of(model, config):
    """Around a network, as a run begins."""
    learner = make_learner(model, config, CPU)
    enter_phase(learner, config.phases[0], config)
    return learner


def random_batch(seed=0, images=2, size=(33, 49), ignored=0.0):
    """Noise, of which a share of the pixels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, 19, (images, *size), dtype=torch.uint8, generator=generator)
    label[torch.rand(label.shape, generator=generator) < ignored] = IGNORE_INDEX
    return Batch(image, label, tuple(f"frame_{seed}_{number}" for number in range(images)))


def undivided(batch):
    """A batch that one process takes as a whole."""
    return step.StepBatch([batch], [1.0], is_empty=not batch.num_labelled)


@pytest.fixture
def unchecked(monkeypatch):
    """Frames as they are, for what is wrong only after the check."""
    monkeypatch.setattr(
        beginning,
        "sound_frames",
        lambda config, _: (*(find_samples(config.data_dir, split) for split in ("train", "val")), {}),
    )


@pytest.fixture
def stop_at(monkeypatch):
    """Send a signal to this process in the n-th training step, counted from 1."""

    def arrange(which: int, number: int = signal.SIGINT) -> None:
        real, count = step.train_step, 0

        def step_and_signal(*arguments):
            nonlocal count
            count += 1
            loss = real(*arguments)
            if count == which:
                os.kill(os.getpid(), number)
            return loss

        monkeypatch.setattr(loop, "train_step", step_and_signal)

    return arrange


@pytest.fixture(scope="session")
def whole_run(streets, tmp_path_factory):
    """A run of four epochs that nothing interrupted."""
    torch.set_num_threads(1)
    config = make_config(streets, tmp_path_factory.mktemp("whole"))
    return config, train(config)
