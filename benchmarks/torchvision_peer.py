"""torchvision's DeepLabV3 and its reference's training step, beside which `train_cpu.py` and `train_gpu.py` put ours.

The reference is references/segmentation/train.py of torchvision, without the auxiliary head: pixels come normalised as
float32 and labels as int64 from the data loader, the loss is `F.cross_entropy(logits, label, ignore_index=255)`, the
optimizer is `torch.optim.SGD` as it is by default, and the last step's gradients are dropped behind the forward pass.
"Tuned" is the same with what a user changes in two lines: weights and pixels channels last, and SGD fused.

Shape letters: N images, H and W pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deeplabv3.config import TrainConfig
from deeplabv3.data.batches import Batch
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.model.deeplab import PIXEL_MEAN, PIXEL_STD, DeepLabV3
from deeplabv3.model.device import autocast, place
from deeplabv3.model.foreign import Foreign
from deeplabv3.model.importers import import_weights
from deeplabv3.training.learner import enter_phase, make_learner
from deeplabv3.training.step import StepBatch, train_step

CLASSES = 19
RATE = 1e-3  # small: from random weights, a step of time and memory is wanted and not a good one
WAYS = ("ours", "torchvision", "tuned")

Step = Callable[[], object]


def torchvision_network(backbone: str, output_stride: int) -> nn.Module:
    """DeepLabV3 of torchvision without auxiliary head, with random weights.

    Args:
        backbone: resnet50, resnet101 or resnet152; torchvision's smaller ones have no atrous form.
        output_stride: 8, as torchvision builds it, or 16; its ASPP rates are 12, 24 and 36 at either.
    """
    import_torchvision()
    from torchvision.models import resnet
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import deeplabv3

    dilated = [False, output_stride == 8, True]
    features = getattr(resnet, backbone)(weights=None, replace_stride_with_dilation=dilated)
    features = IntermediateLayerGetter(features, {"layer4": "out"})
    return deeplabv3.DeepLabV3(features, deeplabv3.DeepLabHead(2048, CLASSES))


def import_torchvision() -> None:
    """Import it, even where it is built for CUDA beside a torch that is not, and misses two operators."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _LIBRARIES.append(torch.library.Library("torchvision", "DEF"))  # what it declares lasts as long as it does
        for operator in ("nms", "qnms"):
            _LIBRARIES[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


_LIBRARIES: list[torch.library.Library] = []


def our_network(theirs: nn.Module, output_stride: int) -> DeepLabV3:
    """Ours with torchvision's weights and rates, by the importer of checkpoints."""
    imported = import_weights(
        Foreign(Path("torchvision.pth"), dict(theirs.state_dict()), {}), output_stride=output_stride
    )
    model = DeepLabV3(imported.config)
    model.load_state_dict(imported.tensors)
    return model


def pixels_and_labels(images: int, crop: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random pixels, uint8 `(N, 3, H, W)`, and trainIds, uint8 `(N, H, W)`, a tenth of them ignored."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (images, 3, crop, crop), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, CLASSES, (images, crop, crop), dtype=torch.uint8, generator=generator)
    label[:, : crop // 10] = IGNORE_INDEX
    return image.to(device), label.to(device)


def normalised(image: Tensor) -> Tensor:
    """What torchvision's reference hands to its network, float32 `(N, 3, H, W)`, from uint8 pixels."""
    mean, std = (torch.tensor(values, device=image.device).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    return (image - mean) / std


def largest_difference(backbone: str, output_stride: int, images: int, crop: int) -> float:
    """How far the two networks' logits in training are apart, as a share of the largest logit.

    Dropout is random and therefore off; batch normalisation takes the statistics of the batch.
    """
    torch.manual_seed(0)
    theirs = torchvision_network(backbone, output_stride)
    ours = our_network(theirs, output_stride)
    for module in (*theirs.modules(), *ours.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    image, _ = pixels_and_labels(images, crop, torch.device("cpu"))
    with torch.no_grad():
        expected = theirs.train()(normalised(image))["out"]
        return float((ours.train()(image) - expected).abs().max() / expected.abs().max())


def our_step(
    theirs: nn.Module,
    output_stride: int,
    batch: tuple[Tensor, Tensor],
    precision: str,
    compiled: bool = False,
) -> Step:
    """One step of ours as `train` does it: it normalises, and looks whether loss and gradients are finite.

    Args:
        theirs: Where the weights are from.
        output_stride: 8 or 16.
        batch: From `pixels_and_labels`; its device is where the network runs.
        precision: float32 or bfloat16.
        compiled: Whether the network goes through `torch.compile`.
    """
    image, label = batch
    model = our_network(theirs, output_stride)
    config = TrainConfig(
        data_dir=Path(),
        run_dir=Path(),
        model=model.config,
        precision=precision,
        compile=compiled,
        batch_size=len(image),
    )
    learner = make_learner(model, config, image.device)
    enter_phase(learner, config.phases[0], config)
    frames = Batch(image, label, ("random",) * len(image))
    made = StepBatch([frames], [1.0], is_empty=False)  # the loop looks at labels while they are in main memory
    return lambda: train_step(learner, made, RATE, 0, config).value()


def their_step(
    theirs: nn.Module, batch: tuple[Tensor, Tensor], precision: str, *, tuned: bool = False, compiled: bool = False
) -> Step:
    """One step of torchvision's reference; the value of the loss is read, as the reference does to print it.

    Args:
        theirs: The network.
        batch: From `pixels_and_labels`; it is normalised and its labels are widened beforehand.
        precision: float32 or bfloat16.
        tuned: Weights and pixels channels last, and SGD fused.
        compiled: Whether the network goes through `torch.compile`.
    """
    image, label = normalised(batch[0]), batch[1].long()
    model = theirs.train().to(image.device)
    if tuned:
        model, image = place(model, image.device), image.to(memory_format=torch.channels_last)
    defaults = TrainConfig(data_dir=Path(), run_dir=Path())
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=RATE,
        momentum=defaults.momentum,
        weight_decay=defaults.weight_decay,
        fused=True if tuned else None,
    )
    network = torch.compile(model) if compiled else model

    def step() -> float:
        with autocast(image.device, precision):
            output = network(image)
            loss = F.cross_entropy(output["out"], label, ignore_index=IGNORE_INDEX)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
