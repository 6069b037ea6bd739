"""Whatever is wrong with an exported file is one error, and nothing that it says is run."""

import io
import json
import pickle
import zipfile

import pytest
import torch

from deeplabv3.cli import main
from deeplabv3.errors import CheckpointError
from deeplabv3.model.exported import ExportedModel, open_exported, read_exported
from deeplabv3.model.programs import NotPlainError, load_program
from deeplabv3.model.sealed import RECORD_FILE, sealed_onnx, sealed_zip

GRAPH = "archive/models/model.json"
CONV = '"torch.ops.aten.conv2d.default"'
WEIGHTS = "archive/data/weights/model_weights_config.json"


@pytest.fixture(params=["labels_onnx", "probabilities_pt2"])
def exported(request):
    return request.getfixturevalue(request.param)


def read(path, content, name="changed"):
    other = path.with_name(name + path.suffix)
    other.write_bytes(content)
    return read_exported(other, ExportedModel)


def test_every_kind_of_byte_is_covered(exported, rng):
    content = exported.read_bytes()
    places = [0, 1, len(content) - 1, len(content) - 64, len(content) - 65, *rng.integers(0, len(content), 30)]
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(CheckpointError, match="is damaged or cut off: its SHA-256 does not fit"):
            read(exported, bytes(changed))


def test_every_cut_is_found(exported, rng):
    content = exported.read_bytes()
    for length in (0, 1, 63, 64, 65, len(content) - 1, len(content) - 64, *rng.integers(0, len(content), 20)):
        with pytest.raises(CheckpointError, match="cut off"):
            read(exported, content[:length])
    with pytest.raises(CheckpointError, match="cut off"):
        read(exported, content + b"\0")


def test_file_of_another_program_is_refused(labels_onnx, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(labels_onnx)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    (tmp_path / "x.png").touch()
    words = ["predict", tmp_path / "x.png", "--model", tmp_path / "foreign.onnx", "--out", tmp_path / "out"]
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "foreign.onnx has no record of deeplabv3 export: another program wrote it, or it is cut off" in error


def test_record_of_another_release_is_refused(labels_onnx):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(labels_onnx)
    del model.metadata_props[:]
    content = sealed_onnx(model.SerializeToString(), json.dumps({"version": 99}))
    with pytest.raises(CheckpointError, match="format version 99; this release reads 1: update deeplabv3"):
        open_exported(content, labels_onnx, ExportedModel)


def test_digest_fits_what_is_no_model(tmp_path):
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(CheckpointError, match="cannot be opened"):
            read(tmp_path / f"x{suffix}", sealed_onnx(b"none", "{}"))


def changed_zip(content, changes):
    """A sealed copy of a .pt2 file with other or more members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(out, "w") as copy:
        members = {name: archive.read(name) for name in archive.namelist()} | changes
        for name, value in members.items():
            copy.writestr(name, value)
    return sealed_zip(out.getvalue())


class Payload:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def texts(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(GRAPH).decode(), archive.read(WEIGHTS).decode()


def test_unchanged_copy_is_read(probabilities_pt2, program_model):
    _, record = load_program(changed_zip(probabilities_pt2.read_bytes(), {}))
    assert json.loads(record) == program_model.record


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"torch.ops.aten.conv2d.default"', '"torch.hub.load"', "the operator 'torch.hub.load'"),
        ('"torch.ops.aten.conv2d.default"', '"torch.ops.aten.conv2d.__class__.x"', "the operator"),
        ('"torch.ops.aten.conv2d.default"', '"os.system"', "the operator 'os.system'"),
        ('"_operator.', '"_operator.attrgetter', "the operator '_operator.attrgetter"),
        (CONV, '"torch.ops.aten.from_file.default"', "the operator 'torch.ops.aten.from_file.default'"),
        (CONV, '"torch.ops.aten.conv2d.__class__"', "the operator"),
        ('"expr_str": "', '"expr_str": "__import__(chr(111)) + ', "the size .__import__"),
        ('"expr_str": "', '"expr_str": "' + json.dumps(r"Max('\137\137', 1) + ")[1:-1], "the size"),
        ('"expr_str": "', '"expr_str": "9**9**9 + ', "the size"),
        ('"name": "image"', '"name": "image, x=print(1)"', "the name 'image, x=print"),
        ('"type": "cpu"', '"type": "cpu; x"', "the type 'cpu; x'"),
        ('"as_int": 1}', '"as_operator": "os.system"}', "the field 'as_operator'"),
        ('"metadata": {}', '"metadata": {"custom": "1"}', "custom of a node"),
        (
            r"\"context\": \"null\"",
            r"\"context\": \"{\\\"__enum__\\\": true, \\\"fqn\\\": \\\"this:s\\\"}\"",
            "another in_spec",
        ),
    ],
    ids=[
        "hub",
        "dunder",
        "os",
        "operator",
        "file",
        "class",
        "size",
        "octal",
        "power",
        "name",
        "device",
        "field",
        "note",
        "tree",
    ],
)
def test_program_that_says_more_is_refused(probabilities_pt2, old, new, message):
    content = probabilities_pt2.read_bytes()
    graph, _ = texts(content)
    assert old in graph
    with pytest.raises(NotPlainError, match=message):
        load_program(changed_zip(content, {GRAPH: graph.replace(old, new)}))


def test_guards_are_not_run(probabilities_pt2, program_model, monkeypatch):
    """Whatever they say: what is looked at and given to torch has none."""
    content = probabilities_pt2.read_bytes()
    graph = json.loads(texts(content)[0])
    assert graph["guards_code"]
    graph["guards_code"] = ["1/0"]
    given: list[bytes] = []
    load = torch.export.load

    def seen(file, **rest):
        given.append(file.getvalue())
        return load(file, **rest)

    monkeypatch.setattr(torch.export, "load", seen)
    _, record = load_program(changed_zip(content, {GRAPH: json.dumps(graph)}))
    assert json.loads(record) == program_model.record
    assert "guards_code" not in json.loads(texts(given[0])[0])


def test_pickles_are_refused_unread(probabilities_pt2, tmp_path):
    content, trace = probabilities_pt2.read_bytes(), tmp_path / "trace"
    pickled = pickle.dumps(Payload(trace))
    _, weights = texts(content)
    marked = weights.replace('"use_pickle": false', '"use_pickle": true', 1)
    for changes in (
        {"archive/data/weights/weight_0": pickled, WEIGHTS: marked},
        {"archive/data/sample_inputs/model.pt": pickled},
        {"archive/data/constants/custom_obj_0": pickled},
        {"archive/data/aotinductor/model/x.so": b""},
    ):
        changed = changed_zip(content, changes)
        with pytest.raises(NotPlainError):
            load_program(changed)
        with pytest.raises(CheckpointError, match="cannot be opened"):
            open_exported(changed, probabilities_pt2, ExportedModel)
    assert not trace.exists()


def two_in_one(seen, hidden):
    """One archive for who reads the table of contents before the end, one for who reads it where the end says it is."""
    table, hidden_table = (int.from_bytes(content[-6:-2], "little") for content in (seen, hidden))
    moved, place = bytearray(seen[:-22]), table
    while place < len(moved):
        offset = int.from_bytes(moved[place + 42 : place + 46], "little") + hidden_table - table
        moved[place + 42 : place + 46] = offset.to_bytes(4, "little")
        place += 46 + sum(int.from_bytes(moved[place + at : place + at + 2], "little") for at in (28, 30, 32))
    return hidden[:-22] + bytes(moved) + hidden[-22:]


def test_archive_that_torch_alone_would_see_is_not_read(probabilities_pt2, program_model, tmp_path):
    plain = probabilities_pt2.read_bytes()
    marked = texts(plain)[1].replace('"use_pickle": false', '"use_pickle": true', 1) + 100_000 * " "
    pickled = pickle.dumps(Payload(tmp_path / "trace"))
    hostile = changed_zip(plain, {"archive/data/weights/weight_0": pickled, WEIGHTS: marked})
    content = two_in_one(*(archive[:-66] + b"\0\0" for archive in (changed_zip(plain, {}), hostile)))
    reader = torch._C.PyTorchFileReader(io.BytesIO(content))
    assert reader.get_record("data/weights/weight_0") == pickled
    _, record = load_program(sealed_zip(content))
    assert json.loads(record) == program_model.record
    assert not list(tmp_path.iterdir())


def test_program_holds_no_pickle(probabilities_pt2):
    with zipfile.ZipFile(probabilities_pt2) as archive:
        assert not [name for name in archive.namelist() if archive.read(name)[:2] in (b"\x80\x02", b"PK")]
        assert archive.getinfo("archive/data/sample_inputs/model.pt").file_size == 0
        assert f"archive/extra/{RECORD_FILE}" in archive.namelist()
