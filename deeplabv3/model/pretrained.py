"""ImageNet weights by name: found or downloaded once, verified, and put into a backbone.

The files are torchvision's (torchvision/models/resnet.py, mobilenetv3.py).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import cache_dir, is_file
from deeplabv3.model.checkpoint import differences
from deeplabv3.model.download import download, verified
from deeplabv3.model.foreign import read_foreign
from deeplabv3.model.mobilenet import MobileNetV3
from deeplabv3.model.resnet import ResNet

BASE_URL = "https://download.pytorch.org/models/"

FILES = {
    "imagenet": {  # top-1 69.758, 73.314, 76.130, 77.374, 78.312 %
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-0676ba61.pth",
        "resnet101": "resnet101-63fe2227.pth",
        "resnet152": "resnet152-394f9c45.pth",
        "mobilenet_v3_large": "mobilenet_v3_large-8738ca79.pth",
    },
    "imagenet-v2": {  # trained longer: top-1 80.858, 81.886, 82.284 %
        "resnet50": "resnet50-11ad3fa6.pth",
        "resnet101": "resnet101-cd907fc2.pth",
        "resnet152": "resnet152-f82ba261.pth",
        "mobilenet_v3_large": "mobilenet_v3_large-5c1a4163.pth",
    },
}


def backbone_file(backbone: str, weights: str) -> Path:
    """The local file of a backbone's weights, downloaded if it is not there yet.

    Args:
        backbone: "resnet18" and so on.
        weights: "imagenet", "imagenet-v2", or the path of a local file.

    Returns:
        A file whose SHA-256 fits the digits in its name, if it is called as a published one.

    Raises:
        InputError: The name is unknown for this backbone, or nothing can be downloaded.
        CheckpointError: The file is damaged.
    """
    if weights not in FILES:
        path = Path(weights)
        if not is_file(path):
            names = ", ".join(FILES)
            raise InputError(f"backbone_weights is {weights!r}; give {names}, none, or the path of a file that exists")
        is_published = any(path.name in files.values() for files in FILES.values())
        return verified(path) if is_published else path  # another's digits may be a date
    if backbone not in FILES[weights]:
        raise InputError(f"there are no {weights} weights of {backbone}; they exist for {', '.join(FILES[weights])}")
    path = cache_dir() / FILES[weights][backbone]
    if not path.is_file():
        try:
            download(BASE_URL + path.name, path)
        except InputError as error:
            raise InputError(f"{error}: --backbone-weights FILE; --backbone-weights none starts without") from error
    return verified(path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights, `.safetensors` or what torch.save wrote; no code in it is run.

    Raises:
        CheckpointError: It cannot be read or holds something else.
    """
    return read_foreign(path).tensors


def load_backbone(backbone: ResNet | MobileNetV3, path: Path) -> None:
    """Fill a backbone with ImageNet weights; the ImageNet classifier in the file is left out.

    Raises:
        CheckpointError: The file is of another network; the message says what differs.
    """
    classifier = "fc." if isinstance(backbone, ResNet) else "classifier."
    theirs = {
        name.removeprefix("features."): value
        for name, value in read_weights(path).items()
        if not name.startswith(classifier)
    }
    if "conv1.6.weight" in theirs:
        theirs = {_of_deep_stem(name): value for name, value in theirs.items()}
    ours = backbone.state_dict()
    for name in ours:  # files from before 2018 lack these counters, which only a momentum of None would use
        if name.endswith("num_batches_tracked"):
            theirs.setdefault(name, torch.tensor(0))
    faults = differences(ours, theirs, any_type=True)
    if "layer1.0.downsample.2.weight" in theirs:
        faults = "its shortcuts average (ResNet-D), and ours do not"
    if faults and any(name.startswith(_WHOLE_NETWORKS) for name in theirs):
        raise CheckpointError(f"{path} is a whole network and no backbone alone; begin with it by --weights {path}")
    if faults:
        advice = "give weights of its depth, at width 64"
        if "stem.0.weight" in theirs and "conv1.weight" in ours:
            advice = "it has the deep stem, so give --stem deep"
        elif "conv1.weight" in theirs and "stem.0.weight" in ours:
            advice = "it has not the deep stem, so give --stem conv7"
        raise CheckpointError(f"{path} does not fit this backbone: {faults}; {advice}")
    backbone.load_state_dict(theirs)


_WHOLE_NETWORKS = ("backbone.", "encoder.", "model/")  # what their names begin with, ours last


def _of_deep_stem(name: str) -> str:
    """Timm's names of the deep stem: its last normalisation is called `bn1`, as if it followed a single convolution."""
    if name.startswith("conv1."):
        return "stem." + name.removeprefix("conv1.")
    return "stem.7." + name.removeprefix("bn1.") if name.startswith("bn1.") else name
