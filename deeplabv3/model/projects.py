"""What is known of each project whose checkpoints are imported: its names, and what its networks do.

A project's table maps the beginnings of its names to ours. Its description says what the tensors do not: output stride,
rates, and how grids are brought to size. Names and behaviour were read in the projects' sources; torchvision's and
segmentation_models.pytorch's are run beside ours in `tests/model/test_importers.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from deeplabv3.config import CONVS_OF_BLOCK, NUM_BLOCKS, ModelConfig
from deeplabv3.errors import InputError
from deeplabv3.model.foreign import Foreign


def _pairs(theirs: str, ours: str, **parts: str) -> dict[str, str]:
    """`{theirs}.{part}.` to `{ours}.{part of ours}.` for each part."""
    return {f"{theirs}.{part}.": f"{ours}.{name}." for part, name in parts.items()}


CONV_BN = {"conv": "0", "bn": "1"}
SEPARABLE = {
    "depthwise_conv.conv": "0",
    "depthwise_conv.bn": "1",
    "pointwise_conv.conv": "3",
    "pointwise_conv.bn": "4",
}


def _aspp(prefix: str) -> dict[str, str]:
    """ASPP as torchvision names it, below `prefix`."""
    return {
        **{f"{prefix}.convs.{branch}.": f"aspp.branches.{branch}." for branch in range(4)},
        f"{prefix}.convs.4.1.": "aspp.branches.4.conv.",
        f"{prefix}.convs.4.2.": "aspp.branches.4.bn.",
        f"{prefix}.project.": "aspp.project.",
    }


def _mmseg() -> dict[str, str]:
    head = "decode_head"
    table = {"backbone.": "backbone.", f"{head}.conv_seg.": "classifier."}
    table |= _pairs(f"{head}.image_pool.1", "aspp.branches.4", conv="conv", bn="bn")
    for branch in range(4):
        table |= _pairs(f"{head}.aspp_modules.{branch}", f"aspp.branches.{branch}", **CONV_BN, **SEPARABLE)
    table |= _pairs(f"{head}.bottleneck", "aspp.project", **CONV_BN)
    table |= _pairs(f"{head}.c1_bottleneck", "decoder.low_level", **CONV_BN)
    for place in range(2):
        table |= _pairs(f"{head}.sep_bottleneck.{place}", f"decoder.refine.{place}", **SEPARABLE)
    table |= _pairs("auxiliary_head.convs.0", "auxiliary_head.0", **CONV_BN)
    return table | {"auxiliary_head.conv_seg.": "auxiliary_head.2."}


TABLES = {
    "torchvision": {
        "backbone.": "backbone.",
        **_aspp("classifier.0"),
        "classifier.1.": "aspp.fuse.0.",
        "classifier.2.": "aspp.fuse.1.",
        "classifier.4.": "classifier.",
        "aux_classifier.0.": "auxiliary_head.0.0.",
        "aux_classifier.1.": "auxiliary_head.0.1.",
        "aux_classifier.4.": "auxiliary_head.2.",
    },
    "mmseg": _mmseg(),
    "vainf": {
        "backbone.": "backbone.",
        **_aspp("classifier.classifier.0"),
        "classifier.classifier.1.": "aspp.fuse.0.",
        "classifier.classifier.2.": "aspp.fuse.1.",
        "classifier.classifier.4.": "classifier.",
    },
    "vainf+": {
        "backbone.": "backbone.",
        **_aspp("classifier.aspp"),
        "classifier.project.": "decoder.low_level.",
        "classifier.classifier.0.": "decoder.refine.0.0.",
        "classifier.classifier.1.": "decoder.refine.0.1.",
        "classifier.classifier.3.": "classifier.",
    },
    "smp": {
        "encoder.": "backbone.",
        **_aspp("decoder.aspp"),
        **_aspp("decoder.0"),  # before 0.5 the decoder was a sequence
        "decoder.conv.": "aspp.fuse.0.",
        "decoder.1.": "aspp.fuse.0.",
        "decoder.bn.": "aspp.fuse.1.",
        "decoder.2.": "aspp.fuse.1.",
        "segmentation_head.0.": "classifier.",
    },
    "original": {
        "backbone.": "backbone.",
        **{f"aspp.conv{branch + 1}.": f"aspp.branches.{branch}." for branch in range(4)},
        "aspp.img_pool.1.": "aspp.branches.4.conv.",
        "aspp.img_pool.2.": "aspp.branches.4.bn.",
        "conv.": "aspp.project.",
        "final_conv.0.": "classifier.",
    },
}
"""Beginnings of names, theirs to ours; the longest that fits counts."""

SIGNS = {
    "mmseg": "decode_head.aspp_modules.0.conv.weight",
    "vainf+": "classifier.aspp.convs.0.0.weight",
    "vainf": "classifier.classifier.0.convs.0.0.weight",
    "torchvision": "classifier.0.convs.0.0.weight",
    "original": "aspp.img_pool.1.weight",
}
"""A name that only this project's files have."""

UNUSED = ("backbone.fc.", "encoder.fc.")
"""The ImageNet classifier, which some files keep."""

_OF_DETECTION = (
    *("rpn.", "rpn_head.", "roi_heads.", "roi_head.", "bbox_head.", "box_head."),
    *("head.classification_head.", "head.regression_head.", "backbone.body.", "class_embed."),
)
OTHERS = {
    **dict.fromkeys(_OF_DETECTION, "a detection model, which has no DeepLab head"),
    "decoder.block1.": "DeepLabV3Plus of segmentation_models.pytorch, whose separable convolutions differ",
    "decoder.aspp.convs.1.0.0.": "DeepLabV3 of segmentation_models.pytorch with separable convolutions",
    "segmentation_head.": "another model of segmentation_models.pytorch",
    "aspp.features.": "a DeepLab of NVIDIA/semantic-segmentation, which is not supported",
    "sem_seg_head.": "a DeepLab of detectron2, which is not supported",
    "classifier.cbr.": "LR-ASPP, another head than DeepLab's",
    "decode_head.": "another model of mmsegmentation",
    "aux_classifier.": "another model of torchvision, probably FCN",
    "fc.": "a classifier of images; give it to train as --backbone-weights",
    "layer4.": "a backbone alone; give it to train as --backbone-weights",
    "features.": "a classifier of images or its features; give it to train as --backbone-weights",
    "classifier.4.": "another model of torchvision, probably FCN",
    "model/": "a checkpoint of deeplabv3 that lost its record",
}
"""What a file is that none of the tables fits, by how one of its names begins."""


class Description(NamedTuple):
    """The rest of a model's configuration, and what was taken for granted, in words."""

    config: ModelConfig
    assumed: str


def describe_torchvision(config: ModelConfig, foreign: Foreign, output_stride: int | None) -> Description:
    """Stride 8, and for MobileNetV3 16; ASPP has rates 12, 24, 36 at any (models/segmentation/deeplabv3.py)."""
    stride = output_stride or (16 if config.backbone == "mobilenet_v3_large" else 8)
    config = replace(config, output_stride=stride, atrous_rates=(12, 24, 36), dropout=0.5)
    return Description(config, f"output stride {stride} with rates 12, 24, 36, as torchvision builds it")


def describe_mmseg(config: ModelConfig, foreign: Foreign, output_stride: int | None) -> Description:
    """Stride, multi-grid, rates and corners by the configuration in the file, or by the file's name, or the usual ones.

    Of a basic block only the first 3x3 convolution is atrous, and a multi-grid is the last stage's rates as they are
    (mmseg/models/backbones/resnet.py, mmseg/models/utils/res_layer.py). mmengine, under version 1 of the project, calls
    the configuration `cfg`, and sorts and breaks its lines otherwise.
    """
    text = foreign.notes.get("meta.cfg") or foreign.notes.get("meta.config") or ""
    backbone, head = (_section(text, name) for name in ("backbone", "decode_head"))
    name = foreign.path.name.lower()
    strides = _numbers(backbone, "strides") or ((1, 2, 2, 1) if not backbone and "d16" in name else (1, 2, 1, 1))
    theirs = 4 * math.prod(strides)
    units = _numbers(backbone, "multi_grid") or ((1, 2, 4) if not backbone and "mg124" in name else ())
    corners = "align_corners=True" in head if head else "769x769" in name
    stride = output_stride or theirs
    rates = _numbers(head, "dilations")[1:] or tuple(rate * 16 // theirs for rate in (6, 12, 18))
    rates = tuple(rate * theirs // stride for rate in rates)
    config = replace(config, output_stride=stride, align_corners=corners, dropout=0.1)
    if rates != config.aspp_rates:
        config = replace(config, atrous_rates=rates)
    is_contracted = "contract_dilation=False" not in backbone
    if units or CONVS_OF_BLOCK[config.backbone] == 2 or not is_contracted:
        third, fourth = _stage_rates(stride, keep_first=is_contracted)
        fourth = [max(1, unit * theirs // stride) for unit in units] or fourth
        config = replace(config, block_rates=_rates(config, third, fourth, both=False))
    words = f"D{stride}{f' with multi-grid {units}' if units else ''}, rates {rates}, align_corners {corners}"
    named = "by the file's name" if re.search("d8|d16|769x769|512x1024", name) else "as is usual there"
    return Description(config, f"{words}, {'by the configuration in the file' if backbone or head else named}")


def describe_vainf(config: ModelConfig, foreign: Foreign, output_stride: int | None) -> Description:
    """Stride 16 unless it is asked for 8; ASPP's rates follow it (network/modeling.py)."""
    stride = output_stride or 16
    config = replace(config, output_stride=stride, dropout=0.1)
    return Description(config, f"output stride {stride}, {'as asked' if output_stride else 'as is usual there'}")


def describe_smp(config: ModelConfig, foreign: Foreign, output_stride: int | None) -> Description:
    """Stride 8 unless it is asked for 16; ASPP has rates 12, 24, 36 at both.

    Every convolution of a stage without stride is atrous, the first block's too (encoders/_utils.py); the logits are
    brought to size corner on corner (base/heads.py).
    """
    stride = output_stride or 8
    config = replace(config, output_stride=stride, atrous_rates=(12, 24, 36), align_corners=True, dropout=0.5)
    third, fourth = _stage_rates(stride, keep_first=False)
    config = replace(config, block_rates=_rates(config, third, fourth, both=True))
    words = "as asked" if output_stride else "as is usual there"
    return Description(config, f"output stride {stride} with rates 12, 24, 36, {words}")


def describe_original(config: ModelConfig, foreign: Foreign, output_stride: int | None) -> Description:
    """Stride 16; only the first block of the last stage is atrous, which is that repository's defect, kept here."""
    if output_stride not in (None, 16):
        raise InputError(f"output_stride is {output_stride}; its rates belong to 16 alone: leave it out")
    config = replace(config, output_stride=16, align_corners=True)
    config = replace(config, block_rates=_rates(config, [1], [2, 1], both=True))
    return Description(config, "output stride 16, with the first block of the last stage atrous alone")


def _section(text: str, name: str) -> str:
    """What is in the brackets of `NAME=dict(...)` in a configuration's text, without blanks; "" if it is not there."""
    _, found, rest = "".join(text.split()).partition(f"{name}=dict(")
    depth = 1
    for place, sign in enumerate(rest):
        depth += (sign == "(") - (sign == ")")
        if depth == 0:
            return rest[:place]
    return rest if found else ""


def _numbers(section: str, name: str) -> tuple[int, ...]:
    """The numbers of `NAME=(1, 2)` or `NAME=[1, 2]`, each from 1 to 999; none if it is not there."""
    number = r"[1-9]\d{0,2}"
    found = re.search(rf"\b{name}=[(\[]({number}(?:,{number})*),?[)\]]", section)
    return tuple(int(value) for value in found[1].split(",")) if found else ()


def _stage_rates(output_stride: int, *, keep_first: bool) -> tuple[list[int], list[int]]:
    """Rates of the last two stages' blocks, the last one going on to the end.

    Args:
        output_stride: 8, 16 or 32.
        keep_first: Whether the first block of a stage keeps the rate of the stage before it.
    """
    third, fourth = {8: (2, 4), 16: (1, 2)}.get(output_stride, (1, 1))
    return ([1, third], [third, fourth]) if keep_first else ([third], [fourth])


def _rates(
    config: ModelConfig, third: Sequence[int], fourth: Sequence[int], *, both: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rates of the last two stages' 3x3 convolutions, as `ModelConfig.block_rates` has them.

    Args:
        config: Its backbone decides how many there are.
        third: By block of the stage before the last; the last value goes on to the end.
        fourth: By block of the last stage, likewise.
        both: Whether the second 3x3 convolution of a basic block has its block's rate too, or 1.
    """
    behind = CONVS_OF_BLOCK[config.backbone] - 1
    stages = []
    for num_blocks, given in zip(NUM_BLOCKS[config.backbone][2:], (third, fourth), strict=True):
        rates = [given[min(block, len(given) - 1)] for block in range(num_blocks)]
        stages.append(tuple(value for rate in rates for value in (rate, *[rate if both else 1] * behind)))
    return stages[0], stages[1]


DESCRIPTIONS = {
    "torchvision": describe_torchvision,
    "mmseg": describe_mmseg,
    "vainf": describe_vainf,
    "vainf+": describe_vainf,
    "smp": describe_smp,
    "original": describe_original,
}
