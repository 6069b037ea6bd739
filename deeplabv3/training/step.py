"""One update of the weights, from the parts of a batch.

A batch is split over the processes, and within each of them into as many parts as `accumulation` says. The loss of the
batch is the sum of the parts' losses, each times its share of the batch's labelled pixels (with weights of classes, of
their sum): for cross-entropy that is the mean over the whole batch, however it was split. Hard pixels, Dice and Lovasz
look at one part at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm

from deeplabv3.config import TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.data.photometric import recolored
from deeplabv3.distributed import everyones, gather, num_processes, rank
from deeplabv3.errors import DatasetError, NonFiniteError
from deeplabv3.model.device import autocast
from deeplabv3.training.diagnosis import origin_of_non_finite
from deeplabv3.training.learner import Learner, momentum_of, update_average
from deeplabv3.training.losses import loss_of
from deeplabv3.training.position import Position
from deeplabv3.training.stopping import StopSignals

_DROPOUT = 3  # which stream of random numbers a seed starts

MAX_OVERFLOWS = 25
"""Steps in a row that float16 may overflow in. Each halves the scale, so this many go from 2 ** 16 to 2 ** -9."""


@dataclass(frozen=True)
class StepBatch:
    """The batch that a step is made from.

    Attributes:
        parts: This process's parts of the batch.
        shares: Of each, the share of the whole batch's labelled pixels, 0..1.
        is_empty: Whether the whole batch has no labelled pixel, or none of a class with a weight.
    """

    parts: Sequence[Batch]
    shares: Sequence[float]
    is_empty: bool


def step_batches(
    stream: Iterator[Batch], accumulation: int, class_weights: Tensor | None, stop: StopSignals
) -> Iterator[StepBatch]:
    """The batches of the steps that a stream of parts makes; before each, all processes agree that they take it.

    Args:
        stream: This process's parts.
        accumulation: How many of them a step has.
        class_weights: `(K,)`, or None.
        stop: Whether this process was told to stop.

    Raises:
        DatasetError: A part of any process cannot be read.
        Stopped: Any process was told to stop.
    """
    batches = zip(*[stream] * accumulation, strict=False)
    weights = None if class_weights is None else class_weights.cpu().double()
    while True:
        error: DatasetError | None = None
        parts: Sequence[Batch] = ()
        try:
            parts = next(batches)
        except StopIteration:  # in the same place everywhere
            return
        except DatasetError as own:
            error = own
        sums = [_importance(part, weights) for part in parts]
        totals, signals, errors = zip(*everyones([sum(sums), stop.number, float(error is not None)]), strict=True)
        stop.raise_if(int(max(signals)))  # one to the whole group also ends the processes that read
        if any(errors):
            raise next(filter(None, gather([error])))
        total = sum(totals)
        yield StepBatch(parts, [one / total if total else 0.0 for one in sums], is_empty=not total)


def _importance(part: Batch, class_weights: Tensor | None) -> float:
    """How much of the batch's mean the pixels of a part are, before it is divided."""
    if class_weights is None:
        return float(part.num_labelled)
    counts = torch.bincount(part.label.flatten(), minlength=IGNORE_INDEX + 1)[: len(class_weights)]
    return float(counts.double() @ class_weights)


@dataclass(frozen=True)
class Outcome:
    """What a step came to. Its numbers are on their way until they are asked for, so that nobody waits for the device.

    Attributes:
        step: Which step.
        rate: Its learning rate.
        names: The frames that this process took in.
        numbers: Of the whole batch the loss, of all weights the norm of the gradient (in float16 after the scale is
            taken out), and the norm of what else the step changes (`_watched`); float `(3,)`, in main memory or on its
            way there. None where the batch has no labelled pixel.
        arrival: What tells that they are there, if the device is one that copies by itself.
        is_scaled: Whether the loss was scaled, so that an overflow of the gradient is no error.
        origin: Says what was not finite first.
    """

    step: int
    rate: float
    names: tuple[str, ...]
    numbers: Tensor | None = None
    arrival: torch.cuda.Event | None = None
    is_scaled: bool = False
    origin: Callable[[], str] | None = None

    def value(self) -> float | None:
        """The loss, or None where nothing was updated.

        Raises:
            NonFiniteError: A number is NaN or infinite, and the scale of float16 was not the reason; no weight was
                updated.
        """
        if self.numbers is None:
            return None
        if self.arrival is not None:
            self.arrival.synchronize()  # waits for this copy, and not for the step that has begun since
        loss, gradient, watched = self.numbers.tolist()
        if math.isfinite(loss) and math.isfinite(gradient) and math.isfinite(watched):
            return float(loss)
        if self.is_scaled and math.isfinite(loss) and math.isfinite(watched):  # the loss is read before it is scaled
            return None
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif not math.isfinite(gradient):
            what = f"the norm of the gradient is {gradient}"
        else:
            what = f"the norm of momentum, statistics and average is {watched}"
        origin = f" (first in {self.origin()})" if self.origin else ""
        raise NonFiniteError(
            f"step {self.step}: {what}{origin} at learning rate {self.rate:.3g}, batch "
            f"{', '.join(gather(self.names))}; nothing of it was saved: lower the learning rate, or look at these files"
        )


def settle(outcomes: list[Outcome], position: Position, leave: int = 0) -> None:
    """Take outcomes off the list, oldest first, and account for them; `leave` the newest so many there.

    None is left whose loss was scaled: the rate of the next step depends on whether it overflowed.

    Raises:
        NonFiniteError: A number is NaN or infinite, or float16 overflowed too often.
    """
    while len(outcomes) > leave or any(outcome.is_scaled for outcome in outcomes):
        outcome = outcomes.pop(0)
        loss = outcome.value()
        has_overflowed = loss is None and outcome.numbers is not None
        position.advance(loss, has_overflowed=has_overflowed)
        if position.overflows_in_a_row > MAX_OVERFLOWS:
            raise NonFiniteError(
                f"step {outcome.step}: the gradient overflowed float16 in {position.overflows_in_a_row} steps in a row "
                "whatever the scale of the loss; nothing of it was saved: lower the learning rate, or take bfloat16"
            )


def train_step(
    learner: Learner, batch: StepBatch, rate: float, step: int, config: TrainConfig, class_weights: Tensor | None = None
) -> Outcome:
    """One update of the weights. Where its numbers are not finite the weights stay, and the outcome says so.

    Args:
        learner: What learns.
        batch: What from.
        rate: Learning rate.
        step: Which step, for random numbers and messages.
        config: The run.
        class_weights: `(K,)` on the device, or None.

    Raises:
        NonFiniteError: The rate is NaN or infinite.
    """
    names = tuple(name for part in batch.parts for name in part.names)
    if not math.isfinite(rate):
        raise NonFiniteError(f"step {step}: the learning rate is {rate}, batch {', '.join(names)}; look at the phases")
    if batch.is_empty:
        return Outcome(step, rate, names)

    def learn(learner: Learner) -> Tensor:
        return _gradients(learner, batch, step, config, class_weights)

    numbers, arrival = _update(learner, learn(learner), rate), None
    # Without a scale, a number that is not finite ends the run, and the host need not wait for it here.
    if learner.average is not None and (learner.scaler is None or bool(torch.isfinite(numbers).all())):
        update_average(learner, config.average_decay)
    if learner.device.type == "cuda":
        numbers = torch.empty(3, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch does not annotate it
        arrival.record(torch.cuda.current_stream(learner.device))
    origin = partial(origin_of_non_finite, learner, learn)
    return Outcome(step, rate, names, numbers, arrival, is_scaled=learner.scaler is not None, origin=origin)


def _gradients(
    learner: Learner, batch: StepBatch, step: int, config: TrainConfig, class_weights: Tensor | None
) -> Tensor:
    """Compute the gradients of a batch, and give this process's part of the loss."""
    torch.manual_seed(_seed(config.seed, step))  # dropout follows from the step: there is no state to be restored
    learner.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=learner.device)
    for place, (part, share) in enumerate(zip(batch.parts, batch.shares, strict=True), 1):
        with _exchange(learner.network, is_last=place == len(batch.parts)):
            loss = loss + _learn(learner, part, share, config, class_weights)
    return loss


def _learn(learner: Learner, part: Batch, share: float, config: TrainConfig, class_weights: Tensor | None) -> Tensor:
    """Add a part's gradients, and give its part of the loss."""
    device = learner.device
    image = part.image.to(device, non_blocking=True)  # (N, 3, H, W)
    if part.color is not None:
        image = recolored(image, part.color.to(device, non_blocking=True))  # (N, 3, H, W)
    label = part.label.to(device, non_blocking=True)  # (N, H, W)
    with autocast(device, config.precision):
        logits, auxiliary = learner.network(image)  # (N, K, H, W) both
    loss = loss_of(logits, auxiliary, label, config.loss, class_weights) * share
    del logits, auxiliary  # only their gradients are needed on the way back
    summed = loss * num_processes()  # gradients are averaged over the processes, losses are added up
    if learner.scaler is not None:
        summed = learner.scaler.scale(summed)
    summed.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    return loss.detach()


def _update(learner: Learner, loss: Tensor, rate: float) -> Tensor:
    """Let the optimizer use the gradients, unless a number is not finite; the `numbers` of an `Outcome`."""
    optimizer, scaler = learner.optimizer, learner.scaler
    if scaler is not None:
        scaler.unscale_(optimizer)
    gradient = get_total_norm([value.grad for value in learner.model.parameters() if value.grad is not None])
    watched = get_total_norm(_watched(learner))
    if num_processes() > 1:
        own = torch.stack([loss, watched])  # gradients are the same in all of them already
        dist.all_reduce(own)
        loss, watched = own
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
    is_finite = torch.isfinite(loss) & torch.isfinite(watched)
    if scaler is not None:
        if is_finite:  # the host waits; it has to, since the schedule depends on what was skipped
            scaler.step(optimizer)
        scaler.update()
    elif optimizer.defaults["fused"]:
        is_finite &= torch.isfinite(gradient)
        optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]  # the update asks for it on the device
        optimizer.step()
    elif is_finite & torch.isfinite(gradient):  # where updates are not fused, the host has to wait
        optimizer.step()
    return torch.stack([loss, gradient, watched])


def _watched(learner: Learner) -> list[Tensor]:
    """What a step changes, and what would carry a NaN on without its being seen in the loss."""
    averages = [] if learner.average is None else list(learner.average.state_dict().values())
    tensors = [*momentum_of(learner).values(), *learner.model.buffers(), *averages]
    return [value for value in tensors if value.is_floating_point()]


def _exchange(network: nn.Module, *, is_last: bool) -> AbstractContextManager[object]:
    """Gradients are sent to the other processes with the last part alone."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not is_last else nullcontext()


def _seed(seed: int, step: int) -> int:
    sequence = np.random.SeedSequence([seed, _DROPOUT, step, rank()])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
