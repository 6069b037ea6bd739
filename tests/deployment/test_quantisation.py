"""An int8 file: convolutions of 8 bits, ranges from frames of the training split, and what it costs told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.cli import main
from deeplabv3.config import EvaluateConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_image_of
from deeplabv3.deployment import quantisation
from deeplabv3.deployment.quantisation import calibration_frames, measured_loss, quantised
from deeplabv3.errors import DatasetError
from deeplabv3.evaluation.evaluate import evaluate
from deeplabv3.model.exported import ExportedModel, open_exported, read_exported
from deeplabv3.model.sealed import RECORD_KEY, sealed_onnx

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def int8(labels_onnx, streets):
    """A file of float32 in 8 bits, as bytes, and the names of the frames that it has seen."""
    seen = []

    def reading(sample):
        seen.append(sample.name)
        return read_image_of(sample)

    model = onnx.load(labels_onnx)
    record = next(entry.value for entry in model.metadata_props if entry.key == RECORD_KEY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantisation, "read_image_of", reading)
        graph = quantised(labels_onnx.read_bytes(), calibration_frames(find_samples(streets, "train"), 2))
    return sealed_onnx(graph, record), seen


def test_every_convolution_has_weights_of_8_bits(int8, labels_onnx):
    model = onnx.load_model_from_string(int8[0])
    scaled = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20
    assert all(node.input[0] in scaled and node.input[1] in scaled for node in convolutions)
    assert len(int8[0]) < 0.4 * labels_onnx.stat().st_size


def test_ranges_are_those_of_training_frames(int8, streets):
    names = [sample.name for sample in find_samples(streets, "train")]
    assert int8[1] == [names[0], names[-1]]


def test_labels_are_nearly_those_of_float32(int8, onnx_model, labels_onnx, streets):
    model = open_exported(int8[0], labels_onnx, ExportedModel)
    image = torch.from_numpy(
        np.stack([read_image_of(sample).transpose(2, 0, 1) for sample in find_samples(streets, "val")])
    )
    differing = (model.labels(image) != onnx_model.labels(image)).float().mean()
    assert 0 < differing < 0.1


def test_loss_is_that_of_evaluate(network, onnx_model, checkpoint, streets):
    loss = measured_loss(network, onnx_model, find_samples(streets, "val"))
    expected = evaluate(EvaluateConfig(data_dir=streets, model=checkpoint, num_workers=0)).miou
    assert loss.miou_before == pytest.approx(expected, abs=1e-12)
    assert loss.miou_after == pytest.approx(expected, abs=1e-3)


def test_loss_on_frames_without_a_class_is_told(network, onnx_model, streets, tmp_path):
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(tmp_path / "empty.png")
    (sample, *_) = find_samples(streets, "val")
    with pytest.raises(DatasetError, match="^no pixel of val is of a class that is scored, so what int8 costs is not"):
        measured_loss(network, onnx_model, [replace(sample, label_path=tmp_path / "empty.png")])


def test_frames_are_spread_over_the_split(streets):
    samples = find_samples(streets, "train")
    assert calibration_frames(samples, 1) == samples[:1]
    assert calibration_frames(samples, 3) == [samples[0], samples[2], samples[5]]
    assert calibration_frames(samples, 99) == samples
    with pytest.raises(DatasetError, match="no frames to calibrate with"):
        calibration_frames([], 3)


@pytest.mark.slow
def test_int8_from_the_command_line(checkpoint, streets, tmp_path, capsys):
    out = tmp_path / "int8.onnx"
    words = ["export", checkpoint, out, "--int8", "--calibration", streets, "--num-calibration", 2]
    assert main([str(word) for word in words]) == 0
    printed = capsys.readouterr().out
    record = read_exported(out, ExportedModel).record["int8"]
    assert record["num_calibration"] == 2
    assert f"{record['miou_before']:.4f} before int8, {record['miou_after']:.4f} after" in printed
    found = evaluate(EvaluateConfig(data_dir=streets, model=out, num_workers=0))
    assert found.miou == pytest.approx(record["miou_after"], abs=1e-12)
