"""Training: schedule, loss, loop and the state of a run."""
