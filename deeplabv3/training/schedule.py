"""The learning rate, and which phase is under way, as pure functions of the step."""

from __future__ import annotations

from collections.abc import Sequence

from deeplabv3.config import Phase


def learning_rate(
    step: int,
    phases: Sequence[Phase],
    steps_per_epoch: int,
    power: float = 0.9,
    lowest: float = 0.0,
    num_waited: int = 0,
) -> float:
    """The poly schedule of each phase: `rate * (1 - step / steps) ** power` (Chen et al. 2017, section 4.1).

    With `lowest`, what is above it decays (mmsegmentation's `min_lr`). In the phase's first `warmup_steps` the rate is
    (step + 1) / warmup_steps of that.

    Args:
        step: Optimizer updates since the run began, counted through all phases, from 0.
        phases: One after the other.
        steps_per_epoch: Updates an epoch has.
        power: Exponent of the decay.
        lowest: What the rate of each phase falls to.
        num_waited: Steps of the run before this one that updated nothing; each phase begins to fall so many steps late.

    Returns:
        The rate of that update; above 0 within the phases, 0 behind them.
    """
    for phase in phases:
        steps = num_steps([phase], steps_per_epoch)
        if step < steps:
            step = max(0, step - num_waited)
            rate = lowest + (phase.learning_rate - lowest) * (1 - step / steps) ** power
            return float(rate * min(1, (step + 1) / max(1, phase.warmup_steps)))
        step -= steps
    return 0.0


def num_steps(phases: Sequence[Phase], steps_per_epoch: int) -> int:
    """Steps of all phases together."""
    return sum(phase.steps or (phase.epochs or 0) * steps_per_epoch for phase in phases)


def num_epochs(phases: Sequence[Phase], steps_per_epoch: int) -> int:
    """Epochs of all phases together; the last one may be cut short."""
    return -(-num_steps(phases, steps_per_epoch) // steps_per_epoch)


def phase_at(step: int, phases: Sequence[Phase], steps_per_epoch: int) -> int:
    """The place among the phases of the one that a step belongs to; the last one for any step behind the end."""
    for place, phase in enumerate(phases):
        step -= num_steps([phase], steps_per_epoch)
        if step < 0:
            return place
    return len(phases) - 1
