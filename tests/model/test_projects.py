"""What the tensors of another project's file do not say: rates, stride, corners, dropout."""

from pathlib import Path

import pytest

from deeplabv3.errors import CheckpointError
from deeplabv3.model.foreign import Foreign
from deeplabv3.model.importers import import_weights
from tests.model import peers
from tests.model.parity import D8, PLAIN, assert_same_logits, foreign


def test_configuration_in_the_file_decides_over_its_name():
    backbone = peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1), (2, 2)], [(2, 2), (4, 4)]])
    theirs = peers.MMSeg(backbone, (12, 24, 36), channels=64, aux_channels=8, align_corners=True)
    text = "model = dict(backbone=dict(strides=(1, 2, 1, 1)), decode_head=dict(align_corners=True))"
    file = Foreign(Path("d16-mg124.pth"), dict(peers.randomised(theirs).state_dict()), {"meta.config": text})
    imported = assert_same_logits(theirs, file, (65, 65))
    assert "by the configuration in the file" in imported.assumed


# As mmengine writes a configuration: sorted, a value a line, the auxiliary head first.
MMENGINE = """auxiliary_head = dict(align_corners=True, dilations=(9, ))
model = dict(
    auxiliary_head=dict(
        align_corners={other}, channels=4),
    backbone=dict(
        contract_dilation={contract},
        dilations=(
            1,
            1,
            1,
            2,
        ),
        norm_cfg=dict(requires_grad=True, type='SyncBN'),
        {grid}
        strides=(
            1,
            2,
            {third},
            1,
        )),
    decode_head=dict(
        align_corners={corners},
        dilations=(
            1,
            {rates},
        ),
        loss_decode=dict(loss_weight=1.0)))
"""


@pytest.mark.parametrize("corners", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("third", "grid", "contract", "dilations", "rates"),
    [
        (1, (), True, [[(1, 1), (2, 2)], [(2, 2), (4, 4)]], (12, 24, 36)),
        (1, (), False, [[(2, 2)], [(4, 4)]], (12, 24, 36)),
        (2, (), True, [[(1, 1)], [(1, 1), (2, 2)]], (12, 24, 36)),
        (2, (1, 2, 4), True, [[(1, 1)], [(1, 1), (2, 2), (4, 4)]], (6, 12, 18)),
        (2, (1, 2, 1), True, [[(1, 1)], [(1, 1), (2, 2), (1, 1)]], (3, 6, 9)),
    ],
)
def test_mmengine_keeps_its_configuration_elsewhere(third, grid, contract, dilations, rates, corners):
    backbone = peers.Backbone((3, 4, 6, 3), (1, 2, third, 1), [*PLAIN, *dilations])
    theirs = peers.randomised(peers.MMSeg(backbone, rates, channels=16, aux_channels=4, align_corners=corners))
    text = MMENGINE.format(
        other=not corners,
        contract=contract,
        grid="multi_grid=(\n" + ",\n".join(map(str, grid)) + ",\n)," if grid else "",
        third=third,
        corners=corners,
        rates=",\n".join(map(str, rates)),
    )
    file = Foreign(Path("iter_80000.pth"), dict(theirs.state_dict()), {"meta.cfg": text})
    imported = assert_same_logits(theirs, file, (97, 65))
    assert imported.config.output_stride == 8 * third
    assert "by the configuration in the file" in imported.assumed


@pytest.mark.parametrize(
    "text",
    [
        "backbone=dict(strides=(0, 0, 0, 0))",
        "backbone=dict(strides=(1, 1, 1, 1))",
        f"backbone=dict(strides=({'9' * 5000}, ))",
        "backbone=dict(strides=(" * 1000,
        "decode_head=dict(dilations=(1, 999, 1))",
        "decode_head=dict(dilations=(1,))",
        "decode_head=dict(dilations=([({",
    ],
)
def test_configuration_that_makes_no_sense_does_no_harm(text):
    theirs = peers.MMSeg(
        peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1)], [(1, 1)]]), (1, 1, 1), channels=16
    )
    try:
        import_weights(Foreign(Path("f.pth"), dict(theirs.state_dict()), {"meta.config": text}))
    except CheckpointError as error:
        assert str(error).startswith("f.pth ")  # noqa: PT017 - an import is as good


@pytest.mark.parametrize(("kind", "name"), [("d8", "a-d8.pth"), ("usual", "model.pth")])
def test_what_was_taken_for_granted_is_said(kind, name):
    theirs = peers.MMSeg(
        peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1)], [(1, 1)]]), (1, 1, 1), channels=16
    )
    assumed = import_weights(foreign(theirs, name)).assumed
    assert assumed.startswith("D8, rates (12, 24, 36), align_corners False, ")
    assert assumed.endswith("by the file's name" if kind == "d8" else "as is usual there")


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_multi_grid_at_other_strides(output_stride):
    """At 32 the first rate would be a half, and is 1."""
    theirs = peers.MMSeg(
        peers.Backbone((3, 4, 6, 3), **D8, dilations=[*PLAIN, [(1, 1)], [(1, 1)]]), (1, 1, 1), channels=16
    )
    imported = import_weights(foreign(theirs, "d16-mg124.pth"), output_stride=output_stride)
    rates = {8: (2, 4, 8), 16: (1, 2, 4), 32: (1, 1, 2)}[output_stride]
    assert imported.config.block_rates[1] == rates
    assert imported.config.aspp_rates == {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}[output_stride]


def test_dropout_of_each_project_is_kept():
    """What training goes on with; torchvision 0.5, mmsegmentation and VainF 0.1, the original none."""
    backbone = peers.Backbone((3, 4, 6, 3), (1, 2, 2, 1), [[(1, 1)]] * 3 + [[(1, 1), (2, 2)]])
    vainf, mmseg = peers.VainF(backbone, (6, 12, 18), plus=False), peers.MMSeg(backbone, (6, 12, 18), channels=16)
    theirs = {peers.torchvision_deeplab("resnet50", 8, 21): 0.5, vainf: 0.1, mmseg: 0.1, peers.Original(): 0.0}
    for model, dropout in theirs.items():
        assert import_weights(foreign(model)).config.dropout == dropout
