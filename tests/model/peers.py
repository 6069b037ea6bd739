"""Models of other projects: imported where they can be installed, written out where they cannot.

The written-out ones follow what is known of each project's source, and share nothing with our own modules.
"""

from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.torchvision_peer import import_torchvision

if find_spec("torchvision") is not None:
    import_torchvision()  # before timm and segmentation_models.pytorch do

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def randomised(model, seed=0):
    """The model in evaluation mode with statistics and weights under which every channel counts."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.2, 0.2),
            ):
                value.copy_(low + (high - low) * torch.rand(value.shape, generator=generator))
    return model.eval()


def image(height, width):
    """Random pixels, uint8 `(2, 3, H, W)`."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, height, width), dtype=np.uint8))


@torch.no_grad()
def logits_of(model, pixels):
    """What another project's model makes of pixels."""
    result = model((pixels / 255 - MEAN) / STD)
    return result["out"] if isinstance(result, dict) else result


@torch.no_grad()
def auxiliary_logits_of(model, pixels):
    """What its auxiliary head makes of pixels, or None without one."""
    pixels = (pixels / 255 - MEAN) / STD
    if hasattr(model, "aux_classifier"):
        return model(pixels)["aux"]
    return model.auxiliary(pixels) if hasattr(model, "auxiliary") else None


def torchvision_deeplab(name, output_stride, classes):
    """torchvision's DeepLabV3 with its auxiliary head, at either stride."""
    from torchvision.models import resnet
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import deeplabv3, deeplabv3_mobilenet_v3_large
    from torchvision.models.segmentation.fcn import FCNHead

    if name == "mobilenet_v3_large":
        return deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes, aux_loss=True)
    dilated = [False, output_stride == 8, True]
    backbone = getattr(resnet, name)(weights=None, replace_stride_with_dilation=dilated)
    backbone = IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"})
    return deeplabv3.DeepLabV3(backbone, deeplabv3.DeepLabHead(2048, classes), FCNHead(1024, classes))


def conv_bn(in_channels, out_channels, kernel=1, **options):
    options = {"padding": (kernel // 2) * options.get("dilation", 1), **options}
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, bias=False, **options), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class Block(nn.Module):
    """A residual block of either kind."""

    def __init__(self, in_channels, channels, *, stride, dilations, bottleneck):
        super().__init__()
        first, second = dilations
        out_channels = channels * 4 if bottleneck else channels
        spatial = {"stride": stride, "padding": first, "dilation": first, "bias": False}
        if bottleneck:
            self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
            self.conv2 = nn.Conv2d(channels, channels, 3, **spatial)
            self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out_channels)
        else:
            self.conv1 = nn.Conv2d(in_channels, channels, 3, **spatial)
            self.conv2 = nn.Conv2d(channels, channels, 3, padding=second, dilation=second, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(F.relu(y)))
        return F.relu(y + shortcut)


class Backbone(nn.Module):
    """A ResNet whose every 3x3 rate is given: `dilations[stage][block] = (first, second)`."""

    def __init__(self, blocks, strides, dilations, *, bottleneck=True, deep=False):
        super().__init__()
        if deep:
            stem = (conv_bn(3, 32, 3, stride=2), conv_bn(32, 32, 3), conv_bn(32, 64, 3))
            self.stem = nn.Sequential(*[module for layer in stem for module in layer])
        else:
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        in_channels = 64
        for stage, count in enumerate(blocks):
            channels, layers = 64 * 2**stage, []
            for place in range(count):
                layers.append(
                    Block(
                        in_channels,
                        channels,
                        stride=strides[stage] if place == 0 else 1,
                        dilations=dilations[stage][min(place, len(dilations[stage]) - 1)],
                        bottleneck=bottleneck,
                    )
                )
                in_channels = channels * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.channels = in_channels

    def forward(self, x):
        x = self.stem(x) if hasattr(self, "stem") else F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            outputs.append(x)
        return outputs


def named(**modules):
    module = nn.Module()
    for name, child in modules.items():
        module.add_module(name, child)
    return module


def mm_conv(*args, **options):
    """mmcv's ConvModule: conv, bn and an activation."""
    conv, bn, _ = conv_bn(*args, **options)
    return named(conv=conv, bn=bn)


def run(module, x):
    """Call a ConvModule or a DepthwiseSeparableConvModule."""
    if hasattr(module, "depthwise_conv"):
        return run(module.pointwise_conv, run(module.depthwise_conv, x))
    return F.relu(module.bn(module.conv(x)))


def mm_separable(in_channels, out_channels, dilation=1):
    return named(
        depthwise_conv=mm_conv(in_channels, in_channels, 3, dilation=dilation, groups=in_channels),
        pointwise_conv=mm_conv(in_channels, out_channels),
    )


class MMSeg(nn.Module):
    """mmsegmentation's EncoderDecoder with ASPPHead or DepthwiseSeparableASPPHead, and its FCN auxiliary head."""

    def __init__(self, backbone, rates, *, channels, low_channels=None, aux_channels=256, align_corners=False):
        super().__init__()
        self.backbone, self.corners, self.plus = backbone, align_corners, low_channels is not None
        width = backbone.channels
        aspp = [mm_conv(width, channels)]
        for rate in rates:
            aspp.append(
                mm_separable(width, channels, rate) if self.plus else mm_conv(width, channels, 3, dilation=rate)
            )
        self.decode_head = named(
            conv_seg=nn.Conv2d(channels, 19, 1),
            image_pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), mm_conv(width, channels)),
            aspp_modules=nn.ModuleList(aspp),
            bottleneck=mm_conv(channels * 5, channels, 3),
        )
        if low_channels is not None:
            self.decode_head.c1_bottleneck = mm_conv(width // 8, low_channels)
            self.decode_head.sep_bottleneck = nn.Sequential(
                mm_separable(channels + low_channels, channels), mm_separable(channels, channels)
            )
        self.auxiliary_head = named(
            convs=nn.Sequential(mm_conv(width // 2, aux_channels, 3)), conv_seg=nn.Conv2d(aux_channels, 19, 1)
        )

    def resized(self, x, size):
        return F.interpolate(x, size, mode="bilinear", align_corners=self.corners)

    def forward(self, x):
        head, stages = self.decode_head, self.backbone(x)
        pooled = run(head.image_pool[1], head.image_pool[0](stages[-1]))
        branches = [self.resized(pooled, stages[-1].shape[2:])]
        branches += [run(module, stages[-1]) for module in head.aspp_modules]
        y = run(head.bottleneck, torch.cat(branches, 1))
        if self.plus:
            low = run(head.c1_bottleneck, stages[0])
            y = torch.cat([self.resized(y, low.shape[2:]), low], 1)
            for module in head.sep_bottleneck:
                y = run(module, y)
        return self.resized(head.conv_seg(y), x.shape[2:])

    def auxiliary(self, x):
        head = self.auxiliary_head
        return self.resized(head.conv_seg(run(head.convs[0], self.backbone(x)[2])), x.shape[2:])


class ASPP(nn.Module):
    """torchvision's and VainF's pyramid, written out."""

    def __init__(self, in_channels, rates, dropout):
        super().__init__()
        convs = [conv_bn(in_channels, 256), *[conv_bn(in_channels, 256, 3, dilation=rate) for rate in rates]]
        pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn(in_channels, 256))
        self.convs = nn.ModuleList([*convs, pooling])
        self.project = nn.Sequential(*conv_bn(256 * 5, 256), nn.Dropout(dropout))

    def forward(self, x):
        branches = [conv(x) for conv in self.convs]
        branches[-1] = F.interpolate(branches[-1], x.shape[2:], mode="bilinear", align_corners=False)
        return self.project(torch.cat(branches, 1))


class VainF(nn.Module):
    """VainF's DeepLabV3 or V3+."""

    def __init__(self, backbone, rates, *, plus):
        super().__init__()
        self.backbone, self.plus = backbone, plus
        aspp = ASPP(2048, rates, 0.1)
        if plus:
            self.classifier = named(
                project=conv_bn(256, 48),
                aspp=aspp,
                classifier=nn.Sequential(*conv_bn(304, 256, 3), nn.Conv2d(256, 21, 1)),
            )
        else:
            self.classifier = named(classifier=nn.Sequential(aspp, *conv_bn(256, 256, 3), nn.Conv2d(256, 21, 1)))

    def forward(self, x):
        stages = self.backbone(x)
        if self.plus:
            low = self.classifier.project(stages[0])
            y = self.classifier.aspp(stages[-1])
            y = F.interpolate(y, low.shape[2:], mode="bilinear", align_corners=False)
            y = self.classifier.classifier(torch.cat([low, y], 1))
        else:
            y = self.classifier.classifier(stages[-1])
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)


class Original(nn.Module):
    """The repository whose command line is kept: one atrous block, corners aligned, an unused classifier."""

    def __init__(self):
        super().__init__()
        self.backbone = Backbone((3, 4, 23, 3), (1, 2, 2, 1), [[(1, 1)]] * 3 + [[(2, 2), (1, 1)]])
        self.backbone.fc = nn.Linear(2048, 1000)
        branches = [conv_bn(2048, 256), *[conv_bn(2048, 256, 3, dilation=rate) for rate in (6, 12, 18)]]
        self.aspp = named(**{f"conv{place + 1}": branch for place, branch in enumerate(branches)})
        self.aspp.img_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_bn(2048, 256))
        self.conv = conv_bn(1280, 256)
        self.final_conv = nn.Sequential(nn.Conv2d(256, 19, 1))

    def forward(self, x):
        features = self.backbone(x)[-1]
        branches = [getattr(self.aspp, f"conv{place}")(features) for place in (1, 2, 3, 4)]
        pooled = self.aspp.img_pool(features)
        branches.append(F.interpolate(pooled, features.shape[2:], mode="bilinear", align_corners=True))
        y = self.final_conv(self.conv(torch.cat(branches, 1)))
        return F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=True)
