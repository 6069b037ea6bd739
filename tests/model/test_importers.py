"""Checkpoints of other projects compute the same logits here."""

from pathlib import Path

import pytest
import torch

from deeplabv3.errors import CheckpointError
from deeplabv3.model import foreign as reading
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.foreign import Foreign, read_foreign
from deeplabv3.model.importers import import_weights
from deeplabv3.model.unpickling.convert import convert
from tests.model import peers
from tests.model.parity import D8, D16, PLAIN, assert_close, assert_same_logits, foreign


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Save a model as its project does and read the file; it is unpickled in this process."""
    monkeypatch.setattr(reading, "unpickle", convert)

    def save_and_read(model, *, pretrained=False):
        if pretrained:
            model.save_pretrained(tmp_path)
            return read_foreign(tmp_path / "model.safetensors")
        torch.save(model.state_dict(), tmp_path / "weights.pth")
        return read_foreign(tmp_path / "weights.pth")

    return save_and_read


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [
        ("resnet50", 8),
        ("resnet101", 16),
        pytest.param("resnet50", 16, marks=SLOW),
        pytest.param("resnet101", 8, marks=SLOW),
    ],
)
def test_torchvision(saved, backbone, output_stride):
    pytest.importorskip("torchvision")
    theirs = peers.randomised(peers.torchvision_deeplab(backbone, output_stride, 21))
    imported = assert_same_logits(theirs, saved(theirs), (97, 65), output_stride)
    assert (imported.kind, imported.config.auxiliary_channels, imported.config.backbone) == (
        "torchvision",
        256,
        backbone,
    )


def test_torchvision_mobilenet(saved):
    pytest.importorskip("torchvision")
    theirs = peers.randomised(peers.torchvision_deeplab("mobilenet_v3_large", 16, 21))
    imported = assert_same_logits(theirs, saved(theirs), (97, 131))
    assert imported.config.auxiliary_channels == 10


@pytest.mark.parametrize(
    ("backbone", "output_stride"),
    [
        ("resnet18", 8),
        ("resnet50", 16),
        pytest.param("resnet18", 16, marks=SLOW),
        pytest.param("resnet50", 8, marks=SLOW),
    ],
)
def test_segmentation_models(saved, backbone, output_stride):
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = peers.randomised(
        smp.DeepLabV3(backbone, encoder_weights=None, classes=19, encoder_output_stride=output_stride)
    )
    # It takes whole grids alone; these have odd numbers of values.
    size = (72, 104) if output_stride == 8 else (80, 112)
    imported = assert_same_logits(theirs, saved(theirs, pretrained=True), size, output_stride)
    model = DeepLabV3(imported.config).eval()
    model.load_state_dict(import_weights(saved(theirs), output_stride=output_stride).tensors)
    pixels = peers.image(97, 65)  # of other sizes it has logits on the grid
    with torch.no_grad():
        features = theirs.encoder((pixels / 255 - peers.MEAN) / peers.STD)
        assert_close(model.grid_logits(pixels), theirs.segmentation_head[0](theirs.decoder(features)))


@pytest.mark.parametrize(
    ("name", "blocks", "deep", "plus", "corners"),
    [
        ("deeplabv3_r50-d8_512x1024_80k_cityscapes.pth", (3, 4, 6, 3), True, False, False),
        pytest.param("deeplabv3_r50b-d8_769x769_80k_cityscapes.pth", (3, 4, 6, 3), False, False, True, marks=SLOW),
        pytest.param("deeplabv3plus_r50-d8_512x1024_80k_cityscapes.pth", (3, 4, 6, 3), True, True, False, marks=SLOW),
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


@pytest.mark.parametrize("plus", [True, pytest.param(False, marks=SLOW)])
def test_mmsegmentation_multi_grid(plus):
    dilations = [*PLAIN, [(1, 1)], [(1, 1), (2, 2), (4, 4)]]
    backbone = peers.Backbone((3, 4, 23, 3), **D16, dilations=dilations, deep=True)
    theirs = peers.MMSeg(backbone, (6, 12, 18), channels=512, low_channels=48 if plus else None)
    name = "deeplabv3_r101-d16-mg124_512x1024_80k_cityscapes.pth"
    imported = assert_same_logits(peers.randomised(theirs), foreign(theirs, name), (97, 65))
    assert imported.config.output_stride == 16


@pytest.mark.parametrize(
    ("plus", "output_stride"),
    [(False, 8), (True, 16), pytest.param(False, 16, marks=SLOW), pytest.param(True, 8, marks=SLOW)],
)
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


@pytest.mark.parametrize("name", ["classifier.classifier.4.weight", "backbone.conv1.weight"])
@pytest.mark.parametrize("shape", [(), (64,), (0, 0, 0, 0), (3, 5, 5, 5)])
def test_impossible_shape_is_reported(tensors, name, shape):
    assert refused({**tensors, name: torch.zeros(shape)}).startswith("f.pth ")


@pytest.mark.parametrize(
    "name", ["classifier.classifier.0.convs.0.0.weight", "classifier.classifier.0.project.0.weight"]
)
def test_convolution_of_no_dimensions_is_reported(tensors, name):
    message = f"f.pth has {name} of (); a convolution has 4 dimensions: give the weights of a whole network"
    assert message in refused({**tensors, name: torch.tensor(1.0)})


def test_faults_are_told_in_the_names_of_the_file():
    theirs = peers.MMSeg(
        peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1)], [(1, 1)]]), (12, 24, 36), channels=16
    )
    state = dict(theirs.state_dict())
    pooling = {name: value for name, value in state.items() if "image_pool" not in name}
    assert "differs: decode_head.image_pool.1.conv.weight is missing, decode_head.image_pool.1.bn.weight" in refused(
        pooling
    )
    end = {name: value for name, value in state.items() if "conv_seg" not in name}
    assert "f.pth lacks decode_head.conv_seg.weight, so it is no whole DeepLab of mmseg" in refused(end)
    bottleneck = {"decode_head.bottleneck.conv.weight": torch.zeros(16, 81, 3, 3)}
    assert "decode_head.bottleneck.conv.weight is (16, 81, 3, 3) instead of (16, 80, 3, 3)" in refused(
        {**state, **bottleneck}
    )


def test_every_unknown_name_counts(tensors):
    more = {f"extra.{number}": torch.zeros(1) for number in range(9)}
    assert "extra.0 is not known, extra.1 is not known, extra.2 is not known and 6 more; give" in refused(
        tensors | more
    )


def test_names_of_older_segmentation_models():
    """Before 0.5 its decoder was a sequence."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    state = smp.DeepLabV3("resnet18", encoder_weights=None, classes=19).state_dict()
    older = {"decoder.aspp.": "decoder.0.", "decoder.conv.": "decoder.1.", "decoder.bn.": "decoder.2."}

    def old(name):
        return next((old + name.removeprefix(new) for new, old in older.items() if name.startswith(new)), name)

    now, before = (
        import_weights(Foreign(Path("f.pth"), tensors, {}))
        for tensors in (state, {old(name): value for name, value in state.items()})
    )
    assert now.config == before.config
    assert all(torch.equal(before.tensors[name], value) for name, value in now.tensors.items())
    without = {old(name): value for name, value in state.items() if name != "decoder.aspp.convs.0.1.bias"}
    assert "differs: decoder.0.convs.0.1.bias is missing" in refused(without)


def test_name_that_comes_twice_is_reported():
    smp = pytest.importorskip("segmentation_models_pytorch")
    state = smp.DeepLabV3("resnet18", encoder_weights=None, classes=19).state_dict()
    assert "differs: decoder.1.weight is not known" in refused(
        {**state, "decoder.1.weight": state["decoder.conv.weight"]}
    )


def test_more_classes_than_label_pngs_hold(tensors):
    end = {
        "classifier.classifier.4.weight": torch.zeros(254, 256, 1, 1),
        "classifier.classifier.4.bias": torch.zeros(254),
    }
    assert "f.pth has 254 classes; label PNGs hold at most 253" in refused(tensors | end)


def test_halves_become_floats_and_whole_numbers_are_refused(tensors):
    def changed(dtype):
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}

    halves = import_weights(Foreign(Path("f.pth"), changed(torch.float16), {})).tensors
    assert {value.dtype for value in halves.values()} == {torch.float32, torch.int64}
    assert "backbone.conv1.weight is of torch.int8 instead of float32" in refused(changed(torch.int8))


def test_values_that_floats_cannot_hold_are_refused(tmp_path, tensors):
    """A double of 1e300 would become infinite behind the look for such values."""
    torch.save({**tensors, "backbone.conv1.weight": tensors["backbone.conv1.weight"].double()}, tmp_path / "a.pth")
    read_foreign(tmp_path / "a.pth")
    torch.save(
        {**tensors, "backbone.conv1.weight": torch.full((64, 3, 7, 7), 1e300, dtype=torch.float64)}, tmp_path / "b.pth"
    )
    with pytest.raises(CheckpointError, match=r"b.pth has NaN or infinite values in backbone.conv1.weight"):
        read_foreign(tmp_path / "b.pth")


@pytest.mark.parametrize("name", ["efficientnet-b0", "tu-resnet18"])
def test_other_backbones_are_named(name):
    smp = pytest.importorskip("segmentation_models_pytorch")
    state = smp.DeepLabV3(name, encoder_weights=None, classes=2).state_dict()
    message = refused(state)
    assert "has a backbone without the stages of a ResNet, but with encoder." in message
    assert "known are resnet18, " in message


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("rpn.head.conv.weight", "a detection model"),
        ("backbone.body.conv1.weight", "a detection model"),
        ("roi_head.bbox_head.fc_cls.weight", "a detection model"),
        ("head.classification_head.cls_logits.weight", "a detection model"),
        ("classifier.4.weight", "another model of torchvision, probably FCN"),
        ("fc.weight", "a classifier of images; give it to train as --backbone-weights"),
        ("sem_seg_head.predictor.weight", "a DeepLab of detectron2"),
        ("something.else", "of no known project: its names begin with something.else"),
    ],
)
def test_other_files_are_named(name, what):
    assert what in refused({name: torch.zeros(1)})
