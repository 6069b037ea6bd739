"""The learning rate as a pure function of the step."""

from __future__ import annotations

from collections.abc import Sequence

from deeplabv3.config import Phase


def learning_rate(step: int, phases: Sequence[Phase], steps_per_epoch: int, power: float = 0.9) -> float:
    """The poly schedule of each phase: `rate * (1 - step / steps) ** power` (Chen et al. 2017, section 4.1).

    Args:
        step: Optimizer updates since the run began, counted through all phases, from 0.
        phases: One after the other.
        steps_per_epoch: Updates an epoch has.
        power: Exponent of the decay.

    Returns:
        The rate of that update; above 0 within the phases.
    """
    for phase in phases:
        steps = phase.epochs * steps_per_epoch
        if step < steps:
            return float(phase.learning_rate * (1 - step / steps) ** power)
        step -= steps
    return 0.0


def num_epochs(phases: Sequence[Phase]) -> int:
    """Epochs of all phases together."""
    return sum(phase.epochs for phase in phases)


def phase_of_epoch(epoch: int, phases: Sequence[Phase]) -> Phase:
    """The phase that an epoch, counted from 0, belongs to; the last one for any epoch behind the end."""
    for phase in phases:
        if epoch < phase.epochs:
            return phase
        epoch -= phase.epochs
    return phases[-1]
