"""Batches whose content depends on `(seed, epoch, index)` alone: not on workers, not on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.findings import LabelValues
from deeplabv3.data.frames import Frame, read_frame, read_sample
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.photometric import Matrix, draw_color
from deeplabv3.data.transforms import augment
from deeplabv3.data.workers import Note, read_by_workers
from deeplabv3.errors import InputError

_ORDER, _AUGMENTATION, _CLASSES = 0, 1, 2  # which stream of random numbers a seed starts

Item = TypeVar("Item")
Result = TypeVar("Result")

ClassPixels = npt.NDArray[np.int64]
"""`(num_samples, num_classes)`: how many pixels of each class the label of each frame has."""


@dataclass(frozen=True)
class Key:
    """A training sample: all that its pixels depend on, besides the seed.

    Attributes:
        epoch: The epoch.
        index: The frame's place among the samples.
        again: How often the frame was in the epoch before.
        wanted_class: A trainId that the crop shows, where it was drawn for that.
    """

    epoch: int
    index: int
    again: int = 0
    wanted_class: int | None = None


@dataclass(frozen=True)
class Batch:
    """Frames of one size.

    Attributes:
        image: uint8 `(N, 3, H, W)`.
        label: trainIds, uint8 `(N, H, W)`.
        names: The frames' names.
        color: What `photometric.recolored` changes the images by, float32 `(N, 3, 4)`; None if nothing.
    """

    image: Tensor
    label: Tensor
    names: tuple[str, ...]
    color: Tensor | None = None

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, which an accelerator copies from without waiting."""
        color = None if self.color is None else self.color.pin_memory()
        return Batch(self.image.pin_memory(), self.label.pin_memory(), self.names, color)


class TrainReader:
    """Batches of augmented samples, by the keys of the samples."""

    def __init__(self, samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig) -> None:
        self.samples, self.label_set, self.config = samples, label_set, config

    def read(self, keys: Sequence[Key], note: Note) -> Batch:
        """Read and augment the samples of a batch.

        Raises:
            DatasetError: One of them cannot be read.
        """
        # Interleaved pixels: the batch comes out channels-last, which convolutions want anyway.
        images = np.empty((len(keys), *self.config.crop_size, 3), np.uint8)
        labels = np.empty((len(keys), *self.config.crop_size), np.uint8)
        colors = []
        for key, crop in zip(keys, zip(images, labels, strict=True), strict=True):
            note(key.index)
            colors.append(self._fill(key, crop))
        return Batch(
            torch.from_numpy(images).permute(0, 3, 1, 2),  # (N, 3, H, W)
            torch.from_numpy(labels),  # (N, H, W)
            tuple(self.samples[key.index].name for key in keys),
            torch.from_numpy(np.stack(colors)).float() if self.config.photometric_distortion else None,  # (N, 3, 4)
        )

    def _fill(self, key: Key, crop: tuple[Pixels, Pixels]) -> Matrix:
        """Make one sample, and draw its change of colour."""
        again = [key.again] if key.again else []
        rng = np.random.default_rng([self.config.seed, _AUGMENTATION, key.epoch, key.index, *again])
        image, label = read_sample(self.samples[key.index], self.label_set)
        augment(image, label, rng, self.config, crop, key.wanted_class)
        return draw_color(rng)

    def name_of(self, place: int) -> str:
        """The image of a frame."""
        return str(self.samples[place].image_path)


class ItemReader(Generic[Item, Result]):
    """What a function makes of each item."""

    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item], name: Callable[[Item], Any]) -> None:
        self.function, self.items, self.name = function, items, name

    def read(self, place: int, note: Note) -> Result:
        """What it makes of one item."""
        note(place)
        return self.function(self.items[place])

    def name_of(self, place: int) -> str:
        """What a person calls an item."""
        return str(self.name(self.items[place]))


def epoch_keys(num_samples: int, config: TrainConfig, epoch: int, class_pixels: ClassPixels | None = None) -> list[Key]:
    """The samples of an epoch in order, a function of the arguments alone.

    Each frame comes once. With `class_sampling`, that share of them makes room for frames that are drawn for a class:
    first the class, each with the same chance, then one of the frames that show it; the crop shows it too. So classes
    that few frames have are seen more often (class uniform sampling of Zhu et al. 2019, arXiv 1812.01593).

    Args:
        num_samples: How many frames there are.
        config: `seed` and `class_sampling` matter.
        epoch: The epoch.
        class_pixels: What the frames show; needed for `class_sampling`.
    """
    order = np.random.default_rng([config.seed, _ORDER, epoch]).permutation(num_samples)
    drawn: list[tuple[int, int | None]] = [(int(index), None) for index in order]
    if config.class_sampling:
        assert class_pixels is not None
        rng = np.random.default_rng([config.seed, _CLASSES, epoch])
        shown = [np.flatnonzero(pixels) for pixels in class_pixels.T]
        classes = [train_id for train_id, frames in enumerate(shown) if len(frames)]
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
        table = label_set.train_id_of_file if sample.train_ids else label_set.train_id_of_id
        for value, pixels in label_values[sample.label_path]:
            row[table[value]] += pixels
    return counts[:, : label_set.num_classes]


def num_batches(num_samples: int, config: TrainConfig) -> int:
    """How many batches an epoch has; an incomplete last one is left out.

    Raises:
        InputError: There are fewer samples than a batch takes.
    """
    if num_samples < config.batch_size:
        raise InputError(
            f"batch_size is {config.batch_size} and the training split has {num_samples} images; "
            f"give at most {num_samples}"
        )
    return num_samples // config.batch_size


def batch_keys(
    num_samples: int, config: TrainConfig, epoch: int, class_pixels: ClassPixels | None = None
) -> list[list[Key]]:
    """The keys of an epoch's batches.

    Args and Raises are those of `epoch_keys` and `num_batches`.
    """
    keys, size = epoch_keys(num_samples, config, epoch, class_pixels), config.batch_size
    return [keys[number * size : (number + 1) * size] for number in range(num_batches(num_samples, config))]


def train_batches(
    samples: Sequence[Sample],
    label_set: LabelSet,
    config: TrainConfig,
    epochs: range,
    first_batch: int = 0,
    class_pixels: ClassPixels | None = None,
    pin_memory: bool = False,
) -> Generator[Batch]:
    """The batches of some epochs, one after the other; the processes that read them start once.

    Args:
        samples: The frames.
        label_set: What trainIds are.
        config: The run.
        epochs: Which epochs.
        first_batch: The first batch of the first epoch.
        class_pixels: What the frames show; needed for `class_sampling`.
        pin_memory: Whether batches are put into page-locked memory.

    Raises:
        DatasetError: A sample cannot be read, or a process that reads dies or stands still.
        InputError: There are fewer samples than a batch takes.
    """
    num_batches(len(samples), config)
    batches = chain.from_iterable(batch_keys(len(samples), config, epoch, class_pixels) for epoch in epochs)
    for _ in range(first_batch):
        next(batches)
    return read_by_workers(
        TrainReader(samples, label_set, config),
        batches,
        config.num_workers or 0,
        pin_memory=pin_memory,
        timeout_seconds=config.worker_timeout_seconds,
    )


def read_in_order(
    read: Callable[[Item], Result], items: Sequence[Item], num_workers: int, name_of: Callable[[Item], Any] = str
) -> Iterator[Result]:
    """What `read` makes of each item, in order, made ahead of time by other processes.

    Args:
        read: A function of a module; it may raise InputError.
        items: What it is called with.
        num_workers: How many processes call it; with 0 this one does.
        name_of: What a person calls an item.

    Raises:
        InputError: The first that `read` raises; or a process dies or stands still.
    """
    return read_by_workers(ItemReader(read, items, name_of), range(len(items)), num_workers)


def eval_batches(
    samples: Sequence[Sample], label_set: LabelSet, batch_size: int, *, instances: bool = False, num_workers: int = 0
) -> Iterator[list[Frame]]:
    """Whole frames in order, `batch_size` at a time; frames of another size start a new batch.

    Raises:
        DatasetError: A frame cannot be read.
    """
    waiting: list[Frame] = []
    read = partial(read_frame, label_set=label_set, instances=instances)
    for frame in read_in_order(read, samples, num_workers, attrgetter("image_path")):
        if waiting and (len(waiting) == batch_size or waiting[0].image.shape != frame.image.shape):
            yield waiting
            waiting = []
        waiting.append(frame)
    if waiting:
        yield waiting
