"""No checkpoint loads silently wrong: flipped, exchanged or forged files are one CheckpointError that says what."""

import ctypes
import itertools
import os
import random
import re
import resource
import time
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.model.checkpoint import FORMAT, VERSION, digest, model_from, read_checkpoint, write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import open_checkpoint
from deeplabv3.prediction import segmenter
from deeplabv3.records import to_record
from tests.model.forging import forged

SMALL = {"model/a": torch.arange(6.0).reshape(2, 3), "model/b": torch.tensor(3), "optimizer/a": torch.ones(2, 3)}
RECORD = {"text": "mIoU", "numbers": [1, None, 0.5]}
FLIP_SECONDS = float(os.environ.get("DEEPLABV3_FLIP_SECONDS", "300"))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    write_checkpoint(path, SMALL, RECORD)
    return path


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return DeepLabV3(tiny_config)


@pytest.fixture
def content(model, tiny_config):
    """Tensors and record of a model's checkpoint, to be changed and forged."""
    tensors = {f"model/{name}": value.clone() for name, value in model.state_dict().items()}
    return tensors, {"model": to_record(tiny_config), "labels": CITYSCAPES.to_dict()}


def is_refused(path):
    """Whether it is; whatever is not is equal to what was written."""
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError:
        return True
    assert checkpoint.record == RECORD
    assert digest(checkpoint.tensors, "") == digest(SMALL, "")
    return False


def refusal(path, tensors, record):
    """Why a forged checkpoint does not become a model."""
    path.write_bytes(forged(tensors, record))
    with pytest.raises(CheckpointError) as refused:
        model_from(read_checkpoint(path))
    assert str(path) in str(refused.value)
    return str(refused.value)


def test_no_flipped_bit_of_the_header_loads_silently(small):
    content = small.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for position, bit in itertools.product(range(size), range(8)):
        small.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
        refused += is_refused(small)
    assert refused >= 8 * (size - 8)  # all but some of the padding


@pytest.mark.parametrize("more", [b"\0", b" ", b"{}", bytes(4096)])
def test_appended_bytes_are_refused(small, more):
    small.write_bytes(small.read_bytes() + more)
    assert is_refused(small)


def test_tensors_of_another_checkpoint_are_refused(small, tmp_path):
    other = tmp_path / "other.safetensors"
    write_checkpoint(other, {name: value + 1 for name, value in SMALL.items()}, RECORD)
    first, second = small.read_bytes(), other.read_bytes()
    size = 8 + int.from_bytes(first[:8], "little")
    assert len(first) == len(second)
    small.write_bytes(first[:size] + second[size:])
    assert is_refused(small)


@pytest.mark.parametrize("change", ["without", "exchanged", "renamed"])
def test_whole_file_of_other_tensors_is_refused(small, change):
    """A sound file of safetensors, whose digest is that of the tensors before."""
    with safetensors.safe_open(small, framework="pt") as file:
        metadata = file.metadata()
    tensors = dict(SMALL)
    if change == "exchanged":
        tensors["model/a"], tensors["optimizer/a"] = tensors["optimizer/a"], tensors["model/a"]
    else:
        moved = tensors.pop("optimizer/a")
        tensors |= {"optimizer/b": moved} if change == "renamed" else {}
    safetensors.torch.save_file(tensors, small, metadata)
    with pytest.raises(CheckpointError, match="SHA-256 does not fit"):
        read_checkpoint(small)


def test_what_was_verified_does_not_change_under_its_reader(small):
    tensors = read_checkpoint(small).tensors
    with small.open("r+b") as file:
        file.seek(-24, os.SEEK_END)
        file.write(b"\xff" * 24)
    assert digest(tensors, "") == digest(SMALL, "")


def test_folder_and_forbidden_file_are_one_error(tmp_path, small, monkeypatch):
    with pytest.raises(CheckpointError, match="it is a folder, pipe or device; give the path"):
        read_checkpoint(tmp_path)

    def forbid(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", forbid)
    for read in (read_checkpoint, open_checkpoint):
        with pytest.raises(CheckpointError, match="small.safetensors cannot be read: Permission denied"):
            read(small)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": 1e999}', "no JSON"),
        ('{"a": "\\ud800"}', "no JSON"),
        ('{"a": ' + "9" * 5000 + "}", "no JSON"),
        ("[1]", r"has a record that is \[1\] and no JSON object"),
        ("{}", "has no record of its labels"),
        ('{"labels": []}', r"has a record of its labels that is \[\]"),
        ('{"labels": {"classes": 5}}', "labels that cannot be used: label set 'own': classes is 5"),
        ('{"labels": {"classes": [{"name": "a", "id": 1, "color": [1, 2, 3], "has_instances": 1}]}}', "does not fit"),
    ],
)
def test_record_that_no_run_wrote(small, record, message):
    small.write_bytes(forged(SMALL, record))
    with pytest.raises(CheckpointError, match=f"small.safetensors .*{message}"):
        model_from(read_checkpoint(small))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", "16", "width is '16'; give a whole number"),
        ("width", True, "width is True; give a whole number"),
        ("width", 2**40, "width is 1099511627776; give at most 16384"),
        ("dropout", None, "dropout is None; give a number"),
        ("multi_grid", 3, "multi_grid is 3; give a list or null"),
        ("atrous_rates", [1] * 10_000, "atrous_rates is .* there are few"),
        ("backbone", "alexnet", "backbone is 'alexnet'; choose one of"),
        ("num_classes", 4, "has a network of 4 classes and labels of 19"),
        ("backbone", "resnet34", "belongs to another model: backbone.layer1.2.conv1.weight is missing"),
        ("aspp_channels", 16, r"instead of \(16, 128, 1, 1\)"),
        ("auxiliary_channels", 8, "auxiliary_head.0.0.weight is missing"),
    ],
)
def test_description_that_does_not_fit(tmp_path, content, name, value, message):
    tensors, record = content
    text = refusal(tmp_path / "a.safetensors", tensors, {**record, "model": {**record["model"], name: value}})
    assert re.search(message, text), text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_type_are_refused(tmp_path, content, dtype):
    """Even though torch would copy them silently."""
    tensors, record = content
    tensors["model/classifier.weight"] = tensors["model/classifier.weight"].to(dtype)
    text = refusal(tmp_path / "a.safetensors", tensors, record)
    assert f"classifier.weight is of {dtype} instead of torch.float32" in text


def test_counter_of_another_type_is_refused(tmp_path, content):
    tensors, record = content
    tensors["model/backbone.bn1.num_batches_tracked"] = torch.tensor(3.0)
    text = refusal(tmp_path / "a.safetensors", tensors, record)
    assert "backbone.bn1.num_batches_tracked is of torch.float32 instead of torch.int64" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model/classifier.bias", "optimizer/x", "average/x"])
def test_no_number_is_refused_in_every_part(tmp_path, content, name, value):
    tensors, record = content
    tensors[name] = torch.tensor([0.0, value])
    assert f"has NaN or infinite values in {name}" in refusal(tmp_path / "a.safetensors", tensors, record)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model/x", torch.zeros(1), "x is not known"),
        ("other/x", torch.zeros(1), "holds other/x, which this release does not know"),
        ("scaler/x", torch.zeros(1), "holds scaler/x, which this release does not know"),
        ("average_state/classifier.bias", torch.zeros(19), "holds average_state/classifier.bias, which this release"),
        ("model/x\ny", torch.zeros(1), "x\\ny is not known"),
        ("model/x", torch.zeros(1, dtype=torch.complex64), "holds model/x of torch.complex64"),
        ("model/x", torch.zeros(1, dtype=torch.float8_e4m3fn), "holds model/x of torch.float8_e4m3fn"),
        ("average/x", torch.zeros(1), "is missing"),
        ("average_state/num_averaged", torch.tensor(3), "is missing"),
    ],
)
def test_more_than_there_is_in_a_model(tmp_path, content, name, value, message):
    tensors, record = content
    assert message in refusal(tmp_path / "a.safetensors", {**tensors, name: value}, record)


def test_network_of_another_type_is_not_saved(tmp_path, tiny_config):
    network = segmenter.DeepLabV3(tiny_config).half()
    with pytest.raises(InputError, match=r"the network is of torch.float16; call .float\(\) before it is saved"):
        network.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def bytes_taken(work):
    """The most memory that a function takes, in a process of its own, whose peak is not that of all tests before."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not use
        child = os.fork()
    if child == 0:
        code = 1
        try:
            ctypes.CDLL(None).malloc_trim(0)  # what tests before have left free would be taken from without being seen
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            work()
            taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
            os.write(sender, str(taken).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(sender)
    with os.fdopen(receiver) as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    return int(answer)


def test_file_without_a_record_is_refused(small):
    metadata = {"format": FORMAT, "version": VERSION, "sha256": digest(SMALL, "")}
    small.write_bytes(safetensors.torch.save(SMALL, metadata))
    with pytest.raises(CheckpointError, match="small.safetensors"):
        read_checkpoint(small)


def test_file_that_is_replaced_while_it_is_read_is_the_old_one(small, monkeypatch):
    """As training does with the last checkpoint while it is evaluated."""
    read_bytes = Path.read_bytes

    def read_and_replace(path):
        content = read_bytes(path)
        write_checkpoint(path, {"model/a": torch.zeros(2)}, {})
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_replace)
    assert read_checkpoint(small).record == RECORD


def test_weights_of_another_network_take_no_memory(tmp_path, content):
    """A few bytes that describe a network of gigabytes."""
    tensors, record = content

    def work(width=2**14):
        described = {**record["model"], "width": width, "backbone": "resnet152"}
        text = refusal(tmp_path / "a.safetensors", tensors, {**record, "model": described})
        assert "belongs to another model" in text

    work(width=32)  # imports what torch needs for it
    assert bytes_taken(work) < 10**8


def test_reading_takes_twice_the_file(tmp_path):
    path = tmp_path / "large.safetensors"
    write_checkpoint(path, {f"model/{number}": torch.full((2**20,), float(number)) for number in range(50)}, {})
    assert path.stat().st_size < bytes_taken(lambda: read_checkpoint(path)) < 2 * path.stat().st_size + 10**8


@pytest.mark.slow
def test_no_random_flip_of_a_full_size_file_loads(tmp_path):
    """ResNet-18 with momentum; nearly all flips lie in its tensors, others in each run."""
    torch.manual_seed(0)
    seed = int.from_bytes(os.urandom(4), "big")
    config = ModelConfig(backbone="resnet18")
    network, generator = DeepLabV3(config), random.Random(seed)
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"optimizer/{name}": torch.randn_like(value) for name, value in network.named_parameters()}
    path = tmp_path / "full.safetensors"
    write_checkpoint(path, tensors, {"model": to_record(config), "labels": CITYSCAPES.to_dict()})
    size = path.stat().st_size
    with path.open("r+b") as file:
        start, trials = time.monotonic(), 0
        while time.monotonic() - start < FLIP_SECONDS:
            position, mask = generator.randrange(size), 1 << generator.randrange(8)
            file.seek(position)
            byte = file.read(1)[0]
            _put(file, position, byte ^ mask)
            with pytest.raises(CheckpointError):
                read_checkpoint(path)
            _put(file, position, byte)
            trials += 1
    assert digest(read_checkpoint(path).tensors, "") == digest(tensors, "")  # and not for another reason
    print(f"seed {seed}: {trials} flips of {size:,} bytes, none loaded")


def _put(file, position, byte):
    file.seek(position)
    file.write(bytes([byte]))
    file.flush()
