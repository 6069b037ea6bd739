"""What learns: the network, its optimizer, the moving average of its weights, and how the network is called."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from deeplabv3.config import Phase, TrainConfig
from deeplabv3.distributed import num_processes
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import place
from deeplabv3.training.synchronised import synchronised

# Statistics of batch norm are the same everywhere, so they need not be sent. The option's name depends on the release.
_UNSENT: dict[str, Any] = {
    name: False for name in ("forward_sync_buffers",) if name in signature(DistributedDataParallel).parameters
} or {"broadcast_buffers": False}


@dataclass
class Learner:
    """All of a run that a step changes.

    Attributes:
        model: The network, on `device`.
        network: What a step calls: the same network, through torch's gradient exchange or compiler.
        optimizer: SGD; its momentum exists from the beginning.
        scaler: Scales the loss in float16; None for other precisions.
        average: The moving average of the weights and statistics, as a network in evaluation mode; None without one.
        num_averaged: Updates that it has seen.
        device: Where all of it is.
    """

    model: DeepLabV3
    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None
    average: DeepLabV3 | None
    num_averaged: int
    device: torch.device

    @property
    def judged(self) -> DeepLabV3:
        """The network that a run is judged by and that checkpoints are used with: the average, if there is one."""
        return self.model if self.average is None else self.average


class WithAuxiliary(nn.Module):
    """A network whose `forward` gives the auxiliary logits too, as gradient exchange and compiler need it."""

    def __init__(self, model: DeepLabV3) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """`DeepLabV3.forward_with_auxiliary`."""
        return self.model.forward_with_auxiliary(image)  # (N, K, H, W) both


def make_learner(model: DeepLabV3, config: TrainConfig, device: torch.device) -> Learner:
    """Everything around a network that is about to be trained; `enter_phase` comes next.

    Args:
        model: With its initial weights.
        config: The run.
        device: Where it is trained.
    """
    if num_processes() > 1:
        model = synchronised(model, device)
    model.backbone.recompute = config.recompute
    model = place(model, device)
    average = None
    if config.average_decay:
        average = deepcopy(model).eval().requires_grad_(False)
    scaler = torch.amp.GradScaler(device.type) if config.precision == "float16" else None
    return Learner(model, model, make_optimizer(model, config, device), scaler, average, 0, device)


def make_optimizer(model: DeepLabV3, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """SGD with momentum. The rate of each step is set at that step, times the `rate_factor` of each group.

    Groups are made of two choices: backbone or head (`head_rate_factor`), decayed or not (`decay_norm_and_bias`).
    """
    no_decay = set() if config.decay_norm_and_bias else {id(value) for value in _norms_and_biases(model)}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = name.startswith("backbone."), id(parameter) in no_decay
        groups.setdefault(key, []).append(parameter)
    optimizer = torch.optim.SGD(
        [
            {
                "params": parameters,
                "weight_decay": 0.0 if undecayed else config.weight_decay,
                "rate_factor": 1.0 if in_backbone else config.head_rate_factor,
            }
            for (in_backbone, undecayed), parameters in groups.items()
        ],
        lr=0.0,
        momentum=config.momentum,
        fused=device.type in ("cpu", "cuda"),  # one pass over the weights instead of four
    )
    if config.momentum:
        # torch would make it in the first update. An update that numbers forbid (`step.py`) would then leave it unset.
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def momentum_of(learner: Learner) -> dict[str, Tensor]:
    """The momentum of each weight by its name; nothing without momentum."""
    states = learner.optimizer.state
    names = {name: states[value] for name, value in learner.model.named_parameters()}
    return {name: state["momentum_buffer"] for name, state in names.items() if "momentum_buffer" in state}


def enter_phase(learner: Learner, phase: Phase, config: TrainConfig) -> None:
    """Bring the network to what a phase asks for, and wrap it as the run does.

    Args:
        learner: Its `network` is made anew.
        phase: `output_stride` and `frozen_batch_norm` matter.
        config: The run.
    """
    model = learner.model
    stride = phase.output_stride or config.model.output_stride
    for network in (model, learner.average):
        if network is not None:
            network.set_output_stride(stride)
    for parameter in _norm_weights(model):
        parameter.requires_grad_(not phase.frozen_batch_norm)
    set_training(model, phase)
    learner.network = WithAuxiliary(model)
    if config.compile:
        learner.network.compile()
    if num_processes() > 1:
        learner.network = DistributedDataParallel(learner.network, gradient_as_bucket_view=True, **_UNSENT)
        _settle_exchange(learner)
        set_training(model, phase)


def _settle_exchange(learner: Learner) -> None:
    """Let torch find the order that it exchanges gradients in, which it would do in the first step.

    In that step it would take another one, and three numbers or more have other sums in another order. A run that goes
    on has a first step where one that was not interrupted has none.
    """
    learner.model.eval()  # statistics stay as they are
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=learner.device)
    with torch.compiler.set_stance("force_eager"):
        logits, auxiliary = learner.network(image)  # (1, K, 64, 64) both
    (logits.sum() if auxiliary is None else logits.sum() + auxiliary.sum()).backward()


def set_training(model: DeepLabV3, phase: Phase) -> None:
    """Training mode, but for a batch norm that is frozen."""
    model.train()
    if phase.frozen_batch_norm:
        for norm in _norms(model):
            norm.eval()


def update_average(learner: Learner, decay: float) -> None:
    """Move the average by one update: average = d average + (1 - d) value, for weights and batch norm statistics.

    d is `decay`, and less in the beginning, (1 + n) / (10 + n) after n updates, so that the first weights, which mean
    nothing, are soon forgotten (TensorFlow's `ExponentialMovingAverage` with `num_updates`).
    """
    assert learner.average is not None
    pairs = list(zip(learner.average.state_dict().values(), learner.model.state_dict().values(), strict=True))
    moving = [pair for pair in pairs if pair[1].is_floating_point()]
    counters = [pair for pair in pairs if not pair[1].is_floating_point()]  # how many batches a norm has seen
    decay = min(decay, (1 + learner.num_averaged) / (10 + learner.num_averaged))
    with torch.no_grad():
        torch._foreach_lerp_([theirs for theirs, _ in moving], [ours for _, ours in moving], 1 - decay)
        torch._foreach_copy_([theirs for theirs, _ in counters], [ours for _, ours in counters])
    learner.num_averaged += 1


def _norms(model: nn.Module) -> Iterable[_BatchNorm]:
    return (module for module in model.modules() if isinstance(module, _BatchNorm))


def _norm_weights(model: nn.Module) -> Iterable[nn.Parameter]:
    return (parameter for norm in _norms(model) for parameter in norm.parameters())


def _norms_and_biases(model: nn.Module) -> Iterable[nn.Parameter]:
    yield from _norm_weights(model)
    yield from (parameter for name, parameter in model.named_parameters() if name.endswith(".bias"))
