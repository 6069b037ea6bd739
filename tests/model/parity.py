"""Whether a model of another project and its import compute the same logits."""

from pathlib import Path

import torch

from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.foreign import Foreign
from deeplabv3.model.importers import import_weights
from tests.model import peers

D8 = {"strides": (1, 2, 1, 1)}
D16 = {"strides": (1, 2, 2, 1)}
PLAIN = [[(1, 1)], [(1, 1)]]


def foreign(model, name="weights.pth"):
    return Foreign(Path(name), dict(model.state_dict()), {})


def assert_close(found, expected):
    """Equal within 1e-4 of the largest value."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def assert_same_logits(theirs, file, size, output_stride=None):
    """Those of the auxiliary head too."""
    imported = import_weights(file, output_stride=output_stride)
    model = DeepLabV3(imported.config)
    model.load_state_dict(imported.tensors)
    pixels = peers.image(*size)
    with torch.no_grad():
        logits, auxiliary = model.eval().forward_with_auxiliary(pixels)
    assert_close(logits, peers.logits_of(theirs, pixels))
    expected = peers.auxiliary_logits_of(theirs, pixels)
    assert (auxiliary is None) == (expected is None)
    if expected is not None:
        assert_close(auxiliary, expected)
    return imported
