"""Where the guards before foreign weights draw the line: the last that passes, and the first that does not."""

import io
import os
import zipfile
from collections import Counter

import pytest
import torch

from deeplabv3.model.unpickling import Refused, containers, contents, one_line, shown
from deeplabv3.model.unpickling.contents import find_notes, find_weights, plain_tensors, without_prefix
from deeplabv3.model.unpickling.convert import Storages, convert
from deeplabv3.model.unpickling.instructions import instructions, take
from deeplabv3.model.unpickling.pickles import StandIn, count_texts, modern_name, requested_names, stand_ins
from tests.model import hostile

ONE = torch.ones(1)
WEIGHTS = {"w": ONE}


def nested(value, *names):
    for name in reversed(names):
        value = {name: value}
    return value


def why(check, *arguments):
    """What a check says, or "" if it passes."""
    try:
        check(*arguments)
    except Refused as refused:
        return str(refused)
    return ""


def test_weights_are_three_levels_down_at_most():
    for names in (("a", "b", "c"), ("model", "net", "module")):
        assert find_weights(nested(WEIGHTS, *names)) == WEIGHTS
        assert "without any tensor" in why(find_weights, nested(WEIGHTS, *names, "d"))


def test_state_of_an_optimizer_is_never_taken_for_weights():
    optimizer = {"param_groups": [], "state": {0: WEIGHTS}, "v": ONE, "w": ONE}
    for root in ({"model": optimizer, "a": WEIGHTS}, {"a": WEIGHTS, "b": optimizer}):
        assert find_weights(root) == WEIGHTS
    assert "holds the state of an optimizer" in why(find_weights, optimizer)
    assert "holds the state of an optimizer" in why(find_weights, {"state_dict": optimizer})


@pytest.mark.parametrize(
    ("root", "kind"), [(ONE, "one tensor of (1,)"), ([1, 2], "a list of 2"), (3, "one int"),
                       (StandIn(), "an object of another program")]
)  # fmt: skip
def test_what_is_no_dictionary_is_told(root, kind):
    assert why(find_weights, root).startswith(f"holds {kind} instead of weights by name; ")


def test_known_names_within_known_names_are_taken():
    assert find_weights({"model": {"v": ONE, "state_dict": WEIGHTS}}) == WEIGHTS
    assert find_weights({"model": {"v": ONE, "state_dict": {}}}) == {"v": ONE, "state_dict": {}}


def test_dictionary_in_itself_is_gone_through_once():
    root: dict[str, object] = {"a": WEIGHTS}
    root["b"] = root
    assert find_weights(root) == WEIGHTS
    assert list(contents.mappings(root, 3, set())) == [root, WEIGHTS]
    root["epoch"] = 3
    assert find_notes(root, WEIGHTS) == {"epoch": "3"}


def test_most_tensors_of_a_file():
    tensors = {f"{number}": ONE for number in range(20_000)}
    assert why(plain_tensors, tensors, 80_000) == ""
    assert "claims 80,000 bytes of values, of at most 79,999" in why(plain_tensors, tensors, 79_999)
    assert "holds 20,001 tensors, of at most 20,000" in why(plain_tensors, {**tensors, "more": ONE}, 1 << 20)


def test_longest_name_of_a_tensor():
    assert why(plain_tensors, {"a" * 1_000: ONE}, 4) == ""
    assert "no plain text" in why(plain_tensors, {"a" * 1_001: ONE}, 4)


@pytest.mark.parametrize(("shape", "steps", "start", "good"), [
    ((2, 2), (2, 1), 0, True), ((2, 2), (2, 1), 1, False), ((2, 2), (3, 1), 0, False), ((0, 9), (9, 1), 9, True),
    ((4,), (1,), 0, True), ((3,), (1,), 1, True), ((3,), (1,), 2, False),
])  # fmt: skip
def test_tensor_lies_within_its_storage(shape, steps, start, good):
    value = torch.arange(99.0).as_strided(shape, steps, start)
    value.untyped_storage().resize_(16)
    assert ("more than its storage holds" in why(plain_tensors, {"w": value}, 1_000)) != good


def test_tensors_have_memory_of_their_own():
    whole = torch.arange(6.0)
    assert plain_tensors({"a": whole}, 24)["a"].data_ptr() == whole.data_ptr()
    found = plain_tensors({"a": whole[:3], "b": whole, "c": whole, "d": whole.reshape(2, 3).t()}, 1_000)
    assert len({value.untyped_storage().data_ptr() for value in found.values()}) == 4
    assert all(value.untyped_storage().nbytes() == value.numel() * 4 for value in found.values())


def test_prefixes_go_where_all_names_have_them():
    assert without_prefix({"module._orig_mod.module.a": ONE, "module._orig_mod.module.b": ONE}).keys() == {"a", "b"}
    assert without_prefix({"module.a": ONE, "b": ONE}).keys() == {"module.a", "b"}
    assert without_prefix({}) == {}


def test_keys_are_told_as_far_as_they_are_text():
    root = {"a": 1, 3: 2, ("b",): 3, "c\n": 4, "d": 5, "e": 6}
    assert why(find_weights, root).startswith(r"holds a dictionary (a, int, tuple, c\n, d) without any tensor; ")


def test_file_that_cannot_be_opened_says_why(tmp_path):
    said = why(convert, tmp_path / "none", tmp_path / "b")
    assert said == "cannot be read: No such file or directory; check its permissions"


@pytest.mark.parametrize(("value", "kept"), [
    ("x" * (1 << 20), True), ("x" * ((1 << 20) + 1), False), ("\u00e4" * ((1 << 19) + 1), False),
    ([0] * 1_000, True), ([0] * 1_001, False), ([[0] * 100], True), ([[0] * 101], False), ([[[0]]], False),
    (["x" * 200], True), (["x" * 201], False), (b"x", False), (None, False), (True, True), (0.5, True),
    (("a", (1, 2)), True), ({"a"}, False), ("\ud800", False),
])  # fmt: skip
def test_what_is_noted_is_short(value, kept):
    assert (find_notes({"a": value, "w": WEIGHTS}, WEIGHTS) != {}) == kept


def test_most_notes_of_a_file():
    def num_found(notes):
        return len(find_notes(notes | {"w": WEIGHTS}, WEIGHTS))

    assert num_found({f"{number}": 1 for number in range(1_001)}) == 1_000
    full = {f"{number}": "x" * ((1 << 20) - 1) for number in range(8)}  # with their names, eight mebibytes
    assert num_found(full) == 8
    assert num_found({**full, "7": "x" * (1 << 20)}) == 7
    assert num_found({"a" * 1_000: 1, "a" * 1_001: 1, "a\n": 1, 3: 1}) == 1


def test_notes_are_three_levels_down_at_most():
    assert find_notes(nested(1, "a", "b", "c"), WEIGHTS) == {"a.b.c": "1"}
    assert find_notes(nested(1, "a", "b", "c", "d"), WEIGHTS) == {}
    shared = {"x": 1}
    assert find_notes({"a": shared, "b": shared, "o": {"param_groups": 1, "y": 2}}, WEIGHTS) == {"a.x": "1"}
    assert find_notes({"w": 1}, WEIGHTS) == find_notes(root := {"w": 1}, root) == {"w": "1"}


def test_storages_may_be_as_large_as_the_file():
    storages = Storages(32)
    for _ in range(2):
        storages.take(torch.ones(4).untyped_storage(), "cpu")
    storages.require(containers.Layout([], Counter([16, 16])))


def test_values_may_be_twice_the_file_and_a_mebibyte(tmp_path):
    path = tmp_path / "a.pth"
    size = len(hostile.saved({"w": torch.ones(1, dtype=torch.uint8).expand(2_000_000)}))
    for more, wanted in ((0, ""), (1, "bytes of values, of at most")):
        value = torch.ones(1, dtype=torch.uint8).expand(2 * size + (1 << 20) + more)
        path.write_bytes(hostile.saved({"w": value}))
        assert path.stat().st_size == size
        assert wanted in (said := why(convert, path, tmp_path / "b")), said
        assert bool(said) == bool(wanted)


def test_what_torch_would_warn_of_is_read_in_silence(tmp_path):
    """Of another protocol, for instance, whose instructions are those of the second all the same."""
    (tmp_path / "a").write_bytes(hostile.archive(b"\x80\x03" + hostile.state()[2:]))
    assert why(convert, tmp_path / "a", tmp_path / "b") == ""


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 5])
def test_bytes_are_taken_up_to_the_end_of_a_file(size):
    data = os.urandom(size)
    assert take(io.BytesIO(data), size) == take(io.BytesIO(data + b"more"), size) == data
    assert "its pickle ends too early" in why(take, io.BytesIO(data), size + 1)


def test_instructions_are_taken_with_what_belongs_to_them():
    pickled = b"\x80\x02K\x05M\x06\x07J" + bytes(4) + b"G" + bytes(8) + b"U\x01a" + b"\x8a\x02bc" + b"X\x03\0\0\0abc"
    pickled += b"h\x01q\x02j" + bytes(4) + b"r" + bytes(4) + b"cos\nsystem\n.more"
    file = io.BytesIO(pickled)
    sizes = [(name, len(argument)) for name, argument in instructions(file)]
    assert sizes == [("PROTO", 1), ("BININT1", 1), ("BININT2", 2), ("BININT", 4), ("BINFLOAT", 8),
                     ("SHORT_BINSTRING", 1), ("LONG1", 2), ("BINUNICODE", 3), ("BINGET", 1), ("BINPUT", 1),
                     ("LONG_BINGET", 4), ("LONG_BINPUT", 4), ("GLOBAL", 10), ("STOP", 0)]  # fmt: skip
    assert file.read() == b"more"


def test_names_are_those_that_torch_would_see():
    assert modern_name(b"__builtin__\neval\n") == "builtins.eval"
    assert modern_name(b"__builtin__\nxrange\n") == "builtins.range"
    assert modern_name(b"commands\ngetoutput\n") == "subprocess.getoutput"
    assert modern_name(b"a.b\nc.d\n") == "a.b.c.d"
    assert requested_names(io.BytesIO(hostile.PROTO2 + b"ca\nb\nca\nb\nca\nc\n.")) == ["a.b", "a.c"]
    for lines in (b"a b\nc\n", b"a\nc", b"a\n\n", b"\xc3\na\n"):
        assert "no name of Python's" in why(modern_name, lines)


def test_texts_of_a_list_are_counted():
    def count(*texts):
        return count_texts(io.BytesIO(hostile.PROTO2 + b"](" + b"".join(map(hostile.text, texts)) + b"e."))

    assert [count(), count("a"), count("a", "b")] == [0, 1, 2]
    assert "no list of its storages" in why(count, "a", "a")


def test_every_name_is_allowed_replaced_or_refused():
    assert stand_ins(["torch._utils._rebuild_tensor_v2", "torch.FloatStorage"]) == []
    assert [name for _, name in stand_ins(["mmcv.a.b", "builtins.getattr", "collections.defaultdict"])] == [
        "mmcv.a.b", "builtins.getattr", "collections.defaultdict"]  # fmt: skip
    assert "is a whole pickled model (of torch.nn.b)" in why(stand_ins, ["mmcvx.a", "torch.nn.b"])
    assert "wants to run mmcvx.a" in why(stand_ins, ["mmcvx.a"])


def archive(entries, prefix=b""):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        for name, content in entries.items():
            target.writestr(f"a/{name}", content)
    return prefix + file.getvalue()


GOOD = {"data.pkl": hostile.state(), "byteorder": b"little", "data/0": hostile.FLOATS, "version": b"3\n"}


def looked_through(content):
    return why(containers.inspect, io.BytesIO(content), len(content))


@pytest.mark.parametrize(("change", "wanted"), [
    ({}, ""), ({"byteorder": b"big"}, "another byte order"), ({"code/a.py": b""}, "is a TorchScript archive"),
    ({"constants.pkl": b""}, "is a TorchScript archive"), ({"DATA.PKL": b""}, "two entries of one name"),
    ({"data/\xe4": b""}, "with an ambiguous name"), ({"../b": b""}, "leads out"), ({"b\\c": b""}, "leads out"),
    ({"b/": b""}, "is a link or a folder"),
])  # fmt: skip
def test_archive_is_as_torch_writes_it(change, wanted):
    said = looked_through(archive(GOOD | change))
    assert wanted in said, said
    assert bool(wanted) == bool(said), said


def test_archive_of_no_weights_names_what_is_in_it():
    said = looked_through(archive(dict.fromkeys(("b", "c", "d", "e"), b"")))
    assert said.startswith("is an archive of b, c, d without the data.pkl")


def test_storages_of_an_archive_are_counted():
    content = archive(GOOD | {"data/1": bytes(9), "other/2": b"abc"})
    file = io.BytesIO(content)
    file.seek(9)  # wherever it stands
    assert containers.inspect(file, len(content)).storages == Counter([16, 9])


@pytest.mark.parametrize("place", ["before", "behind"])
def test_archive_is_all_of_its_file(place):
    content = archive(GOOD)
    assert looked_through(content) == ""
    if place == "before":
        assert "overlaps another" in looked_through(b"PK\x03\x04" + content)
    else:
        assert "bytes after the end of its archive" in looked_through(content + b"a")
        assert "is cut off after" in looked_through(content + bytes(0x10000))
        assert "is cut off after" in looked_through(content[:-22])
        assert "is cut off after" in looked_through(content[:-1])


def test_end_of_an_archive_may_be_all_that_there_is():
    end = containers.ZIP_END + bytes(18)
    assert why(containers.require_zip_end, io.BytesIO(end), 22) == ""
    assert "bytes after the end" in why(containers.require_zip_end, io.BytesIO(end + b"a"), 23)
    assert "bytes after the end" in why(containers.require_zip_end, io.BytesIO(end[:-2] + b"\1\0"), 22)
    assert "is cut off after 21 bytes" in why(containers.require_zip_end, io.BytesIO(end[:-1]), 21)


def test_entries_do_not_reach_into_each_other():
    content = archive({"data.pkl": hostile.state(), "data/0": hostile.FLOATS})
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as found:
        first, second = found.infolist()
        end = found.start_dir
        assert why(containers.require_separate_entries, file, [second, first], end) == ""
        assert "overlaps its table" in why(containers.require_separate_entries, file, [first, second], end - 1)
        first.header_offset = 1
        assert "overlaps another" in why(containers.require_separate_entries, file, [first], end)
        first.header_offset = 0
        second.header_offset -= 1
        assert "overlaps another" in why(containers.require_separate_entries, file, [first, second], end)


def test_extra_field_of_an_entry_belongs_to_it():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as target:
        first, second = zipfile.ZipInfo("a/b"), zipfile.ZipInfo("a/c")
        first.extra = b"\xfe\xca\4\0abcd"
        target.writestr(first, b"1234")
        target.writestr(second, b"5678")
    with zipfile.ZipFile(file) as found:
        first, second = found.infolist()
        assert why(containers.require_separate_entries, file, [first, second], found.start_dir) == ""
        second.header_offset -= 1
        assert "overlaps another" in why(containers.require_separate_entries, file, [first, second], found.start_dir)


@pytest.mark.parametrize(("field", "value", "good"), [
    ("flag_bits", 0x0808, True), ("flag_bits", 0x0001, False), ("flag_bits", 0x0020, False),
    ("external_attr", 0o100644 << 16, True), ("external_attr", 0o120644 << 16, False), ("external_attr", 0x10, False),
    ("external_attr", 0, True), ("external_attr", 0x01, True),
    ("compress_type", 8, False), ("compress_size", 3, False), ("file_size", 3, False),
])  # fmt: skip
def test_entry_is_stored_as_it_is(field, value, good):
    entry = zipfile.ZipInfo("a/data.pkl")
    setattr(entry, field, value)
    assert (why(containers.require_plain_entries, [entry]) == "") == good


@pytest.mark.parametrize(("head", "wanted"), [
    (b"a" * 60, f"is text ({'a' * 60}) and"), (b"a" * 61, f"is text ({'a' * 60}...) and"),
    (b"ab\xff\xff\xff", "is of no known kind (it begins with 61 62 ff ff ff)"), (b"abc\xff\xff", "is text (abc)"),
    (b"ab\xff\xff", "is of no known kind"), (b"", "is empty"), (b"\x80", "is a pickle that torch.save did not write"),
    (bytes(9), "is of no known kind (it begins with 00 00 00 00 00 00 00 00)"),
])  # fmt: skip
def test_other_kinds_are_told_by_their_first_bytes(head, wanted):
    assert containers.other_kind(head).startswith(wanted)


def test_words_of_a_file_are_short():
    assert shown("a" * 80) == "a" * 80
    assert shown("a" * 81) == "a" * 80 + "..."
    assert shown("a\n") == r"a\n"
    assert one_line(ValueError("a" * 161 + "\nb")) == "a" * 160
    assert one_line(ValueError(" it's\nb")) == "it's"
    assert one_line(ValueError()) == "ValueError"
