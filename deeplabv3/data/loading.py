"""Batches whose content depends on `(seed, epoch, index)` alone: not on workers, not on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.findings import LabelValues
from deeplabv3.data.frames import Frame, read_frame, read_sample
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.photometric import Matrix, draw_color
from deeplabv3.data.transforms import augment
from deeplabv3.data.workers import read_by_workers
from deeplabv3.errors import DatasetError, InputError

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


class TrainSample(NamedTuple):
    """An augmented sample: RGB uint8 `(H, W, 3)`, trainIds `(H, W)`, its frame's name, its change of colour."""

    image: Pixels
    label: Pixels
    name: str
    color: Matrix | None


class TrainDataset(Dataset[object]):
    """Augmented samples by `Key`; a sample that cannot be read is returned as its error."""

    def __init__(self, samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig) -> None:
        self.samples, self.label_set, self.config = samples, label_set, config

    def __getitem__(self, key: Key) -> TrainSample | DatasetError:
        """Read and augment one sample."""
        sample, config = self.samples[key.index], self.config
        again = [key.again] if key.again else []
        rng = np.random.default_rng([config.seed, _AUGMENTATION, key.epoch, key.index, *again])
        try:
            image, label = read_sample(sample, self.label_set)
        except DatasetError as error:
            return error  # raised in a worker, it would come out wrapped in a traceback
        augmented = augment(image, label, rng, config, key.wanted_class)
        return TrainSample(*augmented, sample.name, draw_color(rng) if config.photometric_distortion else None)

    def place_of(self, key: Key) -> int:
        """The place of a key's frame among the samples."""
        return key.index

    def name_of(self, place: int) -> str:
        """The image of a frame."""
        return str(self.samples[place].image_path)


class ReadDataset(Dataset[object], Generic[Item, Result]):
    """What a function makes of each item; its error where something supplied cannot be used."""

    def __init__(self, read: Callable[[Item], Result], items: Sequence[Item], name: Callable[[Item], Any]) -> None:
        self.read, self.items, self.name = read, items, name

    def __getitem__(self, index: int) -> Result | InputError:
        """Read one item."""
        try:
            return self.read(self.items[index])
        except InputError as error:
            return error

    def place_of(self, key: int) -> int:
        """The key itself."""
        return key

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


def collate(items: list[TrainSample | DatasetError]) -> Batch | DatasetError:
    """Stack samples of one size; the first error among them comes instead."""
    samples = []
    for item in items:
        if isinstance(item, DatasetError):
            return item
        samples.append(item)
    # Pixels that were interleaved stay so: the batch comes out channels-last, which convolutions want anyway.
    image = torch.from_numpy(np.stack([sample.image for sample in samples])).permute(0, 3, 1, 2)  # (N, 3, H, W)
    label = torch.from_numpy(np.stack([sample.label for sample in samples]))  # (N, H, W)
    colors = [sample.color for sample in samples if sample.color is not None]
    color = torch.from_numpy(np.stack(colors)).float() if colors else None  # (N, 3, 4)
    return Batch(image, label, tuple(sample.name for sample in samples), color)


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
        TrainDataset(samples, label_set, config),
        config.num_workers or 0,
        timeout_seconds=config.worker_timeout_seconds,
        batch_sampler=batches,
        collate_fn=collate,
        pin_memory=pin_memory,
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
    return read_by_workers(
        ReadDataset(read, items, name_of),
        num_workers,
        sampler=range(len(items)),
        batch_size=None,
        collate_fn=_unchanged,
    )


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


def _unchanged(item: Item) -> Item:
    return item
