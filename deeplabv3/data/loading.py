"""Batches whose content depends on `(seed, epoch, index)` alone: not on workers, not on where a run was interrupted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, cycle, islice
from operator import attrgetter
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from deeplabv3.config import TrainConfig
from deeplabv3.data.batches import Batch, SharedBatches
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import Frame, read_frame, read_sample
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.photometric import Matrix, draw_color
from deeplabv3.data.sampling import ClassPixels, Key, batch_keys, num_batches, own_parts, part_size
from deeplabv3.data.transforms import augment
from deeplabv3.data.workers import WORKER_TIMEOUT_SECONDS, Note, num_prefetched, read_by_workers
from deeplabv3.distributed import ending_together

_AUGMENTATION = 1  # which stream of random numbers a seed starts

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Made:
    """A batch, of which the pixels may lie in memory that processes share.

    Attributes:
        pixels: Images, uint8 `(N, H, W, 3)`, and labels, uint8 `(N, H, W)`; or their place in the shared memory.
        names: The frames' names.
        colors: Their changes of colour.
    """

    pixels: tuple[Pixels, Pixels] | int
    names: tuple[str, ...]
    colors: tuple[Matrix, ...]


class TrainReader:
    """Batches of augmented samples, by the keys of the samples.

    Args:
        samples: The frames.
        label_set: What trainIds are.
        config: The run.
        shared: Where other processes make batches; None where this one does.
    """

    def __init__(
        self, samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig, shared: SharedBatches | None
    ) -> None:
        self.samples, self.label_set, self.config, self.shared = samples, label_set, config, shared

    def read(self, key: tuple[int, Sequence[Key]], note: Note) -> Made:
        """Read and augment the samples of a batch.

        Args:
            key: The batch's place in the shared memory, and the keys of its samples.
            note: Told each frame.

        Raises:
            DatasetError: One of them cannot be read.
        """
        place, keys = key
        if self.shared is None:
            images = np.empty((len(keys), *self.config.crop_size, 3), np.uint8)
            labels = np.empty((len(keys), *self.config.crop_size), np.uint8)
        else:
            images, labels = self.shared.images[place].numpy(), self.shared.labels[place].numpy()
        colors = []
        for one, crop in zip(keys, zip(images, labels, strict=True), strict=True):
            note(one.index)
            colors.append(self._fill(one, crop))
        names = tuple(self.samples[one.index].name for one in keys)
        return Made((images, labels) if self.shared is None else place, names, tuple(colors))

    def _fill(self, key: Key, crop: tuple[Pixels, Pixels]) -> Matrix:
        """Make one sample, and draw its change of colour."""
        again = [key.again] if key.again else []
        rng = np.random.default_rng([self.config.seed, _AUGMENTATION, key.epoch, key.index, *again])
        image, label = read_sample(self.samples[key.index], self.label_set)
        augment(image, label, rng, self.config, crop, key.wanted_class)
        return draw_color(rng)

    def batch(self, made: Made, *, pin_memory: bool) -> Batch:
        """A batch as the run takes it."""
        if isinstance(made.pixels, int):
            assert self.shared is not None
            image, label = self.shared.copied(made.pixels, pin_memory=pin_memory)
        else:
            image, label = (torch.from_numpy(pixels) for pixels in made.pixels)
            image, label = (image.pin_memory(), label.pin_memory()) if pin_memory else (image, label)
        # The pixels stay interleaved: the batch is channels-last, which convolutions want anyway.
        image = image.permute(0, 3, 1, 2)  # (N, 3, H, W)
        colors = torch.from_numpy(np.stack(made.colors)).float() if self.config.photometric_distortion else None
        return Batch(image, label, made.names, colors)

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


@ending_together()
def train_batches(
    samples: Sequence[Sample],
    label_set: LabelSet,
    config: TrainConfig,
    epochs: range,
    first_batch: int = 0,
    class_pixels: ClassPixels | None = None,
    pin_memory: bool = False,
) -> Generator[Batch]:
    """This process's parts of the batches of some epochs, one after the other; the processes that read start once.

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
        InputError: There are fewer samples than a batch takes, or the shared memory of a process is too small; in all
            processes.
    """
    num_batches(len(samples), config)
    batches = chain.from_iterable(batch_keys(len(samples), config, epoch, class_pixels) for epoch in epochs)
    parts = chain.from_iterable(own_parts(batch, config) for batch in islice(batches, first_batch, None))
    workers = config.num_workers or 0
    # Those that are made or wait to be taken, and the one that is copied; one to spare.
    num_places = num_prefetched(workers) + 2
    shared = SharedBatches(num_places, part_size(config), config.crop_size) if workers else None
    reader = TrainReader(samples, label_set, config, shared)
    return read_by_workers(
        reader,
        zip(cycle(range(num_places)), parts),
        workers,
        received=partial(reader.batch, pin_memory=pin_memory),
        ahead=1,
        timeout_seconds=config.worker_timeout_seconds,
    )


def read_in_order(
    read: Callable[[Item], Result],
    items: Sequence[Item],
    num_workers: int,
    name_of: Callable[[Item], Any] = str,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
) -> Iterator[Result]:
    """What `read` makes of each item, in order, made ahead of time by other processes.

    Args:
        read: A function of a module; it may raise InputError.
        items: What it is called with.
        num_workers: How many processes call it; with 0 this one does.
        name_of: What a person calls an item.
        timeout_seconds: How long these processes may give nothing.

    Raises:
        InputError: The first that `read` raises; or a process dies or stands still.
    """
    reader = ItemReader(read, items, name_of)
    return read_by_workers(reader, range(len(items)), num_workers, timeout_seconds=timeout_seconds)


def eval_batches(
    samples: Sequence[Sample],
    label_set: LabelSet,
    batch_size: int,
    *,
    instances: bool = False,
    num_workers: int = 0,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
) -> Iterator[list[Frame]]:
    """Whole frames in order, `batch_size` at a time; frames of another size start a new batch.

    Args:
        samples: The frames.
        label_set: What trainIds are.
        batch_size: The most frames at once.
        instances: Whether their instance ids are read.
        num_workers: Processes that read; with 0 this one does.
        timeout_seconds: How long these may give nothing.

    Raises:
        DatasetError: A frame cannot be read.
    """
    waiting: list[Frame] = []
    read = partial(read_frame, label_set=label_set, instances=instances)
    for frame in read_in_order(read, samples, num_workers, attrgetter("image_path"), timeout_seconds):
        if waiting and (len(waiting) == batch_size or waiting[0].image.shape != frame.image.shape):
            yield waiting
            waiting = []
        waiting.append(frame)
    if waiting:
        yield waiting
