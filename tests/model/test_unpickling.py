import io
import os
from collections import Counter

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deeplabv3.errors import CheckpointError
from deeplabv3.model import foreign
from deeplabv3.model.foreign import read_foreign
from deeplabv3.model.unpickling import Refused, contents
from deeplabv3.model.unpickling.containers import Layout, inspect
from deeplabv3.model.unpickling.convert import Storages, convert, open_regular
from deeplabv3.model.unpickling.pickles import requested_names
from tests.model import hostile

WEIGHTS = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.tensor([1.0, -2.0])}


@pytest.fixture
def read_bytes(tmp_path, monkeypatch):
    """Read a file of this content; it is unpickled in this process."""
    monkeypatch.setattr(foreign, "unpickle", convert)

    def write_and_read(content):
        (tmp_path / "a.pth").write_bytes(content)
        return read_foreign(tmp_path / "a.pth").tensors

    return write_and_read


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(2).to_sparse(), "has w as a sparse, quantised or unusual tensor"),
        (torch.ones(2).as_subclass(nn.Buffer), "has w as a sparse, quantised or unusual tensor"),
        (torch.ones(2, dtype=torch.complex64), r"has w of type torch\.complex64"),
        (torch.ones(2, dtype=torch.uint16), r"has w of type torch\.uint16"),
        (torch._neg_view(torch.ones(2)), r"has w of type torch\.float32"),
        (torch.empty(2, device="meta"), "has w without values in the file"),
    ],
)
def test_tensors_are_checked_again_after_reading(value, message):
    with pytest.raises(Refused, match=message):
        contents.plain_tensors({"w": value}, 1000)


@pytest.mark.parametrize("name", ["a\nb", "a" * 1001, 3, "\ud800"])
def test_name_of_a_tensor_is_plain_text(name):
    with pytest.raises(Refused, match="has a tensor whose name is no plain text"):
        contents.plain_tensors({name: torch.ones(1)}, 1000)


def test_tensor_outside_its_storage():
    value = torch.arange(4.0).as_strided((2, 2), (2, 1))
    value.untyped_storage().resize_(8)
    with pytest.raises(Refused, match=r"has w of \(2, 2\), which is more than its storage holds"):
        contents.plain_tensors({"w": value}, 1000)


def test_too_many_tensors(monkeypatch, read_bytes):
    monkeypatch.setattr(contents, "MAX_ENTRIES", 1)
    monkeypatch.setattr(foreign, "MAX_ENTRIES", 1)
    for content in hostile.saved(WEIGHTS), safetensors.torch.save(WEIGHTS):
        with pytest.raises(CheckpointError, match=r"a\.pth holds 2 tensors, of at most 1"):
            read_bytes(content)


@pytest.mark.parametrize(
    ("layout", "good"),
    [
        (Layout([], Counter([16])), True),
        (Layout([], Counter([16, 400])), True),
        (Layout([], Counter([8])), False),
        (Layout([], Counter()), False),
        (Layout([], None, 1, 24), True),
        (Layout([], None, 2, 24), False),
        (Layout([], None, 1, 25), False),
    ],
)
def test_storages_are_those_of_the_file(layout, good):
    storages = Storages(100)
    storages.take(torch.ones(4).untyped_storage(), "cpu")
    if good:
        storages.require(layout)
    else:
        with pytest.raises(Refused, match="does not hold the values that its pickle describes"):
            storages.require(layout)


def test_storage_that_grew():
    storages = Storages(100)
    storages.take(torch.ones(4).untyped_storage(), "cpu").resize_(64)
    with pytest.raises(Refused, match="does not hold the values that its pickle describes"):
        storages.require(Layout([], Counter([16])))


def test_storages_are_at_most_the_file():
    storages = Storages(31)
    storages.take(torch.ones(4).untyped_storage(), "cpu")
    with pytest.raises(Refused, match="claims 32 bytes of values in 31 of its own"):
        storages.take(torch.ones(4).untyped_storage(), "cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_reading_process_does_not_wait_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(Refused, match="is no ordinary file"):
        open_regular(tmp_path / "a.pth")


def test_no_room_for_the_tensors(read_bytes, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(CheckpointError, match=r"\(\[Errno 28\] No space left on device\); make room for .* set TMPDIR"):
        read_bytes(hostile.saved(WEIGHTS))


@pytest.mark.parametrize("bits", [0xFF, *(pytest.param(1 << n, marks=pytest.mark.slow) for n in range(8))])
def test_changed_byte_never_changes_a_value(read_bytes, bits):
    content = hostile.saved(WEIGHTS)
    num_refused = 0
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= bits
        try:
            found = read_bytes(changed)
        except CheckpointError:
            num_refused += 1
        else:
            assert found.keys() == WEIGHTS.keys(), position
            assert all(torch.equal(found[name], value) for name, value in WEIGHTS.items()), position
    assert num_refused > len(content) / 3


@pytest.mark.parametrize("zipped", [True, False])
def test_every_length_but_the_whole_is_refused(read_bytes, zipped):
    content = hostile.saved(WEIGHTS, _use_new_zipfile_serialization=zipped)
    for length in range(len(content)):
        with pytest.raises(CheckpointError, match="a.pth"):
            read_bytes(content[:length])


FRAGMENTS = st.one_of(
    st.sampled_from([*b"(}])0t\x85\x86\x87\x88\x89NRbsuae.\x81Q"]).map(lambda code: bytes([code])),
    st.sampled_from([hostile.name("os", "system"), hostile.name("a.b", "c"), hostile.name("__builtin__", "eval")]),
    st.tuples(st.sampled_from(b"hqKU\x8a"), st.binary(max_size=6)).map(lambda parts: bytes([parts[0]]) + parts[1]),
    st.tuples(st.sampled_from(b"XjrJ"), st.binary(max_size=6)).map(lambda parts: bytes([parts[0]]) + parts[1]),
    st.text(max_size=5).map(hostile.text),
    st.binary(max_size=5).map(lambda data: b"c" + data),
    st.binary(max_size=4),
)


@settings(max_examples=300)
@given(st.lists(FRAGMENTS, max_size=20))
def test_no_name_is_overlooked_that_torch_would_see(fragments):
    """torch's own list of a pickle's names is contained in ours, or ours refuses the pickle."""
    pickled = hostile.PROTO2 + b"".join(fragments) + b"."
    try:
        ours = requested_names(io.BytesIO(pickled))
    except Refused:
        return
    theirs = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(hostile.archive(pickled)))
    assert set(theirs) <= set(ours)


def test_layout_of_a_genuine_file():
    content = hostile.saved(WEIGHTS)
    layout = inspect(io.BytesIO(content), len(content))
    assert layout.storages == Counter([48, 8])
    assert set(layout.names) == {"torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "collections.OrderedDict"}
