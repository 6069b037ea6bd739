"""Where a number that is not finite came from: looked for once a step has failed, so it may take its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deeplabv3.distributed import gather
from deeplabv3.training.learner import Learner, WithAuxiliary, momentum_of


def origin_of_non_finite(learner: Learner, repeat: Callable[[Learner], Tensor]) -> str:
    """What was NaN or infinite first, in words as "the output of backbone.conv1".

    A step is taken again up to its gradients. The candidates in the order in which a step uses them: weights, the image
    and each layer's output, the loss, momentum, statistics of batch norm, the moving average, and gradients from the
    last layer to the first. All processes of a run have to ask; they get the same answer, that of the first of them
    that has one.

    Args:
        learner: As the step, or the one after it, left it; so it may be that nothing is found.
        repeat: Computes the step's gradients and gives its loss; it is given a learner whose network is neither wrapped
            nor compiled.
    """
    model = learner.model
    found = [f"the weight {name}" for name in _non_finite(dict(model.named_parameters()))]
    plain = WithAuxiliary(model)
    hooks = list(_listen(plain, found))
    learner.optimizer.zero_grad(set_to_none=True)
    try:
        loss = repeat(replace(learner, network=plain, scaler=None))
    finally:
        for hook in hooks:
            hook.remove()
    found += [] if bool(torch.isfinite(loss)) else ["the loss"]
    found += [f"the momentum of {name}" for name in _non_finite(momentum_of(learner))]
    found += [f"the statistic {name}" for name in _non_finite(dict(model.named_buffers()))]
    if learner.average is not None:
        found += [f"the average of {name}" for name in _non_finite(learner.average.state_dict())]
    gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    found += [f"the gradient of {name}" for name in reversed(_non_finite(gradients))]
    answers = gather(found[:1])
    return answers[0] if answers else "a number that is finite when the step is repeated"


def _non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    floats = {name: value for name, value in tensors.items() if value.is_floating_point()}
    return [name for name, value in floats.items() if not bool(torch.isfinite(value).all())]


def _listen(network: WithAuxiliary, found: list[str]) -> Iterator[RemovableHandle]:
    """Add to `found` what of a forward pass is not finite, in its order: the image, then the outputs of layers."""

    def look(what: str, value: object) -> None:
        if isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
            found.append(what)

    def after(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _module, _inputs, output: look(f"the output of {name}", output)

    yield network.register_forward_pre_hook(lambda _module, inputs: look("the image", inputs[0]))
    for name, module in network.model.named_modules():
        if name:
            yield module.register_forward_hook(after(name))
