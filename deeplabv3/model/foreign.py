"""Placeholder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor


@dataclass(frozen=True)
class Foreign:
    """Placeholder."""

    path: Path
    tensors: dict[str, Tensor]
    notes: dict[str, str]
