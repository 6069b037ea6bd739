"""Synthetic streets, and the demonstration on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deeplabv3.config.checks import with_plain_types


@dataclass(frozen=True, kw_only=True)
class StreetsConfig:
    """Write synthetic street scenes in the exact layout of Cityscapes.

    Attributes:
        out: New folder for the data set.
        num_train: Scenes of the training split.
        num_val: Scenes of the validation split.
        num_test: Scenes of the test split, which `submit` predicts; these are labelled too.
        height: Height of each scene in pixels.
        width: Width of each scene in pixels.
        seed: Start of all random numbers; the same seed draws the same scenes.
    """

    out: Path
    num_train: int = 200
    num_val: int = 50
    num_test: int = 0
    height: int = 256
    width: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        """Take a text for the path that it is."""
        with_plain_types(self)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Streets, training, scores and pictures in one go: the first thing to run.

    Attributes:
        out: Folder for everything that the demo makes.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    out: Path = Path("demo")
    device: str = "auto"

    def __post_init__(self) -> None:
        """Take a text for the path that it is."""
        with_plain_types(self)
