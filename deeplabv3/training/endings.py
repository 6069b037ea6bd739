"""What a run says when memory or a disk ends it: the cause, what to change, and from where it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from deeplabv3.config import TrainConfig
from deeplabv3.distributed import num_processes
from deeplabv3.errors import DeviceMemoryError, OutputError, is_out_of_memory
from deeplabv3.training.state import RunPaths


@contextmanager
def telling_how_to_go_on(config: TrainConfig, device: torch.device, *, is_finished: bool = False) -> Iterator[None]:
    """Turn short memory into a user's mistake, and add to a disk's error what is left of the run.

    Args:
        config: The run.
        device: Where it trains.
        is_finished: Whether only its page and plots are still to be made.

    Raises:
        DeviceMemoryError: Memory ran out in the `with` statement.
        OutputError: A file could not be written.
    """
    paths = RunPaths(config)
    try:
        with telling_of_memory(lambda: _TOO_LARGE_TO_SHOW if is_finished else too_large_to_train(config, device)):
            yield
    except OutputError as error:
        resume = " with --resume" if paths.config.exists() else ""
        is_saved = paths.last.exists()
        left = f"go on from {paths.last}{resume}" if is_saved else f"begin anew{resume}, for nothing was saved yet"
        raise OutputError(f"{error}, then {left}") from error


_TOO_LARGE_TO_SHOW = (
    "memory ran out for the page and plots of a run that is finished and saved; end other programs and add --resume"
)


@contextmanager
def telling_of_memory(message: Callable[[], str]) -> Iterator[None]:
    """Turn short memory, of the machine or of a device, into a user's mistake.

    Raises:
        DeviceMemoryError: Memory ran out in the `with` statement.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise DeviceMemoryError(message()) from error
        raise


def too_large_to_train(config: TrainConfig, device: torch.device) -> str:
    """What to change where a step does not fit into memory."""
    height, width = config.crop_size
    parts = num_processes() * config.accumulation
    smaller = config.step_images // 2 // parts * parts
    less = f"lower batch_size to {smaller} or crop_size, raise accumulation" if smaller else "lower crop_size"
    found = "" if device.type == "cpu" else "--batch-size auto finds the largest that fits one process; or "
    return (
        f"the memory of {device} is too small for batch_size {config.batch_size} with crops of {height}x{width}; "
        f"{found}{less}, add --recompute, or choose a smaller backbone"
    )


def too_large_to_validate(config: TrainConfig, device: torch.device) -> str:
    """What to change where a validation does not fit into memory."""
    frames = config.eval_batch_size
    less = f"lower eval_batch_size to {frames // 2}" if frames > 1 else "end other programs or cut the frames"
    return f"the memory of {device} is too small for a validation of {frames} whole frames at once; {less}"
