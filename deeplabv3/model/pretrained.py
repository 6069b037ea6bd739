"""ImageNet weights by name: found or downloaded once, verified, and put into a backbone.

The files are torchvision's (torchvision/models/resnet.py); the eight hexadecimal digits in a name are the first ones
of the file's SHA-256. They are kept in `$DEEPLABV3_CACHE`, by default `~/.cache/deeplabv3`.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import cache_dir
from deeplabv3.model.checkpoint import differences
from deeplabv3.model.resnet import ResNet
from deeplabv3.progress import Progress

BASE_URL = "https://download.pytorch.org/models/"
TIMEOUT_SECONDS = 30
CHUNK_BYTES = 1 << 20

FILES = {
    "imagenet": {  # top-1 69.758, 73.314, 76.130, 77.374, 78.312 %
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-0676ba61.pth",
        "resnet101": "resnet101-63fe2227.pth",
        "resnet152": "resnet152-394f9c45.pth",
    },
    "imagenet-v2": {  # trained longer: top-1 80.858, 81.886, 82.284 %
        "resnet50": "resnet50-11ad3fa6.pth",
        "resnet101": "resnet101-cd907fc2.pth",
        "resnet152": "resnet152-f82ba261.pth",
    },
}


def backbone_file(backbone: str, weights: str) -> Path:
    """The local file of a backbone's weights, downloaded if it is not there yet.

    Args:
        backbone: "resnet18" and so on.
        weights: "imagenet", "imagenet-v2", or the path of a local file.

    Returns:
        A file whose SHA-256 fits the digits in its name, if its name has any.

    Raises:
        InputError: The name is unknown for this backbone, or nothing can be downloaded.
        CheckpointError: The file is damaged.
    """
    if weights not in FILES:
        path = Path(weights)
        if not path.is_file():
            names = ", ".join(FILES)
            raise InputError(f"backbone_weights is {weights!r}; give {names}, none, or the path of a file that exists")
        return verified(path)
    if backbone not in FILES[weights]:
        raise InputError(f"there are no {weights} weights of {backbone}; they exist for {', '.join(FILES[weights])}")
    path = cache_dir() / FILES[weights][backbone]
    if not path.is_file():
        download(BASE_URL + path.name, path)
    return verified(path)


def verified(path: Path) -> Path:
    """The same path, if its file has the SHA-256 that its name promises.

    Raises:
        CheckpointError: It has another one.
    """
    if not has_right_digest(path, path.name):
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not that of its name; delete it and fetch it again")
    return path


def has_right_digest(path: Path, name: str) -> bool:
    """Whether a file's SHA-256 begins as its published name says (`resnet18-f37072fd.pth`); True for other names."""
    expected = re.fullmatch(r"resnet\d+-([0-9a-f]{8})\.pth", name)
    if expected is None:
        return True
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            total.update(chunk)
    return total.hexdigest().startswith(expected[1])


def download(url: str, path: Path) -> None:
    """Fetch a file; `path` appears only when it is complete and its SHA-256 is right.

    Raises:
        InputError: It cannot be fetched or written; the message says which file to put where.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer, partial.open("wb") as file:
            size = int(answer.headers.get("Content-Length", 0))
            with Progress(f"downloading {path.name}", size) as progress:
                while chunk := answer.read(CHUNK_BYTES):
                    file.write(chunk)
                    progress.advance(len(chunk))
            if progress.done < size:
                raise OSError(f"it ended after {progress.done:,} of {size:,} bytes")
        if not has_right_digest(partial, path.name):
            raise OSError("its SHA-256 is wrong")
        partial.replace(path)
    except (OSError, ValueError, HTTPException) as error:
        raise InputError(
            f"{url} cannot be fetched ({error}); fetch it elsewhere and put it at {path}, or pass a local file with "
            "--backbone-weights FILE, or start without with --backbone-weights none"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of weights, `.safetensors` or a torch file of plain tensors; no code in it is run.

    Raises:
        CheckpointError: It cannot be read or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises ten kinds for damaged files
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} cannot be read as weights ({detail}); fetch it again") from error
    if not isinstance(values, dict) or not all(isinstance(value, Tensor) for value in values.values()):
        raise CheckpointError(f"{path} holds something else than named tensors; give ImageNet weights of a ResNet")
    return values


def load_backbone(backbone: ResNet, path: Path) -> None:
    """Fill a backbone with ImageNet weights; the ImageNet classifier `fc` in the file is left out.

    Raises:
        CheckpointError: The file is of another network; the message says what differs.
    """
    theirs = {name: value for name, value in read_weights(path).items() if not name.startswith("fc.")}
    ours = backbone.state_dict()
    for name in ours:  # files from before 2018 lack these counters, which only a momentum of None would use
        if name.endswith("num_batches_tracked"):
            theirs.setdefault(name, torch.tensor(0))
    faults = differences(ours, theirs)
    if faults:
        raise CheckpointError(f"{path} does not fit this backbone: {faults}; give weights of its depth, at width 64")
    backbone.load_state_dict(theirs)
