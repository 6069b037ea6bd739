"""What the tests share: a tiny data set, a tiny network, golden files."""

import os
import random
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import settings
from PIL import Image

from deeplabv3.config import ModelConfig, Phase, TrainConfig
from deeplabv3.data.streets import write_streets
from deeplabv3.files import write_whole
from deeplabv3.model import foreign
from deeplabv3.model.unpickling.convert import convert
from deeplabv3.report.curves import plot_losses
from deeplabv3.training import state

GOLDEN_DIR = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parent.parent

# Processes that tests start compute as `one_thread` does: the sums of two threads have other last digits.
os.environ["OMP_NUM_THREADS"] = "1"

# Nor do they hear of a proxy for the servers of tests, of a token, or of torchrun around the tests.
for name in ("no_proxy", "NO_PROXY"):
    os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", "::1"]))
for name in ("DEEPLABV3_TOKEN", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)

settings.register_profile("everyday", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("everyday")


@pytest.fixture(autouse=True)
def one_thread():
    """Tests share two cores; the sums of one thread are also the same everywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What is remembered of data sets stays out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEEPLABV3_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_picture(tmp_path_factory):
    """Drawing losses takes a third of a tiny run, so those of runs in this process are drawn once; it has own tests."""
    picture = tmp_path_factory.mktemp("picture") / "losses.png"

    def plot(history, path):
        if not picture.exists():
            plot_losses(history, picture)
        write_whole(path, picture.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "plot_losses", plot)
        yield


@pytest.fixture(scope="session")
def ranks():
    """Starts processes as torchrun does, from one that has imported everything."""
    from tests.ranks import Ranks  # imports more than most tests need

    with Ranks() as ranks:
        yield ranks


@pytest.fixture
def here(monkeypatch):
    """Files are unpickled in this process, which is faster."""
    monkeypatch.setattr(foreign, "unpickle", convert)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def streets(tmp_path_factory) -> Path:
    """Six training and three validation scenes of 64x96; read only."""
    root = tmp_path_factory.mktemp("data") / "streets"
    write_streets(root, num_train=6, num_val=3, height=64, width=96, seed=1)
    return root


@pytest.fixture
def tiny_config() -> ModelConfig:
    """A whole DeepLab V3 of few channels."""
    return ModelConfig(backbone="resnet18", width=16, aspp_channels=8, dropout=0.2)


PHASES = (Phase(epochs=3, learning_rate=0.05), Phase(epochs=1, learning_rate=0.01))


def make_config(streets: Path, folder: Path) -> TrainConfig:
    """Four epochs of two steps on the tiny data set."""
    return TrainConfig(
        data_dir=streets,
        run_dir=folder / "run",
        model=ModelConfig(backbone="resnet18", width=16, aspp_channels=8, dropout=0.2),
        backbone_weights="none",
        phases=PHASES,
        batch_size=3,
        crop_size=(32, 48),
        photometric_distortion=True,
        save_checkpoint_index=2,
        report=False,
        device="cpu",
    )


@pytest.fixture
def train_config(streets, tmp_path) -> TrainConfig:
    """A run that has not begun."""
    return make_config(streets, tmp_path)


@pytest.fixture
def golden():
    """Compare text with a stored file, or store it when GOLDEN_ACCEPT is set (`make golden`)."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN_DIR / name
        if os.environ.get("GOLDEN_ACCEPT"):
            path.write_text(text)
        assert text == path.read_text(), f"{name} changed: look at it, then accept it with `make golden`"

    return compare


def free_port():
    """One that nobody has; nor is it given to a connection before it is used, since the system gives those others."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("", random.SystemRandom().randrange(10_000, 30_000)))
            return free.getsockname()[1]


def torchrun_command(processes):
    """What a module's name and its words are put behind."""
    words = ["--master-port", free_port(), "--nproc-per-node", processes]
    return [sys.executable, "-m", "torch.distributed.run", *map(str, words)]


def write_frame(
    root: Path, name: str, image: npt.NDArray[Any], label_ids: npt.NDArray[Any] | None, split: str = "train"
) -> Path:
    """Write one frame in the Cityscapes layout and return its image's path."""
    city = name.split("_")[0]
    path = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    if label_ids is not None:
        label_path = root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"
        label_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(label_ids).save(label_path)
    return path
