"""Every kind of defect that can be planted in a data set, with what a check must say then."""

from tests.data import planted_contents, planted_places  # noqa: F401  # each of their functions is a defect
from tests.data.tree import DEFECTS

__all__ = ["DEFECTS"]
