"""An exported file computes what its network computes, says what it is, and is a model wherever a checkpoint is one."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import deeplabv3
from deeplabv3 import __version__
from deeplabv3.cli import main
from deeplabv3.config import EvaluateConfig, ExportConfig, InferenceConfig, ModelConfig, PredictConfig
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.deployment import export as exporting
from deeplabv3.deployment import parity
from deeplabv3.deployment.export import export
from deeplabv3.deployment.graph import onnx_graph, program_file, traced
from deeplabv3.errors import CheckpointError, InputError, OutputError
from deeplabv3.evaluation.evaluate import evaluate
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.exported import ExportedModel, open_exported, read_exported
from deeplabv3.model.load import load_model
from deeplabv3.model.sealed import sealed_onnx
from deeplabv3.prediction.predictor import predict, predict_batch
from tests.conftest import write_frame
from tests.deployment.conftest import with_statistics

SHAPES = ((1, 65, 97), (3, 129, 257), (1, 17, 40))
SMALL = ((1, 1, 1), (2, 16, 5))


def pixels(shape):
    return parity.pixels(shape[0], shape[1], shape[2], seed=5)


pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("shape", [*SHAPES, *SMALL], ids=str)
def test_onnx_puts_out_the_labels_of_the_network(network, onnx_model, shape):
    image = pixels(shape)
    found = onnx_model.labels(image)
    assert found.dtype == torch.uint8
    assert torch.equal(found, predict_batch(network, image))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_program_puts_out_the_probabilities_of_the_network(network, program_model, shape):
    image = pixels(shape)
    expected = network(image).detach().softmax(1)
    torch.testing.assert_close(program_model.probabilities(image), expected, atol=1e-5, rtol=0)


def test_program_names_the_smallest_image(program_model):
    with pytest.raises(InputError, match=r"16x40 pixels is too small for .*\.pt2, which takes 17x17 and more"):
        program_model.labels(parity.pixels(1, 16, 40, 0))


def test_frame_that_is_too_small_is_named(probabilities_pt2, tmp_path, capsys):
    name = "aachen_000000_000019"
    write_frame(tmp_path, name, np.zeros((16, 40, 3), np.uint8), np.full((16, 40), 7, np.uint8), "val")
    for verb, more in (("evaluate", ()), ("submit", ("--split", "val", "--out", str(tmp_path / "submission.zip")))):
        assert main([verb, str(tmp_path), "--model", str(probabilities_pt2), *more]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert name in error
        assert " cannot be segmented: an image of 16x40 pixels is too small for " in error
    assert not (tmp_path / "submission.zip").exists()


def test_file_says_what_it_is(network, onnx_model, program_model):
    for exported, output in ((onnx_model, "labels"), (program_model, "probabilities")):
        assert (exported.config, exported.label_set, exported.output) == (network.config, CITYSCAPES, output)
        record = exported.record
        assert record["deeplabv3"] == __version__
        assert record["names"] == list(CITYSCAPES.names)
        assert record["colors"] == CITYSCAPES.palette.tolist()
        assert record["parity"]["num_pixels"] == sum(n * h * w for n, h, w in parity.SHAPES)
        assert 0 <= record["parity"]["largest_difference"] < 1e-5


def test_onnx_file_is_one_to_other_readers(labels_onnx):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(labels_onnx)
    onnx.checker.check_model(model)
    names = [dimension.dim_param for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == ["batch", "", "height", "width"]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert json.loads(next(entry.value for entry in model.metadata_props if entry.key == "deeplabv3"))["labels"]


def test_nothing_of_the_machine_is_in_a_file(labels_onnx, probabilities_pt2):
    for path in (labels_onnx, probabilities_pt2):
        content = path.read_bytes()
        assert b"site-packages" not in content
        assert b".py" not in content


def test_files_are_scored_as_their_checkpoint(checkpoint, labels_onnx, probabilities_pt2, streets):
    config = EvaluateConfig(data_dir=streets, model=checkpoint, num_workers=0)
    expected = evaluate(config)
    for path in (labels_onnx, probabilities_pt2):
        found = evaluate(replace(config, model=path, batch_size=2))
        moved = np.abs(found.counts - expected.counts).sum() / 2
        assert moved <= parity.MAX_SHARE * expected.counts.sum()


@pytest.mark.parametrize("options", [{"flip": True}, {"tile_size": (40, 50)}], ids=str)
def test_file_of_probabilities_flips_and_slides_as_its_checkpoint(network, program_model, options):
    image, inference = parity.pixels(1, 65, 97, 1), InferenceConfig(**options)
    expected = predict_batch(network, image, inference)
    assert (predict_batch(program_model, image, inference) != expected).float().mean() <= parity.MAX_SHARE
    assert (predict_batch(network, image) != expected).any()


def test_file_of_probabilities_takes_scales(network, program_model):
    image, inference = parity.pixels(1, 65, 97, 1), InferenceConfig(scales=(0.75, 1.5))
    expected = predict_batch(network, image, inference)
    assert (predict_batch(program_model, image, inference) != expected).float().mean() < 0.05
    assert (predict_batch(network, image) != expected).float().mean() > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flip": True}, "average probabilities and .*labels.onnx puts out labels; export it again with --output prob"),
        ({"scales": (0.5,)}, "puts out labels; export it again with --output probabilities"),
        ({"tile_size": (32, 32)}, "puts out labels; export it again with --output probabilities"),
        ({"output_stride": 8}, "output_stride is 8 and .* was exported at 16; export it again with --output-stride 8"),
        ({"precision": "bfloat16"}, "precision is 'bfloat16' and .* computes as it was exported"),
        ({"device": "cuda"}, "device is 'cuda' and .* runs on the CPU here"),
    ],
    ids=str,
)
def test_what_a_file_cannot_do_is_refused(onnx_model, options, message):
    with pytest.raises(InputError, match=message):
        onnx_model.require(InferenceConfig(**options))
    onnx_model.require(InferenceConfig(output_stride=16, device="cpu", precision="auto"))


def test_prediction_with_a_file_is_that_of_its_checkpoint(checkpoint, labels_onnx, streets, tmp_path):
    for model in (checkpoint, labels_onnx):
        predict(PredictConfig(inputs=(str(streets / "leftImg8bit/val"),), model=model, out=tmp_path / model.stem))
    files = sorted((tmp_path / "tiny").rglob("*.png"))
    assert len(files) == 9
    for path in files:
        assert path.read_bytes() == (tmp_path / "labels" / path.relative_to(tmp_path / "tiny")).read_bytes()


def test_file_is_a_model_in_python(checkpoint, labels_onnx, probabilities_pt2, rng):
    image = rng.integers(0, 256, (33, 50, 3), dtype=np.uint8)
    expected = deeplabv3.load(checkpoint, device="cpu").predict(image, probabilities=True)
    np.testing.assert_array_equal(deeplabv3.load(labels_onnx).predict(image).train_ids, expected.train_ids)
    found = deeplabv3.load(probabilities_pt2).predict(image, probabilities=True)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)
    with pytest.raises(InputError, match="puts out labels"):
        deeplabv3.load(labels_onnx).predict(image, probabilities=True)
    with pytest.raises(InputError, match="output_stride is 8"):
        deeplabv3.load(labels_onnx, output_stride=8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reason", "raised", "message"),
    [
        ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : ... std::bad_alloc", MemoryError, "bad_alloc"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got: 3", CheckpointError, "fails at an image .*Got: 3.; export"),
    ],
)
def test_what_onnx_runtime_raises_is_told(labels_onnx, monkeypatch, reason, raised, message):
    """Its errors are no kinds of Python's."""
    import onnxruntime

    class Strange(Exception):
        pass

    def fail(*_):
        raise Strange(reason)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", fail)
    with pytest.raises(raised, match=message):
        deeplabv3.load(labels_onnx).predict(np.zeros((64, 64, 3), np.uint8))


def test_report_of_a_file(labels_onnx, streets, tmp_path):
    words = ["report", streets, "--model", labels_onnx, "--report-dir", tmp_path / "r", "--num-worst", 1]
    assert main([str(word) for word in words]) == 0
    assert (tmp_path / "r/index.html").exists()


def test_weights_are_not_taken_from_a_file(labels_onnx, tmp_path, capsys):
    assert main(["export", str(labels_onnx), str(tmp_path / "again.onnx")]) == 2
    assert main(["import", str(labels_onnx)]) == 2
    assert capsys.readouterr().err.count("cannot be trained, imported or exported again") == 2


def test_another_network_is_not_close(checkpoint, onnx_model, program_model):
    model = load_model(checkpoint)[0]
    for exported in (onnx_model, program_model):
        parity.compare(model, exported).require_close("same")
    model.backbone.layer4[1].conv2.dilation = model.backbone.layer4[1].conv2.padding = (1, 1)
    for exported in (onnx_model, program_model):
        with pytest.raises(InputError, match="would differ from its checkpoint"):
            parity.compare(model, exported).require_close("other")


@pytest.mark.parametrize("found", [(0.01, 0.0), (0.0, 0.01), (0.0, float("nan"))], ids=str)
def test_each_bound_holds(found):
    parity.Parity(9, 0.0, 0.0).require_close("x")
    with pytest.raises(InputError, match="so it was not written"):
        parity.Parity(9, *found).require_close("x")


def test_file_beyond_the_bound_is_not_written(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(InputError, match="would differ from its checkpoint"):
        export(ExportConfig(model=checkpoint, out=tmp_path / "x.pt2"))
    assert list(tmp_path.iterdir()) == []


def test_file_is_not_overwritten_unasked(checkpoint, labels_onnx, monkeypatch):
    monkeypatch.setattr(exporting, "load_model", pytest.fail)  # it is found out at once
    with pytest.raises(OutputError, match="is there already; add --overwrite"):
        export(ExportConfig(model=checkpoint, out=labels_onnx))


def test_missing_library_is_named(checkpoint, labels_onnx, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"need onnxruntime; install it: pip install 'deeplabv3\[export\]'"):
        read_exported(labels_onnx, ExportedModel)
    with pytest.raises(InputError, match="need onnxruntime"):
        export(ExportConfig(model=checkpoint, out=tmp_path / "x.onnx"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x.pth"}, r"out is 'x.pth'; its name ends in .onnx \(ONNX\) or .pt2"),
        ({"output": "logits"}, "output is 'logits'; choose one of labels, probabilities"),
        ({"output_stride": 4}, "output_stride is 4; choose 8, 16 or 32"),
        ({"int8": True}, "--int8 needs --calibration DATA"),
        ({"int8": True, "out": "x.pt2", "calibration": "d"}, "--int8 is for .onnx files"),
        ({"calibration": "d"}, "calibration is 'd'; it is for --int8"),
        ({"num_calibration": 0}, "num_calibration is 0; give at least 1"),
    ],
    ids=str,
)
def test_options_that_are_not_possible(tmp_path, options, message):
    paths = {name: tmp_path.__class__(options[name]) for name in ("out", "calibration") if name in options}
    with pytest.raises(InputError, match=message):
        ExportConfig(**{"model": tmp_path, "out": tmp_path / "x.onnx", **options, **paths})


NETWORKS = {
    "resnet18": ModelConfig(backbone="resnet18", auxiliary_channels=16, align_corners=True),
    "resnet101": ModelConfig(backbone="resnet101", multi_grid=(1, 2, 4)),
    "resnet101 at 8": ModelConfig(backbone="resnet101", output_stride=8, stem="deep", aspp_projection="1x1+3x3"),
    "V3+": ModelConfig(backbone="resnet101", decoder="separable", aspp_separable=True, aspp_projection="3x3"),
    "V3+ conv": ModelConfig(backbone="resnet18", decoder="conv", image_pooling=False),
    "mobilenet": ModelConfig(backbone="mobilenet_v3_large", aspp_channels=128),
}


@pytest.mark.slow
@pytest.mark.parametrize("output", ["labels", "probabilities"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_exported_as_it_is(name, output, tmp_path):
    torch.manual_seed(0)
    model = with_statistics(DeepLabV3(NETWORKS[name]))
    program = traced(model, output)
    record = json.dumps(exporting.description(model, CITYSCAPES, output))
    for suffix, content in (
        (".onnx", sealed_onnx(onnx_graph(program, output), record)),
        (".pt2", program_file(program, record)),
    ):
        exported = open_exported(content, tmp_path / f"x{suffix}", ExportedModel)
        found = parity.compare(model, exported)
        found.require_close(name)
        assert found.largest_difference < 1e-4


def test_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file .*none.onnx; write one with: deeplabv3 export MODEL"):
        read_exported(tmp_path / "none.onnx", ExportedModel)
