"""Batch normalisation over the images of all processes, on any device.

torch's own `SyncBatchNorm` refuses tensors of a CPU. What it does is a sum over the processes whose gradient is a sum
over the processes; the rest is ordinary arithmetic.

Shape letters: N images of this process, C channels, h and w the size of a grid.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Module = TypeVar("Module", bound=nn.Module)


def synchronised(model: Module, device: torch.device) -> Module:
    """The same network, of which each batch norm looks at the images of all processes.

    Args:
        model: Changed; parameters, statistics and their names stay.
        device: On CUDA, torch's `SyncBatchNorm` is taken, which has kernels of its own; elsewhere `GlobalBatchNorm`.
    """
    if device.type == "cuda":
        converted: Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, GlobalBatchNorm.of(child))
    return model


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation by the mean and variance over the images of all processes (Ioffe and Szegedy 2015)."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> GlobalBatchNorm:
        """One with the parameters and statistics of a plain one: the very same tensors."""
        result = cls(norm.num_features, norm.eps, norm.momentum)
        result._parameters, result._buffers, result.training = norm._parameters, norm._buffers, norm.training
        return result

    def _check_input_dim(self, input: Tensor) -> None:
        """Nothing else than `(N, C, h, w)` comes here."""

    def forward(self, x: Tensor) -> Tensor:
        """Float `(N, C, h, w)` to the same shape; under autocast the sums are float32."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        wide = x.to(self.weight.dtype)  # (N, C, h, w)
        number = x.numel() // x.shape[1]
        sums = _sum_over_processes(torch.cat([wide.sum((0, 2, 3)), wide.new_tensor([number])]))  # (C + 1,)
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()  # (C,), ()
        centred = wide - mean.view(-1, 1, 1)  # (N, C, h, w)
        variance = _sum_over_processes(centred.square().sum((0, 2, 3))) / total  # (C,)
        with torch.no_grad():
            assert self.momentum is not None
            self.running_mean.lerp_(mean.detach(), self.momentum)
            unbiased = variance.detach() * (total / (total - 1))  # as torch keeps it
            self.running_var.lerp_(unbiased, self.momentum)
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)  # (C,)
        return (centred * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(x.dtype)  # (N, C, h, w)


def _sum_over_processes(values: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return result


class _Sum(torch.autograd.Function):
    """The sum over all processes. Each process's loss depends on every process's values, so gradients add up too."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        total = upstream.clone()
        dist.all_reduce(total)
        return total
