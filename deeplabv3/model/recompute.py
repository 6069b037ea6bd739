"""Memory for time: of a backbone's blocks only the outputs are kept, and the rest is computed again on the way back.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174); torch's `checkpoint`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def through(block: nn.Module, x: Tensor, *, recompute: bool) -> Tensor:
    """What a block makes of `x`; with `recompute`, nothing else of it is kept for the way back.

    Args:
        block: Without random numbers.
        x: Float `(N, C, h, w)`.
        recompute: Whether memory is saved; it has no effect where no gradient is wanted.
    """
    if not (recompute and torch.is_grad_enabled()):
        result: Tensor = block(x)
        return result

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(block)

    # torch's compiler takes no contexts of ours and needs none: it moves the statistics once, whatever it recomputes.
    options: dict[str, Any] = {} if torch.compiler.is_compiling() else {"context_fn": contexts}
    computed: Tensor = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, **options)
    return computed


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norm moves its running statistics whenever it computes; the second time must not count."""
    buffers = [buffer for norm in block.modules() if isinstance(norm, _BatchNorm) for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)
