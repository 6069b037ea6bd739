import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from deeplabv3.errors import CheckpointError
from deeplabv3.model import foreign
from deeplabv3.model.foreign import read_foreign
from deeplabv3.model.unpickling import Refused
from deeplabv3.model.unpickling.limits import FORBIDDEN_EXIT
from tests.conftest import REPOSITORY
from tests.model import hostile

# What the message says -> the files it is said of. Together they are all.
EXPECTED = {
    "wants to run posix.system": "os_system_protocol_1 os_system_protocol_2 os_system_protocol_3 os_system_legacy",
    "wants to run os.system": "os_system_beside_weights",
    "wants to run builtins.eval": "call_eval call_eval_python_2",
    "wants to run builtins.exec": "call_exec",
    "wants to run builtins.__import__": "call_import call_getattr_chain",
    "wants to run builtins.bytearray": "bytearray_bomb",
    "wants to run subprocess.Popen": "call_popen_new_object",
    "wants to run subprocess.getoutput": "call_commands_python_2",
    "wants to run torch.": "call_load_from_bytes call_torch_load call_torch_hub call_name_with_dots",
    "wants to run numpy.testing._private.utils.runstring": "call_numpy_runstring",
    "is no name of Python's": "call_name_with_a_space call_name_with_escapes call_name_of_other_letters",
    "uses the pickle instruction DICT": "os_system_protocol_0",
    "uses the pickle instruction FRAME": "os_system_protocol_4 os_system_protocol_5 popen_protocol_4",
    "uses the pickle instruction STACK_GLOBAL": "call_stack_global",
    "uses the pickle instruction INST": "call_inst",
    "uses the pickle instruction OBJ": "call_obj",
    "uses the pickle instruction LONG4": "huge_long4",
    "uses the pickle instruction BINBYTES8": "huge_binbytes8",
    "uses the pickle instruction EXT1": "call_extension_code",
    "unrecognized function an inert object": "call_of_an_inert_object call_allowed_names_alone",
    "is a pickle that torch.save did not write": (
        "bare_pickle_protocol_2 bare_pickle_protocol_4 program_in_the_magic_number"
    ),
    "asks for names of Python's outside its weights": "program_in_the_system_info",
    "has no list of its storages": "program_in_the_keys legacy_keys_of_no_effect",
    "is a whole pickled model": "whole_model whole_model_legacy",
    "is cut off or damaged": ("huge_text no_pickle no_stop legacy_cut_in_the_pickle"),
    "is cut off after": "zip_cut_at_the_end zip_cut_in_half half_a_download",
    "leads out of its archive": "zip_leads_out zip_leads_to_the_root zip_backslash",
    "with an ambiguous name": "zip_zero_byte_in_a_name",
    "is a link or a folder": "zip_symlink zip_value_marked_as_a_folder",
    "has a compressed entry": "zip_compressed_bomb",
    "has an encrypted or patched entry": "zip_encrypted",
    "has two entries of one name": "program_in_a_second_pickle program_under_the_same_name_in_capitals",
    "lie in several folders": "zip_of_two_folders",
    "overlaps another": "zip_overlap zip_leading_bytes",
    "has bytes after the end of its archive": "zip_trailing_bytes",
    "does not fit its checksum": "zip_changed_value zip_other_local_name",
    "of another byte order": "zip_big_endian zip_no_byte_order",
    "is a TorchScript archive": "torchscript",
    "without the data.pkl of torch.save": "numpy_archive",
    "bytes of values, of at most": "shape_bomb_stride_0",
    "needs much more memory": "legacy_storage_bomb",
    "does not hold the values that its pickle describes": (
        "legacy_grown_storage legacy_values_left_out legacy_trailing_bytes"
    ),
    "cannot be read as weights": (
        "zip_without_a_storage storage_larger_than_its_record storage_smaller_than_its_record storage_of_negative_size "
        "shape_larger_than_storage shape_overflow negative_offset odd_arguments legacy_cut no_mark no_such_memo "
        "nothing_on_the_stack unhashable_name persistent_module persistent_number"
    ),
    "holds sparse tensors": "sparse_csr_false_indices sparse_coo",
    "holds quantised tensors": "quantised",
    "holds nested tensors": "nested",
    "holds complex tensors": "complex",
    "holds tensors without values": "meta",
    "holds tensors of an unusual kind": "float8 subclass call_rebuild_of_another",
    "of type F8_E4M3": "safetensors_float8",
    "has NaN or infinite values in w": "nan infinite safetensors_nan",
    "is damaged or cut off": "safetensors_cut safetensors_deep_header",
    "holds no tensors": "safetensors_empty",
    "holds a list of": "billion_laughs deep_lists list_in_itself list_of_tensors",
    "holds a tuple of": "deep_tuples",
    "holds one tensor of": "one_tensor",
    "holds an empty dictionary": "empty_dictionary",
    "without any tensor": "dictionary_in_itself huge_memo no_tensors",
    "names its tensors by something else": "numbers_as_names",
    "holds the state of an optimizer": "optimizer optimizer_wrapped",
    "is text": "html text bare_pickle_protocol_0",
    "is a pointer of Git LFS": "lfs_pointer",
    "is compressed with gzip": "gzip",
    "is a tar archive": "legacy_tar",
    "is of no known kind": "noise",
    "is empty": "empty",
}


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Every file read in one process that writes down what should not happen."""
    root = tmp_path_factory.mktemp("hostile")
    (root / "files").mkdir()
    (root / "temporary").mkdir()
    torch.save({"w": torch.ones(2)}, root / "genuine.pth")
    for name, content in hostile.payloads(str(root / "marker")).items():
        (root / "files" / name).write_bytes(content)
    command = [sys.executable, "-m", "tests.model.audited", root / "files", root / "marker"]
    variables = os.environ | {"TMPDIR": str(root / "temporary"), "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run(command, capture_output=True, cwd=REPOSITORY, env=variables, check=False)
    assert process.returncode == 0, process.stderr.decode()
    return json.loads(process.stdout) | {"root": root}


def test_nothing_is_run(audited):
    assert audited["events"] == []
    assert not audited["touched"]


def test_an_ordinary_reader_would_have_run_it_and_the_hook_hears_it(audited):
    assert any(event.startswith("os.system") for event in audited["control_events"])
    assert audited["control_touched"]


def test_names_alone_do_not_keep_a_program_out(tmp_path):
    """A file whose every name is allowed runs in a reader without `weights_only`, so that the hook guards that too."""
    (tmp_path / "a").write_bytes(hostile.programs(str(tmp_path / "marker"))["call_allowed_names_alone"])
    torch.load(tmp_path / "a", weights_only=False)
    assert (tmp_path / "marker").exists()


def test_every_file_is_one_kind_of_error_in_one_line_that_names_it(audited):
    assert len(audited["outcomes"]) >= 120
    for name, (kind, message) in audited["outcomes"].items():
        assert kind == "CheckpointError", (name, kind, message)
        assert message.startswith(f"{audited['root']}/files/{name} "), message
        assert message.isprintable(), message
        assert len(message) < 500, message


def test_message_says_what_was_recognised(audited):
    expected = {name: words for words, names in EXPECTED.items() for name in names.split()}
    assert expected.keys() == audited["outcomes"].keys()
    for name, words in expected.items():
        assert words in audited["outcomes"][name][1], name


def test_messages_never_advise_to_trust_the_file(audited):
    for _, message in audited["outcomes"].values():
        assert "weights_only=False" not in message
        assert "add_safe_globals" not in message


def test_nothing_is_left_behind(audited):
    assert not list((audited["root"] / "temporary").iterdir())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Write a file, with the temporary folder beside it empty before and after."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield lambda content: Path((tmp_path / "a.pth").write_bytes(content) and tmp_path / "a.pth")
    # torch makes an empty folder for its compiler when a process first needs it.
    assert not [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stack_overflow", "a.pth ended the reading process by signal 11; it is damaged or hostile"),
        ("endless", r"a.pth took more than 1 s of computing to read; it is damaged or hostile"),
        ("memory_bomb", "a.pth needs much more memory than its [0-9,]* bytes justify"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
def test_reading_process_takes_the_harm(place, monkeypatch, name, message):
    monkeypatch.setattr(foreign, "CPU_SECONDS", 1 if name == "endless" else 30)
    with pytest.raises(CheckpointError, match=message):
        read_foreign(place(hostile.crashes()[name]))


def test_program_is_refused_by_the_reading_process(place, tmp_path):
    marker = tmp_path / "marker"
    with pytest.raises(CheckpointError, match=r"a\.pth wants to run posix\.system, .* nothing of it was run"):
        read_foreign(place(hostile.programs(str(marker))["os_system_protocol_2"]))
    assert not marker.exists()


def test_time_runs_out(place, monkeypatch):
    monkeypatch.setattr(foreign, "START_SECONDS", 0)
    monkeypatch.setattr(foreign, "WAITING_FACTOR", 0.001)
    with pytest.raises(CheckpointError, match=r"a\.pth took more than 0 s to read; it is damaged or hostile"):
        read_foreign(place(hostile.saved({"w": torch.ones(1)})))


@pytest.mark.slow
def test_every_file_through_a_process_of_its_own(place, tmp_path):
    marker = tmp_path / "marker"
    for name, content in hostile.payloads(str(marker)).items():
        if content:
            with pytest.raises(CheckpointError, match=r"a\.pth ") as caught:
                read_foreign(place(content))
            assert "signal" not in str(caught.value), name
    assert not marker.exists()


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.system('true')",
        "import os; os.execv('/bin/true', ['true'])",
        "import os; os.fork()",
        "import os; os.rename('a', 'b')",
        "import os; os.open('other', os.O_CREAT | os.O_WRONLY)",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "open('other', 'w')",
        "open('target', 'a'); open('other', 'a')",
    ],
)
def test_reading_process_is_ended_when_it_does_more(tmp_path, code):
    guard = "from pathlib import Path\nfrom deeplabv3.model.unpickling.limits import forbid_everything_else\n"
    code = f"{guard}forbid_everything_else(Path('target'))\n{code}"
    variables = {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, check=False)
    assert process.returncode == FORBIDDEN_EXIT
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("bytearray(400 << 20)", "MemoryError"),
        ("open('a', 'wb').write(bytes(20 << 20))", "File too large"),
        ("[open('/dev/null') for _ in range(100)]", "Too many open files"),
    ],
)
def test_limits_hold(tmp_path, code, error):
    code = f"from deeplabv3.model.unpickling.limits import set_limits\nset_limits(1000, 5)\na = {code}"
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, check=False
    )
    assert error in process.stderr.decode()


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (-signal.SIGKILL, b"", "ended the reading process by signal 9"),
        (FORBIDDEN_EXIT, b"", "tried to start a program, to connect or to write a file, and was stopped"),
        (1, b"", "with status 1 and no answer; see whether `import torch` works"),
        (0, b"[]", "with status 0 and no answer"),
        (0, b'{"refused": "is\\nno\\u001b[31m file"}', "is no"),
        (3, b"{}", "failed with status 3"),
    ],
)
def test_end_of_the_reading_process(status, answer, message):
    with pytest.raises(Refused) as caught:
        foreign.require_success(status, answer, 30)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_reading_process_gets_no_keys(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "abc")
    assert "SECRET_TOKEN" not in foreign.environment()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth is a pipe or a device; give an ordinary file of weights"):
        read_foreign(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder; give the file of weights in it"),
        ("missing.pth", "missing.pth cannot be read: No such file or directory; give the path of a file of weights"),
        ("zero.pth", "zero.pth is a pipe or a device"),
        ("huge.pth", "huge.pth has 5,368,709,120 bytes, of at most 4,294,967,296; save the weights alone"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, name, message):
    (tmp_path / "zero.pth").symlink_to("/dev/zero")
    with (tmp_path / "huge.pth").open("wb") as file:
        file.truncate(5 << 30)
    with pytest.raises(CheckpointError, match=message):
        read_foreign(tmp_path / name)
