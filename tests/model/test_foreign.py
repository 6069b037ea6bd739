import argparse
import io
import json
import sys
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from deeplabv3.model import foreign
from deeplabv3.model.foreign import read_foreign
from deeplabv3.model.unpickling import contents
from deeplabv3.model.unpickling.convert import convert
from deeplabv3.model.unpickling.pickles import requested_names
from tests.model import hostile

WEIGHTS = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.tensor([1.0, -2.0])}


@pytest.fixture(autouse=True)
def here(request, monkeypatch):
    """Unpickle in this process; tests marked `apart` take a process of its own, as users do."""
    if "apart" not in request.fixturenames:
        monkeypatch.setattr(foreign, "unpickle", convert)


@pytest.fixture
def apart():
    """Unpickle in a process of its own."""


@pytest.fixture
def read(tmp_path):
    """Save a value and read it."""

    def save_and_read(value, **options):
        torch.save(value, tmp_path / "a.pth", **options)
        return read_foreign(tmp_path / "a.pth")

    return save_and_read


@pytest.fixture
def read_bytes(tmp_path):
    """Read a file of this content."""

    def write_and_read(content):
        (tmp_path / "a.pth").write_bytes(content)
        return read_foreign(tmp_path / "a.pth")

    return write_and_read


def assert_same(found, expected=WEIGHTS):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype
        assert found[name].is_contiguous()
        assert not found[name].requires_grad


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_of_a_model(read, zipped):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    found = read(model.state_dict(), _use_new_zipfile_serialization=zipped)
    assert_same(found.tensors, model.state_dict())
    assert found.notes == {}


@pytest.mark.parametrize(
    "value",
    [
        {"state_dict": WEIGHTS, "meta": {"epoch": 3}},  # mmsegmentation
        {"cur_itrs": 30000, "model_state": WEIGHTS, "optimizer_state": {"state": {}, "param_groups": []}},  # VainF
        {
            "model": WEIGHTS,
            "optimizer": {"state": {0: {"a": torch.ones(1)}}, "param_groups": [{}]},
            "train_losses": [0.5],
        },
        {"state_dict": {f"module.{name}": value for name, value in WEIGHTS.items()}, "epoch": 174},  # NVIDIA
        {"model_state_dict": WEIGHTS, "loss": torch.tensor(0.1)},
        {"net": WEIGHTS, "acc": 0.9},
        {"params": OrderedDict(WEIGHTS)},
        {"model": {"module": WEIGHTS}, "ema": {"decay": torch.tensor(0.9)}},
        {"epoch": torch.tensor(3), "backbone_of_mine": WEIGHTS},
        {f"_orig_mod.module.{name}": value for name, value in WEIGHTS.items()},
        {name: nn.Parameter(value) for name, value in WEIGHTS.items()},
        WEIGHTS | {"epoch": 3},
    ],
)
def test_weights_are_found_in_what_programs_wrap_around_them(read, value):
    assert_same(read(value).tensors)


def test_known_names_come_before_more_tensors(read):
    more = {str(number): torch.ones(1) for number in range(9)}
    assert_same(read({"ema": more, "state_dict": WEIGHTS}).tensors)


def test_a_prefix_of_only_some_stays(read):
    value = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert read(value).tensors.keys() == value.keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", sorted(contents.ORDINARY, key=str))
def test_ordinary_types(read, dtype, zipped):
    value = {"w": torch.tensor([[0, 1], [1, 0]]).to(dtype), "none": torch.empty(0, 3, dtype=dtype)}
    assert_same(read(value, _use_new_zipfile_serialization=zipped).tensors, value)


@pytest.mark.parametrize("zipped", [True, False])
def test_views_and_tied_weights(read, zipped):
    whole = torch.arange(24.0)
    value = {
        "whole": whole,
        "tied": whole,
        "transposed": whole.reshape(4, 6).t(),
        "part": whole[4:8],
        "expanded": torch.ones(1).expand(5),
        "number": torch.tensor(3),
    }
    assert_same(read(value, _use_new_zipfile_serialization=zipped).tensors, value)


def test_gradients_and_hooks_are_left_behind(read):
    weight = nn.Parameter(torch.ones(2))
    assert_same(read({"w": weight}).tensors, {"w": torch.ones(2)})


def test_notes_beside_the_weights(read):
    meta = {
        "config": "model = dict(type='EncoderDecoder')\n",
        "mmseg_version": "0.16.0",
        "CLASSES": ("road", "sidewalk"),
        "PALETTE": [[128, 64, 128], [244, 35, 232]],
        "dataset_meta": {"classes": ("road",)},
        "too_long": "x" * (contents.MAX_NOTE + 1),
        "too_many": [[0] * 101],
        "half_a_letter": "\ud800",
        "hooks": {"a", "b"},
    }
    notes = read(
        {"meta": meta, "state_dict": WEIGHTS, "epoch": 40, "best": 0.5, "optimizer": {"param_groups": [1]}}
    ).notes
    assert notes == {
        "meta.config": meta["config"],
        "meta.mmseg_version": "0.16.0",
        "meta.CLASSES": '["road", "sidewalk"]',
        "meta.PALETTE": "[[128, 64, 128], [244, 35, 232]]",
        "meta.dataset_meta.classes": '["road"]',
        "epoch": "40",
        "best": "0.5",
    }


def test_notes_have_room_for_eight_mebibytes(read):
    value = {"state_dict": WEIGHTS} | {f"n{number}": "x" * (1 << 20) for number in range(12)}
    assert sum(len(note) for note in read(value).notes.values()) == 7 << 20


def test_safetensors_by_content(tmp_path):
    path = tmp_path / "weights.bin"
    safetensors.torch.save_file({f"module.{name}": value for name, value in WEIGHTS.items()}, path, {"format": "pt"})
    found = read_foreign(path)
    assert_same(found.tensors)
    assert found.notes == {"format": "pt"}
    path.write_bytes(bytes(path.stat().st_size))  # what was read does not depend on the file any more
    assert_same(found.tensors)


def test_torch_file_under_the_name_of_another_format(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.safetensors")
    assert_same(read_foreign(tmp_path / "a.safetensors").tensors)


@pytest.fixture
def mmengine(monkeypatch):
    """Classes as in mmengine and mmcv, there while a file is written and gone when it is read."""

    class HistoryBuffer:
        def __init__(self):
            self._log_history = np.array([0.5, 0.25])
            self._statistics_methods = {"min": HistoryBuffer.minimum}

        def minimum(self):
            return self._log_history.min()

    class ConfigDict(dict[str, object]):
        pass

    modules = {"mmengine.logging.history_buffer": HistoryBuffer, "mmengine.config.config": ConfigDict}
    for name, item in modules.items():
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            package = ".".join(parts[:end])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        item.__module__, item.__qualname__ = name, item.__name__
        setattr(sys.modules[name], item.__name__, item)
    HistoryBuffer.minimum.__module__ = HistoryBuffer.__module__
    HistoryBuffer.minimum.__qualname__ = "HistoryBuffer.minimum"
    yield HistoryBuffer, ConfigDict
    assert not any(name.startswith("mmengine") for name in sys.modules)


def mmengine_checkpoint(history, config):
    return {
        "meta": {"mmengine_version": "0.10.4", "cfg": "a = 1", "dataset_meta": config(classes=("road", "car"))},
        "message_hub": {"log_scalars": OrderedDict({"train/loss": history()}), "lr": defaultdict(list, a=[0.1])},
        "state_dict": OrderedDict(WEIGHTS),
        "param_schedulers": [{"milestones": Counter([3, 4]), "best": np.float64(0.5), "count": np.int64(3)}],
        "args": argparse.Namespace(work_dir=Path("work"), device=torch.device("cpu")),
        "dtypes": [torch.float32, torch.Size([2, 3])],
    }


def test_metadata_of_mmengine(mmengine, tmp_path, monkeypatch, apart):
    torch.save(mmengine_checkpoint(*mmengine), tmp_path / "iter_80000.pth")
    names = requested_names(io.BytesIO(pickle_of(tmp_path / "iter_80000.pth")))
    assert {"builtins.getattr", "mmengine.logging.history_buffer.HistoryBuffer", "numpy.dtype"} <= set(names)
    monkeypatch.undo()  # mmengine is not there any more
    found = read_foreign(tmp_path / "iter_80000.pth")
    assert_same(found.tensors)
    assert found.notes["meta.cfg"] == "a = 1"
    assert json.loads(found.notes["meta.dataset_meta.classes"]) == ["road", "car"]


def pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(f"{path.stem}/data.pkl")


def test_metadata_is_not_imported_or_called(read_bytes):
    """The names stand for nothing, whatever is done with them."""
    calls = b"".join(
        [
            hostile.text("called") + hostile.call("mmengine.anything", "run", "a", "b") + b"s",
            hostile.text("made") + hostile.name("mmcv", "Made") + b")\x81}" + hostile.text("a") + b"K\x01sbs",
            hostile.text("method") + hostile.name("builtins", "getattr") + b"(" + hostile.name("mmseg", "C") + b"NtRs",
            hostile.text("dictionary")
            + hostile.name("addict.addict", "Dict")
            + b")\x81"
            + hostile.text("a")
            + b"K\x01ss",
        ]
    )
    before = set(sys.modules)
    found = read_bytes(hostile.archive(hostile.state(more=calls)))
    assert found.tensors.keys() == {"w"}
    assert found.notes == {"dictionary.a": "1"}
    assert not any(name.startswith(("mm", "addict")) for name in set(sys.modules) - before)


def test_attributes_of_a_dictionary_do_not_stand_for_its_methods(read_bytes):
    """An OrderedDict may carry attributes; here they would answer in place of `items` and `get`."""
    attributes = b"".join(
        hostile.text(name) + hostile.name("torch", "device") + b"s" for name in ("items", "get", "keys")
    )
    ordered = hostile.name("collections", "OrderedDict") + b")R}" + attributes + b"b"
    pickled = hostile.PROTO2 + ordered + hostile.text("w") + hostile.SAFE_TENSOR + b"s."
    assert read_bytes(hostile.archive(pickled)).tensors.keys() == {"w"}
