"""Published checkpoints by name: what they are, what their authors report, and where their files are.

A figure is what the project itself publishes, on Cityscapes val in percent, one run each; none was measured here. The
last eight digits of a file's name are the first ones of its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass

MMSEG_URL = "https://download.openmmlab.com/mmsegmentation/v0.5"
MMSEG_SOURCE = "mmsegmentation, configs/{family}/README.md"
MMSEG_LICENCE = "Apache-2.0; Cityscapes: non-commercial"
TORCHVISION_URL = "https://download.pytorch.org/models"
TORCHVISION_LICENCE = "BSD-3-Clause"


@dataclass(frozen=True)
class Published:
    """A checkpoint that can be had by name.

    Attributes:
        name: What is typed.
        url: Its file.
        architecture: In words.
        data_set: What it was trained on.
        miou: In percent, as published, single scale; None where none is.
        source: Who says so.
        licence: Of the file, and of what it was trained on.
        megabytes: About how large the file is, in units of 1,000,000 bytes.
    """

    name: str
    url: str
    architecture: str
    data_set: str
    miou: float | None
    source: str
    licence: str
    megabytes: int

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.url.rsplit("/", 1)[1]


# stem of the configuration, mIoU, date and digits of the file
_DEEPLABV3 = (
    ("r18-d8_512x1024_80k", 76.70, "20201225_021506-23dffbe2"),
    ("r18-d8_769x769_80k", 76.60, "20201225_021506-6452126a"),
    ("r18b-d8_512x1024_80k", 76.26, "20201225_094144-46040cef"),
    ("r18b-d8_769x769_80k", 76.63, "20201225_094144-fdc985d9"),
    ("r50-d8_512x1024_40k", 79.09, "20200605_022449-acadc2f8"),
    ("r50-d8_769x769_40k", 78.58, "20200606_113723-7eda553c"),
    ("r50-d8_512x1024_80k", 79.32, "20200606_113404-b92cfdd4"),
    ("r50-d8_769x769_80k", 79.89, "20200606_221338-788d6228"),
    ("r50b-d8_512x1024_80k", 79.63, "20201225_155148-ec368954"),
    ("r50b-d8_769x769_80k", 78.80, "20201225_155404-87fb0cf4"),
    ("r101-d8_512x1024_40k", 77.12, "20200605_012241-7fd3f799"),
    ("r101-d8_769x769_40k", 79.27, "20200606_113809-c64f889f"),
    ("r101-d8_512x1024_80k", 80.20, "20200606_113503-9e428899"),
    ("r101-d8_fp16_512x1024_80k", 80.48, "20200717_230920-774d9cec"),
    ("r101-d8_769x769_80k", 79.67, "20200607_013353-60e95418"),
    ("r101b-d8_512x1024_80k", 80.01, "20201226_171821-8fd49503"),
    ("r101b-d8_769x769_80k", 79.41, "20201226_190843-9142ee57"),
    ("r101-d16-mg124_512x1024_40k", 76.71, "20200908_005644-67b0c992"),
    ("r101-d16-mg124_512x1024_80k", 78.36, "20200908_005644-57bb8425"),
)
_DEEPLABV3PLUS = (
    ("r18-d8_512x1024_80k", 76.89, "20201226_080942-cff257fe"),
    ("r18b-d8_512x1024_80k", 75.87, "20201226_090828-e451abd9"),
    ("r18-d8_769x769_80k", 76.26, "20201226_083346-f326e06a"),
    ("r18b-d8_769x769_80k", 76.36, "20201226_151312-2c868aff"),
    ("r50-d8_512x1024_40k", 79.61, "20200605_094610-d222ffcd"),
    ("r50-d8_512x1024_80k", 80.09, "20200606_114049-f9fb496d"),
    ("r50b-d8_512x1024_80k", 80.28, "20201225_213645-a97e4e43"),
    ("r50-d8_769x769_40k", 78.97, "20200606_114143-1dcb0e3c"),
    ("r50-d8_769x769_80k", 79.83, "20200606_210233-0e9dfdc4"),
    ("r50b-d8_769x769_80k", 79.41, "20201225_224655-8b596d1c"),
    ("r101-d8_512x1024_40k", 80.21, "20200605_094614-3769eecf"),
    ("r101-d8_512x1024_80k", 80.97, "20200606_114143-068fcfe9"),
    ("r101-d8_fp16_512x1024_80k", 80.46, "20200717_230920-f1104f4b"),
    ("r101b-d8_512x1024_80k", 80.16, "20201226_190843-9c3c93a4"),
    ("r101-d8_769x769_40k", 79.46, "20200606_114304-ff414b9e"),
    ("r101-d8_769x769_80k", 80.98, "20200607_000405-a7573d20"),
    ("r101b-d8_769x769_80k", 79.88, "20201226_205041-227cdf7c"),
    ("r101-d16-mg124_512x1024_40k", 79.09, "20200908_005644-cf9ce186"),
    ("r101-d16-mg124_512x1024_80k", 79.90, "20200908_005644-ee6158e0"),
)

_MEGABYTES = {
    "deeplabv3": {"r18": 56, "r50": 273, "r101": 349},
    "deeplabv3plus": {"r18": 50, "r50": 175, "r101": 251},
}
_FAMILIES = {"deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3+"}

ALIASES = {
    "cityscapes-r18": "deeplabv3_r18-d8_512x1024_80k_cityscapes",
    "cityscapes-r50": "deeplabv3_r50-d8_512x1024_80k_cityscapes",
    "cityscapes-r101": "deeplabv3_r101-d8_512x1024_80k_cityscapes",
    "cityscapes-v3plus-r18": "deeplabv3plus_r18-d8_512x1024_80k_cityscapes",
    "cityscapes-v3plus-r50": "deeplabv3plus_r50-d8_512x1024_80k_cityscapes",
    "cityscapes-v3plus-r101": "deeplabv3plus_r101-d8_512x1024_80k_cityscapes",
    "voc-r50": "deeplabv3_resnet50_coco",
    "voc-r101": "deeplabv3_resnet101_coco",
    "voc-mobilenet": "deeplabv3_mobilenet_v3_large_coco",
}
"""Short names of those that are most often wanted."""


def _of_mmsegmentation(family: str, stem: str, miou: float, suffix: str) -> Published:
    name = f"{family}_{stem}_cityscapes"
    depth = stem.split("-")[0].removeprefix("r").removesuffix("b")
    backbone = f"ResNet-{depth}{'' if stem.split('-')[0].endswith('b') else ' v1c'}"
    stride = "stride 16, multi-grid 1, 2, 4" if "d16-mg124" in stem else "stride 8"
    return Published(
        name=name,
        url=f"{MMSEG_URL}/{family}/{name}/{name}_{suffix}.pth",
        architecture=f"{_FAMILIES[family]} {backbone}, {stride}",
        data_set="Cityscapes",
        miou=miou,
        source=MMSEG_SOURCE.format(family=family),
        licence=MMSEG_LICENCE,
        megabytes=_MEGABYTES[family][f"r{depth}"],
    )


def _of_torchvision(backbone: str, title: str, miou: float, digits: str, megabytes: int) -> Published:
    return Published(
        name=f"deeplabv3_{backbone}_coco",
        url=f"{TORCHVISION_URL}/deeplabv3_{backbone}_coco-{digits}.pth",
        architecture=f"DeepLabV3 {title}",
        data_set="COCO with VOC's 21 classes",
        miou=miou,
        source="torchvision, COCO val2017 on VOC's classes",
        licence=TORCHVISION_LICENCE,
        megabytes=megabytes,
    )


PUBLISHED = {
    published.name: published
    for published in (
        *(_of_mmsegmentation("deeplabv3", *row) for row in _DEEPLABV3),
        *(_of_mmsegmentation("deeplabv3plus", *row) for row in _DEEPLABV3PLUS),
        _of_torchvision("resnet50", "ResNet-50, stride 8", 66.4, "cd0a2569", 168),
        _of_torchvision("resnet101", "ResNet-101, stride 8", 67.4, "586e9e4e", 244),
        _of_torchvision("mobilenet_v3_large", "MobileNetV3-Large, stride 16", 60.3, "fc3c493d", 44),
    )
}
"""Every checkpoint that can be had by name."""


def find_published(name: str) -> Published | None:
    """The checkpoint of that name or alias, or None."""
    return PUBLISHED.get(ALIASES.get(name, name))


def models_table() -> str:
    """All names with what they stand for, as text; aliases first."""
    rows = [("name", "what", "data set", "mIoU %", "MB")]
    for name, target in ALIASES.items():
        rows.append(_row(name, PUBLISHED[target]))
    rest = [_row(name, published) for name, published in PUBLISHED.items()]
    widths = [max(len(row[column]) for row in (*rows, *rest)) for column in range(5)]

    def line(row: tuple[str, ...]) -> str:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=False))
        return f"{left}  {row[3]:>{widths[3]}}  {row[4]:>{widths[4]}}"

    rule = "-" * len(line(rows[0]))
    sources = sorted({f"{item.source}: {item.licence}" for item in PUBLISHED.values()})
    notes = ["mIoU is what the authors publish, single scale, one run each; none was measured here.", *sources]
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:]), rule, *map(line, rest), rule, *notes])


def _row(name: str, published: Published) -> tuple[str, str, str, str, str]:
    miou = "-" if published.miou is None else f"{published.miou:.2f}"
    return name, published.architecture, published.data_set, miou, str(published.megabytes)
