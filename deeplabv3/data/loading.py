"""Batches whose content depends on `(seed, epoch, index)` alone: not on workers, not on where a run was interrupted."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deeplabv3.config import TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import Frame, read_frame, read_sample
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.transforms import augment
from deeplabv3.errors import DatasetError, InputError

_ORDER, _AUGMENTATION = 0, 1  # which stream of random numbers a seed starts

Item = TypeVar("Item")
Result = TypeVar("Result")

Key = tuple[int, int]
"""Epoch and index of a training sample: all that its pixels depend on, besides the seed."""


@dataclass(frozen=True)
class Batch:
    """Frames of one size.

    Attributes:
        image: uint8 `(N, 3, H, W)`.
        label: trainIds, uint8 `(N, H, W)`.
        names: The frames' names.
    """

    image: Tensor
    label: Tensor
    names: tuple[str, ...]

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, which an accelerator copies from without waiting."""
        return Batch(self.image.pin_memory(), self.label.pin_memory(), self.names)


class TrainDataset(Dataset[object]):
    """Augmented samples by `(epoch, index)`; a sample that cannot be read is returned as its error."""

    def __init__(self, samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig) -> None:
        self.samples, self.label_set, self.config = samples, label_set, config

    def __getitem__(self, key: Key) -> tuple[Pixels, Pixels, str] | DatasetError:
        """Read and augment one sample."""
        epoch, index = key
        sample = self.samples[index]
        rng = np.random.default_rng([self.config.seed, _AUGMENTATION, epoch, index])
        try:
            image, label = read_sample(sample, self.label_set)
        except DatasetError as error:
            return error  # raised in a worker, it would come out wrapped in a traceback
        image, label = augment(image, label, rng, self.config)
        return image, label, sample.name


class ReadDataset(Dataset[object], Generic[Item, Result]):
    """What a function makes of each item; its error where something supplied cannot be used."""

    def __init__(self, read: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.read, self.items = read, items

    def __len__(self) -> int:
        """How many items there are."""
        return len(self.items)

    def __getitem__(self, index: int) -> Result | InputError:
        """Read one item."""
        try:
            return self.read(self.items[index])
        except InputError as error:
            return error


def epoch_order(num_samples: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch's samples, a function of its arguments alone."""
    return [int(index) for index in np.random.default_rng([seed, _ORDER, epoch]).permutation(num_samples)]


def batch_keys(num_samples: int, config: TrainConfig, epoch: int, first_batch: int = 0) -> list[list[Key]]:
    """The keys of an epoch's batches from `first_batch` on; an incomplete last batch is left out.

    Raises:
        InputError: There are fewer samples than a batch takes.
    """
    if num_samples < config.batch_size:
        raise InputError(
            f"batch_size is {config.batch_size} and the training split has {num_samples} images; "
            f"give at most {num_samples}"
        )
    order = epoch_order(num_samples, config.seed, epoch)
    starts = range(0, num_samples - config.batch_size + 1, config.batch_size)
    return [[(epoch, index) for index in order[start : start + config.batch_size]] for start in starts[first_batch:]]


def collate(items: list[tuple[Pixels, Pixels, str] | DatasetError]) -> Batch | DatasetError:
    """Stack samples of one size; the first error among them comes instead."""
    samples = []
    for item in items:
        if isinstance(item, DatasetError):
            return item
        samples.append(item)
    # Pixels that were interleaved stay so: the batch comes out channels-last, which convolutions want anyway.
    image = torch.from_numpy(np.stack([image for image, _, _ in samples])).permute(0, 3, 1, 2)  # (N, 3, H, W)
    label = torch.from_numpy(np.stack([label for _, label, _ in samples]))  # (N, H, W)
    return Batch(image, label, tuple(name for _, _, name in samples))


def train_batches(
    samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig, epoch: int, first_batch: int, pin_memory: bool
) -> Iterator[Batch]:
    """The batches of an epoch from `first_batch` on.

    Raises:
        DatasetError: A sample cannot be read.
        InputError: There are fewer samples than a batch takes.
    """
    keys = batch_keys(len(samples), config, epoch, first_batch)
    return _batches(TrainDataset(samples, label_set, config), keys, config.num_workers or 0, pin_memory)


def read_in_order(read: Callable[[Item], Result], items: Sequence[Item], num_workers: int) -> Iterator[Result]:
    """What `read` makes of each item, in order, made ahead of time by other processes.

    Args:
        read: A function of a module; it may raise InputError.
        items: What it is called with.
        num_workers: How many processes call it; with 0 this one does.

    Raises:
        InputError: The first that `read` raises.
    """
    loader: DataLoader[Any] = DataLoader(
        ReadDataset(read, items),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else each iteration would draw a seed from the run's own random numbers
    )
    yield from _loaded(loader)


def eval_batches(
    samples: Sequence[Sample], label_set: LabelSet, batch_size: int, *, instances: bool = False, num_workers: int = 0
) -> Iterator[list[Frame]]:
    """Whole frames in order, `batch_size` at a time; frames of another size start a new batch.

    Raises:
        DatasetError: A frame cannot be read.
    """
    waiting: list[Frame] = []
    read = partial(read_frame, label_set=label_set, instances=instances)
    for frame in read_in_order(read, samples, num_workers):
        if waiting and (len(waiting) == batch_size or waiting[0].image.shape != frame.image.shape):
            yield waiting
            waiting = []
        waiting.append(frame)
    if waiting:
        yield waiting


def _batches(dataset: Dataset[object], keys: Sequence[object], num_workers: int, pin_memory: bool) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=keys,  # type: ignore[arg-type]  # any sequence of lists of keys serves
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )
    yield from _loaded(loader)


def _loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's items; an error among them is raised here, where it has no worker's traceback around it."""
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        detail = " ".join(str(error).split())
        raise InputError(
            f"a process that reads images ended ({detail}); use --num-workers 0, or free memory"
        ) from error


def _unchanged(item: Item) -> Item:
    return item


def _start_worker(worker: int) -> None:
    """A worker decodes on one core, and leaves signals to the process that trains, which ends it when it is done."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def default_num_workers(device_type: str) -> int:
    """Readers that pay: none beside a CPU that computes, up to 8 beside an accelerator."""
    return 0 if device_type == "cpu" else min(8, os.cpu_count() or 1)
