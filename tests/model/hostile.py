"""Files that must not be read, by name: programs, archives with two faces, bombs, odd tensors, honest mistakes.

What would run touches a marker; nothing worse is in here.
"""

import io
import os
import pickle
import struct
import subprocess
import tarfile
import warnings
import zipfile

import safetensors.torch
import torch
from torch import nn
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

PROTO2 = b"\x80\x02"
SAFE_TENSOR = (  # what torch.save writes for torch.arange(4.0), on the stack after this
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
    b"K\0K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
)
FLOATS = struct.pack("<4f", 0, 1, 2, 3)


def text(value: str) -> bytes:
    """The instruction that puts a text on the stack."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *arguments: str) -> bytes:
    return name(module, attribute) + b"(" + b"".join(text(item) for item in arguments) + b"tR"


def state(value: bytes = SAFE_TENSOR, more: bytes = b"") -> bytes:
    """A pickle of {"w": value}, with more items."""
    return PROTO2 + b"}" + text("w") + value + b"s" + more + b"."


def archive(pickled: bytes, records=None, method=zipfile.ZIP_STORED, folder="archive", order=b"little") -> bytes:
    """What torch.save would write around a pickle."""
    file = io.BytesIO()
    parts = {"data.pkl": pickled, "byteorder": order, "data/0": FLOATS, "version": b"3\n", **(records or {})}
    with zipfile.ZipFile(file, "w", method) as target:
        for inner, content in parts.items():
            target.writestr(f"{folder}/{inner}", content)
    return file.getvalue()


def legacy(pickled: bytes, keys=("0",), values: bytes = struct.pack("<q", 4) + FLOATS) -> bytes:
    """What torch wrote before 1.6 around a pickle."""
    before = [pickle.dumps(value, 2) for value in (MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True})]
    return b"".join(before) + pickled + pickle.dumps(list(keys), 2) + values


def saved(value, **options) -> bytes:
    torch.save(value, file := io.BytesIO(), **options)
    return file.getvalue()


class Reduced:
    """Pickled as a call."""

    def __init__(self, function, *arguments) -> None:
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


def programs(marker: str) -> dict[str, bytes]:
    """Pickles that run something in an ordinary reader."""
    touch = f"touch {marker}"
    code = f"open({marker!r}, 'w').close()"
    system = Reduced(os.system, touch)
    run = call("os", "system", touch)
    info = pickle.dumps({"little_endian": True}, 2)
    found = {f"os_system_protocol_{n}": archive(pickle.dumps({"w": system}, n)) for n in range(6)}
    found |= {f"bare_pickle_protocol_{n}": pickle.dumps({"w": system}, n) for n in (0, 2, 4)}
    found |= {f"call_{key}": archive(state(value)) for key, value in calls(touch, code).items()}
    return found | {
        "os_system_legacy": legacy(pickle.dumps({"w": system}, 2)),
        "os_system_beside_weights": archive(state(more=text("meta") + run + b"s")),
        "program_in_the_magic_number": pickle.dumps(system, 2) + legacy(state()),
        "program_in_the_system_info": legacy(state()).replace(info, state(run)),
        "program_in_the_keys": legacy(state(), keys=()).replace(pickle.dumps([], 2), state(run)),
        "popen_protocol_4": archive(pickle.dumps({"w": Reduced(subprocess.Popen, ["touch", marker])}, 4)),
        "whole_model": saved(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())),
        "whole_model_legacy": saved(nn.Linear(2, 2), _use_new_zipfile_serialization=False),
    }


def calls(touch: str, code: str) -> dict[str, bytes]:
    """Instructions that call something, in every way that a pickle has."""
    touched = text(touch) + b"\x85"
    module = call("builtins", "__import__", "os")
    rebuild = name("torch._tensor", "_rebuild_from_type_v2")
    return {
        "eval": call("builtins", "eval", code),
        "eval_python_2": call("__builtin__", "eval", code),
        "exec": call("builtins", "exec", code),
        "import": call("builtins", "__import__", "antigravity"),
        "getattr_chain": name("builtins", "getattr") + b"(" + module + text("system") + b"tR" + touched + b"R",
        "of_an_inert_object": call("builtins", "getattr", "a", "b") + touched + b"R",
        "allowed_names_alone": through_allowed_names(touch),
        "popen_new_object": name("subprocess", "Popen") + touched + b"\x81",
        "commands_python_2": call("commands", "getoutput", touch),
        "stack_global": text("os") + text("system") + b"\x93" + touched + b"R",
        "inst": b"(" + text(touch) + b"ios\nsystem\n",
        "obj": b"(" + name("os", "system") + text(touch) + b"o",
        "extension_code": b"\x82\x01" + touched + b"R",
        "load_from_bytes": name("torch.storage", "_load_from_bytes") + b"U\x03abc\x85R",
        "torch_load": call("torch", "load", touch),
        "torch_hub": call("torch.hub", "load", "a/b", "c"),
        "name_with_dots": call("torch.serialization", "os.system", touch),
        "name_with_a_space": call("torch _utils", "_rebuild_tensor_v2", touch),
        "name_with_escapes": call("\\x6f\\x73", "system", touch),
        "name_of_other_letters": call("ös", "system", touch),
        "numpy_runstring": call("numpy.testing._private.utils", "runstring", code),
        "rebuild_of_another": rebuild + b"(" + name("os", "system") + name("builtins", "int") + touched + b"}tR",
    }


def through_allowed_names(touch: str) -> bytes:
    """`_rebuild_tensor_v2.__globals__["sys"].modules["os"].system(touch)` without a name that is refused.

    Only what stands for `getattr`, and torch's own reader behind it, keep it from running.
    """
    take = name("builtins", "getattr")

    def attribute(value: bytes, key: str) -> bytes:
        return take + b"(" + value + text(key) + b"tR"

    def item(mapping: bytes, key: str) -> bytes:
        return attribute(mapping, "get") + text(key) + b"\x85R"

    found = attribute(name("torch._utils", "_rebuild_tensor_v2"), "__globals__")
    modules = attribute(item(found, "sys"), "modules")
    return attribute(item(modules, "os"), "system") + text(touch) + b"\x85R"


def pickles() -> dict[str, bytes]:
    """Pickles that are bombs or make no sense."""
    laughs = b"](" + b"K\x01" * 10 + b"e" + b"".join(b"q%c](" % n + b"h%c" % n * 10 + b"e" for n in range(60))
    return {
        "deep_tuples": archive(PROTO2 + b")" + b"\x85" * 100_000 + b"."),
        "deep_lists": archive(PROTO2 + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "list_in_itself": archive(PROTO2 + b"]q\0h\0a."),
        "dictionary_in_itself": archive(PROTO2 + b"}q\0" + text("model") + b"h\0s."),
        "billion_laughs": archive(PROTO2 + laughs + b"."),
        "huge_long4": archive(state(b"\x8b\xff\xff\xff\x7f")),
        "huge_binbytes8": archive(state(b"\x8e" + b"\xff" * 7 + b"\x7f")),
        "huge_text": archive(state(b"X\xff\xff\xff\xff")),
        "huge_memo": archive(state(b"Nr\xff\xff\xff\xff")),
        "nothing_on_the_stack": archive(PROTO2 + b"R."),
        "no_mark": archive(PROTO2 + b"t."),
        "no_such_memo": archive(PROTO2 + b"h\x07."),
        "no_stop": archive(PROTO2 + b"}"),
        "no_pickle": archive(b""),
        "unhashable_name": archive(PROTO2 + b"}]Ns."),
        "persistent_number": archive(PROTO2 + b"K\x07Q."),
        "persistent_module": archive(state(b"(" + text("module") + name("collections", "Counter") + b"NNtQ")),
        "bytearray_bomb": archive(state(name("builtins", "bytearray") + b"\x8a\x06\0\0\0\0\0\x10\x85R")),
    }


def crashes() -> dict[str, bytes]:
    """What ends the process that reads it, or would never end."""
    # Two equal towers of tuples: 10**59 to hash, or from Python 3.14 on, which remembers a hash, to compare.
    floor = b"G" + struct.pack(">d", 1)
    towers = b"".join(
        floor + b"q%c" % first + b"".join(b"(" + b"h%c" % n * 10 + b"tq%c" % (n + 1) for n in range(first, first + 59))
        for first in (0, 60)
    )
    copy = name("_codecs", "encode") + b"(h\1" + text("utf-32") + b"tR"
    copies = text("a") + b"](" + text("x" * 1_000_000) + b"q\1" + copy * 2000 + b"es"
    return {
        "stack_overflow": archive(PROTO2 + b"})" + b"\x85" * 400_000 + b"Ns."),  # the hash of a tower of tuples
        "endless": archive(PROTO2 + b"}(" + towers + b"u."),
        "memory_bomb": archive(state(more=copies)),  # 8 GB of text out of 1 MB
    }


def archives() -> dict[str, bytes]:
    """Zip files that torch.save does not write."""
    good = archive(state())
    end = good.index(b"PK\x01\x02")
    found = {
        "zip_leads_out": archive(state(), {"../../outside": b"x"}),
        "zip_leads_to_the_root": archive(state(), folder=""),
        "zip_backslash": archive(state(), {"..\\outside": b"x"}),
        "zip_compressed_bomb": archive(state(), {"data/1": bytes(50 << 20)}, method=zipfile.ZIP_DEFLATED),
        "zip_trailing_bytes": good + b"more",
        "zip_leading_bytes": good[:30] + good,
        "zip_cut_in_half": good[: len(good) // 2],
        "zip_cut_at_the_end": good[:-1],
        "zip_changed_value": good.replace(FLOATS, FLOATS[:-1] + b"\x41"),
        "zip_without_a_storage": archive(state(SAFE_TENSOR.replace(b"\x000X", b"\x007X"))),
        "zip_big_endian": archive(state(), order=b"big"),
        "zip_no_byte_order": archive(state(), order=b"middle"),
        "zip_of_two_folders": archive(state(), {"data/7": b"x"}).replace(b"archive/data/7", b"another/data/7"),
        "zip_encrypted": good[: end + 8] + b"\x01" + good[end + 9 :],
        "zip_zero_byte_in_a_name": archive(state(), {"dataXpkl": b"x"}).replace(b"dataXpkl", b"data\0pkl"),
        "zip_other_local_name": good.replace(b"archive/data/0", b"archive/data/1", 1),
        "torchscript": archive(state(), {"constants.pkl": b"\x80\x02).", "code/__torch__.py": b"import os"}),
        "numpy_archive": archive(state(), folder="a").replace(b"data.pkl", b"data.npy"),
        "program_in_a_second_pickle": twice(state(), state(call("os", "system", "true"))),
        "program_under_the_same_name_in_capitals": archive(state(), {"DATA.PKL": state(call("os", "system", "true"))}),
    }
    found["zip_value_marked_as_a_folder"] = marked(good, "archive/data/0")
    link = good.index(b"archive/data/0", end) - 8
    found["zip_symlink"] = good[:link] + (0o120777 << 16).to_bytes(4, "little") + good[link + 4 :]
    second = good.index(b"PK\x01\x02", end + 4)  # its place is moved into the first entry
    found["zip_overlap"] = good[: second + 42] + (4).to_bytes(4, "little") + good[second + 46 :]
    return found


def marked(content: bytes, entry: str) -> bytes:
    """An archive with the folder mark of DOS at an entry, which torch 2.13 then takes for read without reading it."""
    place = content.rindex(entry.encode()) - 8
    return content[:place] + b"\x10" + content[place + 1 :]


def twice(first: bytes, second: bytes) -> bytes:
    """An archive with two entries of one name; which one is read depends on the reader."""
    return archive(first, {"data.pkX": second}).replace(b"data.pkX", b"data.pkl")


LEGACY_TENSOR = SAFE_TENSOR.replace(b"K\x04tQ", b"K\x04NtQ")
MILLION = b"J\0\0\x10\0"
BILLIONS = b"\x8a\x05\0\0\0\0\x10"
OVERFLOW = b"\x8a\x08" + b"\xff" * 7 + b"\x3fK\x08\x86K\0K\0\x86"  # shape (2**62, 8), strides of 0


def tensors() -> dict[str, bytes]:
    """Tensors that lie: what the bytes say of storage and shape is changed."""
    changes = {
        "storage_larger_than_its_record": (b"K\x04t", MILLION + b"t"),
        "storage_smaller_than_its_record": (b"K\x04t", b"K\x02t"),
        "storage_of_negative_size": (b"K\x04t", b"J\xff\xff\xff\xfft"),
        "shape_larger_than_storage": (b"K\x04\x85", MILLION + b"\x85"),
        "shape_bomb_stride_0": (b"K\x04\x85K\x01\x85", BILLIONS + b"\x85K\0\x85"),
        "shape_overflow": (b"K\x04\x85K\x01\x85", OVERFLOW),
        "negative_offset": (b"QK\0", b"QJ\xff\xff\xff\xff"),
    }
    found = {key: archive(state(SAFE_TENSOR.replace(*change))) for key, change in changes.items()}
    return found | {
        "odd_arguments": archive(state(name("torch._utils", "_rebuild_tensor_v2") + b"(K\x01K\x02K\x03tR")),
        "legacy_storage_bomb": legacy(state(LEGACY_TENSOR.replace(b"K\x04N", BILLIONS + b"N"))),
        "legacy_grown_storage": legacy(state(LEGACY_TENSOR.replace(b"K\x04\x85", MILLION + b"\x85")), (), b""),
        "legacy_values_left_out": legacy(state(LEGACY_TENSOR), ()),
        "legacy_keys_of_no_effect": legacy(state(LEGACY_TENSOR)).replace(b"X\x01\0\0\x000q\1a.", b"X\x01\0\0\x000]."),
        "legacy_trailing_bytes": legacy(state(LEGACY_TENSOR)) + b"more",
        "legacy_cut": legacy(state(LEGACY_TENSOR))[:-3],
        "legacy_cut_in_the_pickle": legacy(state(LEGACY_TENSOR))[:150],
        "safetensors_cut": safetensors.torch.save({"w": torch.ones(3)})[:-1],
        "safetensors_deep_header": struct.pack("<Q", 200_000) + b'{"a":' + b"[" * 199_995,
    }


def kinds() -> dict[str, bytes]:
    """Tensors that are not dense ones of ordinary types and values, as torch and safetensors save them."""
    with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants(enable=False):
        warnings.simplefilter("ignore")  # sparse, nested and quantised tensors are announced to change
        false_csr = torch.sparse_csr_tensor(torch.tensor([0, 1, 10**6]), torch.tensor([0, 1]), torch.ones(2), (2, 2))
        nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
        quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    float8 = torch.ones(3).to(torch.float8_e4m3fn)
    nan = torch.tensor([1.0, float("nan")])
    odd = {
        "sparse_csr_false_indices": false_csr,
        "sparse_coo": torch.eye(3).to_sparse(),
        "meta": torch.empty(3, device="meta"),
        "complex": torch.ones(3, dtype=torch.complex64),
        "float8": float8,
        "nan": nan,
        "infinite": torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16),
        "subclass": torch.ones(3).as_subclass(nn.Buffer),
        "nested": nested,
        "quantised": quantised,
    }
    plain = {"float8": {"w": float8}, "nan": {"w": nan}, "empty": {}}
    found = {key: saved({"w": value}) for key, value in odd.items()}
    return found | {f"safetensors_{key}": safetensors.torch.save(value) for key, value in plain.items()}


def mistakes() -> dict[str, bytes]:
    """Honest files of another kind."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9).state_dict()
    optimizer["state"] = {0: {"momentum_buffer": torch.ones(2, 2)}}
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as target:
        for part in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(part)
            info.size = 3
            target.addfile(info, io.BytesIO(b"abc"))
    return {
        "empty": b"",
        "html": "<!DOCTYPE html>\n<title>404</title><p>Not found \N{EM DASH} sorry".encode(),
        "text": b"conv1.weight 0.1 0.2 0.3\n" * 100,
        "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "noise": bytes(range(7, 256)) * 4,
        "gzip": b"\x1f\x8b\x08\0" + bytes(40),
        "legacy_tar": tar.getvalue(),
        "optimizer": saved(optimizer),
        "optimizer_wrapped": saved({"optimizer": optimizer, "epoch": 3}),
        "list_of_tensors": saved([torch.ones(2)]),
        "one_tensor": saved(torch.ones(2)),
        "empty_dictionary": saved({}),
        "no_tensors": saved({"epoch": 3, "state_dict": {"a": 1}}),
        "numbers_as_names": saved({0: torch.ones(2)}),
        "half_a_download": saved({"w": torch.ones(1000)})[:2000],
    }


def payloads(marker: str) -> dict[str, bytes]:
    """All but `crashes`, by name; what runs would touch the marker."""
    return {**programs(marker), **pickles(), **archives(), **tensors(), **kinds(), **mistakes()}
