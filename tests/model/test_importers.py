"""Checkpoints of other projects compute the same logits here."""

from pathlib import Path

import pytest
import torch

from deeplabv3.errors import CheckpointError
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.foreign import Foreign
from deeplabv3.model.importers import import_weights
from tests.model import peers


def foreign(model, name="weights.pth"):
    return Foreign(Path(name), dict(model.state_dict()), {})


def assert_same_logits(theirs, file, size, output_stride=None):
    """Equal within 1e-4 of the largest logit, and in every respect what the import says."""
    imported = import_weights(file, output_stride=output_stride)
    model = DeepLabV3(imported.config)
    model.load_state_dict(imported.tensors)
    pixels = peers.image(*size)
    expected = peers.logits_of(theirs, pixels)
    with torch.no_grad():
        logits = model.eval()(pixels)
    assert logits.shape == expected.shape
    assert float((logits - expected).abs().max()) <= 1e-4 * float(expected.abs().max())
    return imported


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_torchvision(backbone, output_stride):
    pytest.importorskip("torchvision")
    theirs = peers.randomised(peers.torchvision_deeplab(backbone, output_stride, 21))
    imported = assert_same_logits(theirs, foreign(theirs), (97, 65), output_stride)
    assert (imported.kind, imported.config.auxiliary_channels, imported.config.backbone) == (
        "torchvision",
        256,
        backbone,
    )


def test_torchvision_mobilenet():
    pytest.importorskip("torchvision")
    theirs = peers.randomised(peers.torchvision_deeplab("mobilenet_v3_large", 16, 21))
    imported = assert_same_logits(theirs, foreign(theirs), (97, 131))
    assert imported.config.auxiliary_channels == 10


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_segmentation_models(backbone, output_stride):
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = peers.randomised(
        smp.DeepLabV3(backbone, encoder_weights=None, classes=19, encoder_output_stride=output_stride)
    )
    assert_same_logits(theirs, foreign(theirs), (64, 112), output_stride)


D8 = {"strides": (1, 2, 1, 1)}
D16 = {"strides": (1, 2, 2, 1)}
PLAIN = [[(1, 1)], [(1, 1)]]


@pytest.mark.parametrize(
    ("name", "blocks", "deep", "plus", "corners"),
    [
        ("deeplabv3_r50-d8_512x1024_80k_cityscapes.pth", (3, 4, 6, 3), True, False, False),
        ("deeplabv3_r50b-d8_769x769_80k_cityscapes.pth", (3, 4, 6, 3), False, False, True),
        ("deeplabv3plus_r50-d8_512x1024_80k_cityscapes.pth", (3, 4, 6, 3), True, True, False),
        ("deeplabv3plus_r50b-d8_769x769_80k_cityscapes.pth", (3, 4, 6, 3), False, True, True),
    ],
)
def test_mmsegmentation(name, blocks, deep, plus, corners):
    dilations = [*PLAIN, [(1, 1), (2, 2)], [(2, 2), (4, 4)]]
    backbone = peers.Backbone(blocks, **D8, dilations=dilations, deep=deep)
    theirs = peers.MMSeg(backbone, (12, 24, 36), channels=512, low_channels=48 if plus else None, align_corners=corners)
    imported = assert_same_logits(peers.randomised(theirs), foreign(theirs, name), (97, 65))
    assert imported.config.stem == ("deep" if deep else "conv7")


@pytest.mark.parametrize("plus", [False, True])
def test_mmsegmentation_resnet18(plus):
    dilations = [*PLAIN, [(1, 1), (2, 1)], [(2, 1), (4, 1)]]
    backbone = peers.Backbone((2, 2, 2, 2), **D8, dilations=dilations, bottleneck=False, deep=True)
    theirs = peers.MMSeg(backbone, (12, 24, 36), channels=128, low_channels=12 if plus else None, aux_channels=64)
    assert_same_logits(peers.randomised(theirs), foreign(theirs, "deeplabv3_r18-d8_512x1024.pth"), (97, 65))


@pytest.mark.parametrize("plus", [False, True])
def test_mmsegmentation_multi_grid(plus):
    dilations = [*PLAIN, [(1, 1)], [(1, 1), (2, 2), (4, 4)]]
    backbone = peers.Backbone((3, 4, 23, 3), **D16, dilations=dilations, deep=True)
    theirs = peers.MMSeg(backbone, (6, 12, 18), channels=512, low_channels=48 if plus else None)
    name = "deeplabv3_r101-d16-mg124_512x1024_80k_cityscapes.pth"
    imported = assert_same_logits(peers.randomised(theirs), foreign(theirs, name), (97, 65))
    assert imported.config.output_stride == 16


def test_configuration_in_the_file_decides_over_its_name():
    backbone = peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1), (2, 2)], [(2, 2), (4, 4)]])
    theirs = peers.MMSeg(backbone, (12, 24, 36), channels=64, aux_channels=8, align_corners=True)
    text = "model = dict(backbone=dict(strides=(1, 2, 1, 1)), decode_head=dict(align_corners=True))"
    file = Foreign(Path("d16-mg124.pth"), dict(peers.randomised(theirs).state_dict()), {"meta.config": text})
    imported = assert_same_logits(theirs, file, (65, 65))
    assert "by the configuration in the file" in imported.assumed


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("plus", [False, True])
def test_vainf(plus, output_stride):
    fine = output_stride == 8
    strides = (1, 2, 1, 1) if fine else (1, 2, 2, 1)
    dilations = [*PLAIN, [(1, 1), (2, 2)] if fine else [(1, 1)], [(2, 2), (4, 4)] if fine else [(1, 1), (2, 2)]]
    backbone = peers.Backbone((3, 4, 6, 3), strides, dilations)
    theirs = peers.VainF(backbone, (12, 24, 36) if fine else (6, 12, 18), plus=plus)
    assert_same_logits(peers.randomised(theirs), foreign(theirs), (97, 65), output_stride)


def test_original():
    theirs = peers.randomised(peers.Original())
    imported = assert_same_logits(theirs, foreign(theirs), (97, 65))
    assert imported.unused == ("backbone.fc.weight", "backbone.fc.bias")
    with pytest.raises(Exception, match="belong to 16 alone"):
        import_weights(foreign(theirs), output_stride=8)


def small():
    """A VainF model, whose file is spoilt below."""
    return peers.VainF(
        peers.Backbone((3, 4, 6, 3), (1, 2, 2, 1), [[(1, 1)]] * 3 + [[(1, 1), (2, 2)]]), (6, 12, 18), plus=False
    )


@pytest.fixture(scope="module")
def tensors():
    return dict(small().state_dict())


def refused(tensors):
    with pytest.raises(CheckpointError) as caught:
        import_weights(Foreign(Path("f.pth"), tensors, {}))
    return str(caught.value)


def test_counters_may_be_missing(tensors):
    without = {name: value for name, value in tensors.items() if "num_batches" not in name}
    assert import_weights(Foreign(Path("f.pth"), without, {})).tensors.keys()


def test_missing_name_is_reported(tensors):
    rest = {name: value for name, value in tensors.items() if name != "backbone.layer3.2.bn1.weight"}
    assert "looks like a DeepLab of vainf, but differs: backbone.layer3.2.bn1.weight is missing" in refused(rest)


def test_unknown_name_is_reported(tensors):
    assert "differs: extra.weight is not known" in refused({**tensors, "extra.weight": torch.zeros(1)})


def test_other_shape_is_reported(tensors):
    shape = {"backbone.layer4.0.conv2.weight": torch.zeros(512, 16, 3, 3)}
    assert "conv2.weight is (512, 16, 3, 3) instead of (512, 512, 3, 3)" in refused({**tensors, **shape})


def test_half_a_network_is_reported(tensors):
    rest = {name: value for name, value in tensors.items() if not name.startswith("backbone.layer4")}
    assert "stages have 3, 4, 6, 0 blocks" in refused(rest)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("rpn.head.conv.weight", "a detection model"),
        ("fc.weight", "a classifier of images; give it to train as --backbone-weights"),
        ("sem_seg_head.predictor.weight", "a DeepLab of detectron2"),
        ("something.else", "of no known project: its names begin with something.else"),
    ],
)
def test_other_files_are_named(name, what):
    assert what in refused({name: torch.zeros(1)})
