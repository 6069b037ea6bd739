import errno
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, DeviceMemoryError, InputError, NonFiniteError, OutputError
from deeplabv3.model.checkpoint import differences, digest, load_weights, read_checkpoint, write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import load_model
from deeplabv3.records import to_record

TENSORS = {
    "model/a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "model/b": torch.tensor(3),
    "model/c": torch.zeros(0, 2, dtype=torch.bfloat16),
    "random/cpu": torch.arange(5, dtype=torch.uint8),
}
RECORD = {"model": {"x": [1, None]}, "text": "mIoU"}


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "a.safetensors", TENSORS, RECORD)
    return tmp_path / "a.safetensors"


@pytest.fixture
def saved_model(tmp_path, tiny_config):
    torch.manual_seed(0)
    model = DeepLabV3(tiny_config)
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    record = {"model": to_record(tiny_config), "labels": CITYSCAPES.to_dict()}
    write_checkpoint(tmp_path / "model.safetensors", tensors, record)
    return tmp_path / "model.safetensors", model


def test_round_trip(path):
    checkpoint = read_checkpoint(path)
    assert checkpoint.record == RECORD
    assert set(checkpoint.tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert checkpoint.tensors[name].dtype == value.dtype
        assert torch.equal(checkpoint.tensors[name], value)
    assert set(checkpoint.part("model/")) == {"a", "b", "c"}


def test_channels_last_weights_are_stored_in_the_usual_order(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    write_checkpoint(tmp_path / "a.safetensors", {"model/w": weight}, {})
    assert torch.equal(read_checkpoint(tmp_path / "a.safetensors").tensors["model/w"], weight)


def test_any_reader_of_safetensors_reads_it(path):
    assert torch.equal(safetensors.torch.load_file(path)["model/a"], TENSORS["model/a"])


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_no_flipped_byte_loads_silently(path, mask):
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :])
        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError:
            continue
        # Whatever still loads is equal: a flip in the padding of the header.
        assert checkpoint.record == RECORD
        assert digest(checkpoint.tensors, "") == digest(TENSORS, "")


def test_no_truncation_loads(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read_checkpoint(path)


def test_appended_bytes_are_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        read_checkpoint(path)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none.safetensors; give the path"):
        read_checkpoint(tmp_path / "none.safetensors")


def test_other_safetensors_file(tmp_path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="was not written by deeplabv3"):
        read_checkpoint(tmp_path / "a.safetensors")


def test_newer_format_is_named(tmp_path):
    metadata = {"format": "deeplabv3", "version": "99", "record": "{}", "sha256": digest({}, "{}")}
    safetensors.torch.save_file({}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(CheckpointError, match="format version '99'; this release reads '1'"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_not_written(path, value):
    before = path.read_bytes()
    with pytest.raises(NonFiniteError, match="model/a became NaN or infinite, so nothing was saved"):
        write_checkpoint(path, {"model/a": torch.tensor([value])}, {})
    assert path.read_bytes() == before


def test_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"a.safetensors cannot be written: No space left .* needs [\d,]+ bytes and"):
        write_checkpoint(path, TENSORS, {"new": 1})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        write_checkpoint(tmp_path / "file" / "a.safetensors", TENSORS, RECORD)


def test_model_comes_back_with_equal_logits(saved_model):
    path, model = saved_model
    loaded, labels = load_model(path)
    image = torch.randint(0, 256, (1, 3, 33, 40), dtype=torch.uint8)
    assert labels == CITYSCAPES
    assert not loaded.training
    assert torch.equal(loaded(image), model.eval()(image))


def test_model_comes_back_at_another_stride(saved_model):
    loaded, _ = load_model(saved_model[0], output_stride=8)
    assert loaded.config.output_stride == 8
    with pytest.raises(InputError, match="output_stride is 7"):
        load_model(saved_model[0], output_stride=7)


def test_loading_moves_no_random_state(saved_model):
    torch.manual_seed(5)
    load_model(saved_model[0])
    moved = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(moved, torch.rand(1))


def test_checkpoint_of_another_model_is_refused(saved_model):
    other = DeepLabV3(ModelConfig(backbone="resnet34", width=16, aspp_channels=8))
    with pytest.raises(CheckpointError, match=r"belongs to another model: backbone\S+ is missing"):
        load_weights(other, read_checkpoint(saved_model[0]))
    other = DeepLabV3(ModelConfig(backbone="resnet18", width=16, aspp_channels=8, num_classes=4))
    with pytest.raises(CheckpointError, match=r"classifier.weight is \(19, 8, 1, 1\) instead of \(4, 8, 1, 1\)"):
        load_weights(other, read_checkpoint(saved_model[0]))


def test_checkpoint_without_a_model_is_refused(path):
    with pytest.raises(CheckpointError, match="has no record of its labels"):
        load_model(path)


def test_metadata_is_json_without_pickle(path):
    header = path.read_bytes()
    size = int.from_bytes(header[:8], "little")
    assert json.loads(json.loads(header[8 : 8 + size])["__metadata__"]["record"]) == RECORD


def test_three_faults_are_named_and_the_rest_counted():
    ours = {name: torch.zeros(2) for name in "abcde"}
    assert differences(ours, ours) == ""
    assert differences(ours, dict(list(ours.items())[:2])) == "c is missing, d is missing, e is missing"
    assert differences(ours, {"a": ours["a"]}) == "b is missing, c is missing, d is missing and 1 more"
    assert differences(ours, {}) == "a is missing, b is missing, c is missing and 2 more"
    half = {name: value.half() for name, value in ours.items()}
    assert differences({"a": ours["a"]}, {"a": half["a"]}) == "a is of torch.float16 instead of torch.float32"
    assert differences(ours, half, any_type=True) == ""


def test_large_numbers_are_finite_though_their_sum_is_not(tmp_path):
    large = torch.full((4,), 3e38)
    assert not large.sum().isfinite()
    write_checkpoint(tmp_path / "a", {"model/a": large}, {"model": {}})
    assert torch.equal(read_checkpoint(tmp_path / "a").tensors["model/a"], large)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_record_without_a_json_form_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="Out of range float values"):
        write_checkpoint(tmp_path / "a", {"model/a": torch.zeros(1)}, {"best": value})
    assert not list(tmp_path.iterdir())


def test_what_reading_meets_is_told(tmp_path, monkeypatch):
    write_checkpoint(tmp_path / "a", {"model/a": torch.zeros(1)}, {"model": {}})
    for error, kind, message in (
        (MemoryError(), DeviceMemoryError, "memory ran out while .*a was read; end other programs"),
        (OSError(errno.EIO, "Input/output error"), CheckpointError, "a cannot be read: Input/output error; check"),
        (OSError("of no number"), CheckpointError, "a cannot be read: of no number; check"),
    ):
        monkeypatch.setattr(Path, "read_bytes", Mock(side_effect=error))
        with pytest.raises(kind, match=message):
            read_checkpoint(tmp_path / "a")


def test_header_that_is_a_list_is_told(tmp_path):
    (tmp_path / "a").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(CheckpointError, match="its header is no JSON object"):
        read_checkpoint(tmp_path / "a")
