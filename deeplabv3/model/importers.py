"""Checkpoints of other projects: recognised by their names, renamed to ours, and described by a `ModelConfig`.

Every name of a file is mapped or listed as unused on purpose, and every parameter of our model is filled, or there is a
report of what differs. `projects.py` holds what is known of each project:

    torchvision   DeepLabV3 with ResNet-50, 101 or MobileNetV3-Large
    mmseg         mmsegmentation: DeepLabV3 and V3+, ResNet with either stem
    vainf         VainF/DeepLabV3Plus-Pytorch: DeepLabV3 and V3+ with ResNet
    smp           segmentation_models.pytorch: DeepLabV3 with ResNet
    original      the repository whose command line `main.py` keeps

What a file's tensors do not say is taken from the texts beside them, from the file's name, or from the project's
defaults, in this order, and is said in `Imported.assumed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deeplabv3.config import CONVS_OF_BLOCK, NUM_BLOCKS, ModelConfig
from deeplabv3.data.labels import UNKNOWN
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.model.checkpoint import differences
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.foreign import Foreign
from deeplabv3.model.projects import DESCRIPTIONS, OTHERS, SIGNS, TABLES, UNUSED
from deeplabv3.model.unpickling import shown

NEXT = "give the weights of a whole network as its project builds it"


@dataclass(frozen=True)
class Imported:
    """A foreign checkpoint in our terms.

    Attributes:
        kind: The project: torchvision, mmseg, vainf, smp or original.
        config: The model that computes the same logits.
        tensors: Its state.
        unused: Names of the file that are left out on purpose.
        assumed: What the tensors do not say and where it was taken from, a sentence.
    """

    kind: str
    config: ModelConfig
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]
    assumed: str


def import_weights(foreign: Foreign, *, output_stride: int | None = None) -> Imported:
    """Bring a foreign checkpoint into our terms.

    Args:
        foreign: From `read_foreign`.
        output_stride: The one to run at; None is the one that the project trains or evaluates at.

    Raises:
        CheckpointError: The file is of no known project, or does not hold a whole DeepLab; the message says what was
            recognised and what differs.
    """
    kind = recognise(foreign)
    renamed, unused, unknown = rename(foreign.tensors, TABLES[kind])
    config = describe(renamed, kind, foreign)
    try:
        config, assumed = DESCRIPTIONS[kind](config, foreign, output_stride)
    except InputError as error:
        raise CheckpointError(f"{foreign.path} cannot be built so: {error}") from error
    for name in [name for name in renamed if name.endswith("running_mean")]:
        renamed.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))  # old files lack it
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        expected = DeepLabV3(config).state_dict()
    _require_equal(expected, renamed, unknown, kind, foreign)
    _reorder(renamed, kind, config)
    tensors = {name: renamed[name].to(value.dtype) for name, value in expected.items()}
    return Imported(kind.rstrip("+"), config, tensors, tuple(unused), assumed)


def recognise(foreign: Foreign) -> str:
    """Which table fits: a key of `TABLES`.

    Raises:
        CheckpointError: None; the message says what the file seems to be instead.
    """
    names = foreign.tensors
    for kind, sign in SIGNS.items():
        if sign in names:
            return kind
    if "segmentation_head.0.weight" in names and {"decoder.aspp.project.0.weight", "decoder.0.project.0.weight"} & set(
        names
    ):
        return "smp"
    seen = next((what for sign, what in OTHERS.items() if any(name.startswith(sign) for name in names)), None)
    if seen is None:
        seen = f"of no known project: its names begin with {', '.join(map(shown, list(names)[:3]))}"
    raise CheckpointError(
        f"{foreign.path} is {seen}; DeepLab V3 of torchvision, mmsegmentation, VainF, segmentation_models.pytorch and "
        "the original repository can be imported"
    )


def rename(
    tensors: Mapping[str, Tensor], table: Mapping[str, str]
) -> tuple[dict[str, Tensor], list[str], dict[str, Tensor]]:
    """Names by a table.

    Returns:
        Tensors by our names; names that are left out on purpose; and what is not in the table, or came already.
    """
    renamed: dict[str, Tensor] = {}
    unused: list[str] = []
    unknown: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(UNUSED):
            unused.append(name)
            continue
        beginning = max((theirs for theirs in table if name.startswith(theirs)), key=len, default=None)
        new = None if beginning is None else table[beginning] + name.removeprefix(beginning)
        if new is None or new in renamed:
            unknown[name] = tensor
        else:
            renamed[new] = tensor
    return renamed, unused, unknown


def their_name(name: str, kind: str, tensors: Mapping[str, Tensor]) -> str:
    """What a file with these tensors calls, or would call, a parameter of ours."""
    table = TABLES[kind]
    ours = max((ours for ours in table.values() if name.startswith(ours)), key=len, default=None)
    if ours is None:
        return name

    def familiar(theirs: str) -> int:
        """How many levels of this name the file has."""
        levels = theirs.split(".")
        starts = [".".join(levels[:depth]) + "." for depth in range(1, len(levels))]
        return sum(any(other.startswith(start) for other in tensors) for start in starts)

    # A project may have two names for one part; the file's other names tell which of them it uses.
    theirs = max((theirs for theirs, new in table.items() if new == ours), key=familiar)
    return theirs + name.removeprefix(ours)


def describe(tensors: Mapping[str, Tensor], kind: str, foreign: Foreign) -> ModelConfig:
    """What the shapes of renamed tensors say about their model.

    Raises:
        CheckpointError: A part of the network is not there, or has a shape that is not built here.
    """

    def shape(name: str) -> tuple[int, ...]:
        theirs = their_name(name, kind, foreign.tensors)
        if name not in tensors:
            raise CheckpointError(
                f"{foreign.path} lacks {theirs}, so it is no whole DeepLab of {kind.rstrip('+')}; {NEXT}"
            )
        found = tuple(tensors[name].shape)
        if len(found) != 4:
            raise CheckpointError(f"{foreign.path} has {theirs} of {found}; a convolution has 4 dimensions: {NEXT}")
        return found

    values: dict[str, Any] = {"backbone": _backbone(tensors, foreign)}
    if values["backbone"] != "mobilenet_v3_large":
        deep = "backbone.stem.0.weight" in tensors
        values["stem"] = "deep" if deep else "conv7"
        values["width"] = shape("backbone.stem.6.weight" if deep else "backbone.conv1.weight")[0]
    values["num_classes"], values["aspp_channels"] = shape("classifier.weight")[0], shape("aspp.branches.0.0.weight")[0]
    values["aspp_separable"] = "aspp.branches.1.3.weight" in tensors
    is_fused, kernel = "aspp.fuse.0.weight" in tensors, shape("aspp.project.0.weight")[-1]
    values["aspp_projection"] = "1x1+3x3" if is_fused else f"{kernel}x{kernel}"
    if "decoder.low_level.0.weight" in tensors:
        values["decoder"] = "separable" if "decoder.refine.1.0.weight" in tensors else "conv"
        values["low_level_channels"] = shape("decoder.low_level.0.weight")[0]
    if "auxiliary_head.2.weight" in tensors:
        values["auxiliary_channels"] = shape("auxiliary_head.2.weight")[1]
    if values["num_classes"] >= UNKNOWN:
        raise CheckpointError(
            f"{foreign.path} has {values['num_classes']:,} classes; label PNGs hold at most {UNKNOWN - 1}: give a "
            "network of fewer"
        )
    try:
        return ModelConfig(**values)
    except InputError as error:
        raise CheckpointError(f"{foreign.path} is a DeepLab that cannot be built here: {error}") from error


def _require_equal(
    expected: Mapping[str, Tensor],
    renamed: Mapping[str, Tensor],
    unknown: Mapping[str, Tensor],
    kind: str,
    foreign: Foreign,
) -> None:
    """Require the names, shapes and types that our model has, and report faults by the names in the file.

    Raises:
        CheckpointError: Something differs.
    """
    faults = ""
    if unknown or differences(expected, renamed, any_type=True):
        theirs = {name: their_name(name, kind, foreign.tensors) for name in (*expected, *renamed)}
        found = {theirs[name]: value for name, value in renamed.items()}
        wanted = {theirs[name]: value for name, value in expected.items()}
        faults = differences(wanted, {**found, **unknown}, any_type=True)
    else:
        for name, value in expected.items():
            if value.is_floating_point() and not renamed[name].is_floating_point():
                faults = f"{their_name(name, kind, foreign.tensors)} is of {renamed[name].dtype} instead of float32"
                break
    if faults:
        raise CheckpointError(
            f"{foreign.path} looks like a DeepLab of {kind.rstrip('+')}, but differs: {faults}; {NEXT}"
        )


def _backbone(tensors: Mapping[str, Tensor], foreign: Foreign) -> str:
    if "backbone.16.0.weight" in tensors:
        return "mobilenet_v3_large"
    blocks = {match[0] for name in tensors if (match := re.match(r"backbone\.layer(\d)\.\d+\.", name))}
    depths = tuple(sum(f".layer{stage}." in block for block in blocks) for stage in range(1, 5))
    convs = 1 if "backbone.layer1.0.conv3.weight" in tensors else 2
    for backbone, wanted in NUM_BLOCKS.items():
        if depths == wanted and convs == CONVS_OF_BLOCK[backbone]:
            return backbone
    seen = f"a backbone whose stages have {', '.join(map(str, depths))} blocks"
    if not any(depths):
        theirs = [name for name in foreign.tensors if name.startswith(("backbone.", "encoder."))]
        some = f", but with {', '.join(map(shown, theirs[:2]))} and so on" if theirs else ""
        seen = f"a backbone without the stages of a ResNet{some}"
    raise CheckpointError(
        f"{foreign.path} has {seen}; known are {', '.join(NUM_BLOCKS)} and mobilenet_v3_large: give a checkpoint with "
        "one of those"
    )


def _reorder(tensors: dict[str, Tensor], kind: str, config: ModelConfig) -> None:
    """Move the input channels of a convolution after a concatenation to where ours expects them.

    mmsegmentation puts image pooling before the other branches of ASPP, VainF the low-level features before ASPP's.
    """
    moved = {
        "mmseg": ("aspp.project.0.weight", config.aspp_channels),
        "vainf+": ("decoder.refine.0.0.weight", config.low_level_channels),
    }
    if kind in moved:
        name, first = moved[kind]
        tensors[name] = torch.cat([tensors[name][:, first:], tensors[name][:, :first]], dim=1)
