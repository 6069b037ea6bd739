"""How many images a step can have: found by trial on the accelerator itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import torch

from deeplabv3.config import TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.distributed import require_single
from deeplabv3.errors import InputError, NonFiniteError, is_out_of_memory
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.learner import enter_phase, make_learner
from deeplabv3.training.step import StepBatch, train_step

MAX_PART = 1024
"""Images at once that are not exceeded, whatever the memory."""


def largest_batch(config: TrainConfig, device: torch.device, num_samples: int) -> int:
    """The most images a step that an accelerator's memory takes, in the phase that needs most.

    They are not more than an epoch has, unless it has fewer than there are parts of a step.

    Args:
        config: The run, with its network; `batch_size` is not looked at.
        device: An accelerator.
        num_samples: Images an epoch.

    Raises:
        InputError: It is none, since a system pretends to have more main memory than it has; or not even one image
            fits; or there are several processes.
    """
    if device.type == "cpu":
        raise InputError(
            "batch_size is auto, which tries out an accelerator's memory, and device is cpu; give a number"
        )
    require_single("the search of the largest batch")  # a process whose memory is full leaves the others waiting
    limit = max(1, min(MAX_PART, num_samples // config.accumulation))
    part = largest_that(lambda images: fits(images, config, device), limit)
    if part == 0:
        height, width = config.crop_size
        raise InputError(
            f"the memory of {device} is too small for one crop of {height}x{width}; lower crop_size, add --recompute, "
            "or choose a smaller backbone"
        )
    return part * config.accumulation


def largest_that(is_possible: Callable[[int], bool], limit: int) -> int:
    """The largest number up to `limit` that is possible, where all below a possible one are; 0 if none is."""
    low, high = 0, 1
    while high <= limit and is_possible(high):
        low, high = high, 2 * high
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_possible(middle) else (low, middle)
    return low


def fits(images: int, config: TrainConfig, device: torch.device) -> bool:
    """Whether two updates of the weights from so many images at once fit into a device's memory, in every phase."""
    try:
        _try(images, config, device)
        is_possible = True
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        is_possible = False
    if device.type != "cpu":  # only here, behind the error, is what it held on to free
        getattr(torch, device.type).empty_cache()
    return is_possible


def _try(images: int, config: TrainConfig, device: torch.device) -> None:
    height, width = config.crop_size
    image = torch.zeros(images, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # (N, 3, H, W)
    label = torch.zeros(images, height, width, dtype=torch.uint8)  # (N, H, W)
    same_color = torch.eye(3, 4).expand(images, 3, 4) if config.photometric_distortion else None
    part = Batch(image, label, ("trial",) * images, same_color)
    num_parts = min(2, config.accumulation)  # from the second on, gradients stand beside the maps
    batch = StepBatch([part] * num_parts, [1 / num_parts] * num_parts, is_empty=False)
    classes = config.model.num_classes
    class_weights = torch.ones(classes, device=device) if config.loss.class_weights is not None else None
    config = replace(config, compile=False)  # it takes minutes, and not more memory
    learner = make_learner(DeepLabV3(config.model), config, device)
    for phase in config.phases:
        enter_phase(learner, phase, config)
        for number in range(2):
            with suppress(NonFiniteError):  # random weights under frozen batch norm leave float16's range
                train_step(learner, batch, 0.0, number, config, class_weights).value()
