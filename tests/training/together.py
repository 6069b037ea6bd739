"""What several processes compute together in float64: ten steps of training, and batch norm alone."""

import contextlib
from copy import deepcopy
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from deeplabv3.config import LossConfig, ModelConfig, Phase, TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.data.sampling import Key, own_parts
from deeplabv3.distributed import num_processes, process_group, rank
from deeplabv3.model.checkpoint import encode_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training import learner as learners
from deeplabv3.training.learner import enter_phase, make_learner
from deeplabv3.training.losses import class_weights_of
from deeplabv3.training.state import state_tensors
from deeplabv3.training.step import step_batches, train_step
from deeplabv3.training.stopping import StopSignals
from deeplabv3.training.synchronised import GlobalBatchNorm

IMAGES, STEPS, RATE, CPU = 4, 10, 0.01, torch.device("cpu")
"""Images are those of all processes together."""


def learn(out: Path, frozen: bool, accumulation: int = 1, synchronised: bool = True) -> None:
    """Ten steps from images and labels of noise, of which each image is labelled to another share, one not at all."""
    torch.set_default_dtype(torch.float64)
    config = TrainConfig(
        data_dir=out,
        run_dir=out,
        model=ModelConfig(
            backbone="resnet18", width=16, aspp_channels=8, auxiliary_channels=8, num_classes=4, dropout=0.0
        ),
        loss=LossConfig(class_weights=(1.0, 2.0, 0.5, 3.0)),
        phases=(Phase(steps=STEPS, learning_rate=RATE, frozen_batch_norm=frozen),),
        batch_size=IMAGES,
        accumulation=accumulation,
        crop_size=(32, 48),
    )
    batches = [batch_of(step) for step in range(STEPS)]
    weights = class_weights_of(config.loss, None, CPU).double()
    with process_group(), contextlib.ExitStack() as patches:
        if not synchronised:
            patches.enter_context(mock.patch.object(learners, "synchronised", lambda model, device: model))
        torch.manual_seed(0)
        learner = make_learner(DeepLabV3(config.model), config, CPU)
        enter_phase(learner, config.phases[0], config)
        losses = []
        for step, taken in enumerate(step_batches(own(batches, config), accumulation, weights, StopSignals())):
            losses.append(train_step(learner, taken, RATE, step, config, weights).value())
    assert len(losses) == STEPS
    (out / f"{rank()}.safetensors").write_bytes(encode_checkpoint(state_tensors(learner), {"losses": losses}))


def batch_of(step):
    rng = np.random.default_rng(step)
    image = rng.integers(0, 256, (IMAGES, 3, 32, 48), np.uint8)
    label = rng.integers(0, 4, (IMAGES, 32, 48)).astype(np.uint8)
    for place, share in enumerate(rng.permutation([0.0, 0.05, 0.5, 1.0])):
        label[place][rng.random((32, 48)) >= share] = IGNORE_INDEX
    return torch.from_numpy(image), torch.from_numpy(label)


def own(batches, config):
    """This process's parts, as the loader takes them."""
    for image, label in batches:
        for part in own_parts([Key(0, place) for place in range(IMAGES)], config):
            places = [key.index for key in part]
            yield Batch(image[places], label[places], tuple(map(str, places)))


def normalise(out: Path) -> None:
    """Batch norm of the images of all processes; beside it the plain one of the whole batch."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(5, momentum=0.3)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    ours = GlobalBatchNorm.of(deepcopy(plain))
    with process_group():
        for _ in range(2):
            images = (torch.randn(2 * num_processes(), 5, 3, 4) * 7 + 3).requires_grad_()
            share = share_of_rank(images.detach()).requires_grad_()
            upstream = torch.randn_like(images)
            expected, got = plain(images), ours(share)
            expected.backward(upstream)
            got.backward(share_of_rank(upstream))
            assert_close(got, share_of_rank(expected))
            assert_close(share.grad, share_of_rank(images.grad))
        for name, parameter in ours.named_parameters():
            dist.all_reduce(parameter.grad)
            assert_close(parameter.grad, plain.get_parameter(name).grad)
        for name, buffer in ours.named_buffers():
            assert_close(buffer, plain.get_buffer(name))
        share = torch.randn(2, 5, 3, 4)
        assert_close(ours.eval()(share), plain.eval()(share))


def share_of_rank(images):
    return images[2 * rank() : 2 * rank() + 2]


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
