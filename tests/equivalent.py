"""Faults that change nothing which a test could see, each with the reason: `tests.mutants` leaves them out."""

EQUIVALENT: dict[tuple[str, str], str] = {}
"""Module and change, as `tests.mutants` prints them, and why it is none."""
