"""Which samples an epoch has, and in which order: functions of `(seed, epoch)` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.findings import LabelValues
from deeplabv3.data.labels import LabelSet
from deeplabv3.distributed import num_processes, rank
from deeplabv3.errors import InputError

_ORDER, _CLASSES = 0, 2  # which stream of random numbers a seed starts; 1 is the augmentation's

ClassPixels = npt.NDArray[np.int64]
"""`(num_samples, num_classes)`: how many pixels of each class the label of each frame has."""


@dataclass(frozen=True)
class Key:
    """One draw of a frame: all that its pixels depend on, besides the seed.

    Attributes:
        epoch: The epoch.
        index: The frame's place among the samples.
        again: How often the frame was in the epoch before.
        wanted_class: A trainId that it was drawn for; None for none.
    """

    epoch: int
    index: int
    again: int = 0
    wanted_class: int | None = None


def epoch_keys(num_samples: int, config: TrainConfig, epoch: int, class_pixels: ClassPixels | None = None) -> list[Key]:
    """The samples of an epoch in order, a function of the arguments alone.

    Each frame comes once. With `class_sampling`, that share of them makes room for frames that are drawn for a class:
    first the class, each with the same chance, then one of the frames that show it, cut where it is. So classes that
    few frames have are seen more often (class uniform sampling of Zhu et al. 2019, arXiv 1812.01593).

    Args:
        num_samples: How many frames there are.
        config: `seed` and `class_sampling` matter.
        epoch: The epoch.
        class_pixels: What the frames show; needed for `class_sampling`.

    Raises:
        InputError: Samples are to be drawn for classes, and no frame shows any.
    """
    order = np.random.default_rng([config.seed, _ORDER, epoch]).permutation(num_samples)
    drawn: list[tuple[int, int | None]] = [(int(index), None) for index in order]
    if config.class_sampling:
        assert class_pixels is not None
        rng = np.random.default_rng([config.seed, _CLASSES, epoch])
        shown = [np.flatnonzero(pixels) for pixels in class_pixels.T]
        classes = [train_id for train_id, frames in enumerate(shown) if len(frames)]
        if not classes:
            share = f"{config.class_sampling:g}"
            raise InputError(f"class_sampling is {share} and no training frame shows a class that is trained; give 0")
        for place in rng.permutation(num_samples)[: round(config.class_sampling * num_samples)]:
            wanted = classes[rng.integers(len(classes))]
            drawn[place] = int(rng.choice(shown[wanted])), wanted
    seen: dict[int, int] = {}
    keys = []
    for index, wanted_class in drawn:
        keys.append(Key(epoch, index, seen.get(index, 0), wanted_class))
        seen[index] = seen.get(index, 0) + 1
    return keys


def class_pixels(samples: Sequence[Sample], label_values: LabelValues, label_set: LabelSet) -> ClassPixels:
    """How many pixels of each class each frame shows, `(num_samples, num_classes)`."""
    counts = np.zeros((len(samples), 256), np.int64)
    for row, sample in zip(counts, samples, strict=True):
        table = label_set.train_id_of(train_ids=sample.train_ids)
        for value, pixels in label_values[sample.label_path]:
            row[table[value]] += pixels
    return counts[:, : label_set.num_classes]


def num_batches(num_samples: int, config: TrainConfig) -> int:
    """How many batches an epoch has; an incomplete last one is left out.

    Raises:
        InputError: There are fewer samples than a batch takes.
    """
    size = config.step_images
    if num_samples < size:
        raise InputError(
            f"batch_size is {size} and the training split has {num_samples} images; give at most {num_samples}"
        )
    return num_samples // size


def batch_keys(
    num_samples: int, config: TrainConfig, epoch: int, class_pixels: ClassPixels | None = None
) -> list[list[Key]]:
    """The keys of an epoch's batches.

    Args and Raises are those of `epoch_keys` and `num_batches`.
    """
    keys, size = epoch_keys(num_samples, config, epoch, class_pixels), config.step_images
    return [keys[number * size : (number + 1) * size] for number in range(num_batches(num_samples, config))]


def part_size(config: TrainConfig) -> int:
    """Images that a process takes at once: a step's, split over the processes and over `accumulation`.

    Raises:
        InputError: They cannot be split evenly.
    """
    num_parts = num_processes() * config.accumulation
    if config.step_images % num_parts:
        raise InputError(
            f"batch_size is {config.step_images} and is split over {num_processes()} processes with accumulation "
            f"{config.accumulation}; give a multiple of {num_parts}"
        )
    return config.step_images // num_parts


def own_parts(batch: Sequence[Key], config: TrainConfig) -> list[Sequence[Key]]:
    """The parts of a batch that this process takes, one after the other; neighbours stay together.

    Raises:
        InputError: The batch cannot be split evenly.
    """
    size = part_size(config)
    first = rank() * config.accumulation
    return [batch[part * size : (part + 1) * size] for part in range(first, first + config.accumulation)]
