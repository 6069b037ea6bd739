"""Files of torch.export, read without running what only pretends to be one.

A `.pt2` file is a program. torch evaluates its symbolic sizes and its guards as Python, resolves its operators by name
and unpickles what is marked for it. So a file is let in only if it says nothing but what an exported network says:
operators of aten, arithmetic on sizes, tensors as plain bytes. And torch is given an archive that is written anew from
what was looked at, since two readers of one archive may see two different ones.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import torch
from torch.export import ExportedProgram

from deeplabv3.model.sealed import RECORD_FILE

_ATEN = (
    "_assert_tensor_metadata.default add.Tensor add_.Tensor argmax.default cat.default contiguous.default "
    "conv2d.default div.Tensor dropout.default expand.default hardsigmoid.default hardswish.default "
    "max_pool2d.default mean.dim mul.Tensor relu.default relu_.default softmax.int sub.Tensor sym_size.int to.dtype "
    "upsample_bilinear2d.vec"
)
_OF_SIZES = "add sub mul floordiv mod neg eq ne lt le gt ge"
OPERATORS = frozenset(
    [f"torch.ops.aten.{name}" for name in _ATEN.split()] + [f"_operator.{name}" for name in _OF_SIZES.split()]
)
"""All that exported networks compute with. Others of aten read and write files."""

ARGUMENTS = frozenset(
    "as_bool as_bools as_device as_expr as_float as_floats as_int as_ints as_layout as_memory_format as_name as_none "
    "as_optional_tensors as_scalar_type as_string as_sym_int as_sym_ints as_tensor as_tensors".split()
)
"""Kinds of what an operator is given, as torch names them; others are objects, operators and graphs."""

SIZE = re.compile(
    r"(?:(?:Add|Mul|Max|Min|Mod|FloorDiv|Integer)\(|Symbol\('[su]\d+', positive=True, integer=True\)|\d{1,9}|[-,) ])*",
    re.ASCII,
)
"""All that sizes are written with: torch evaluates them as Python, and some functions evaluate their texts again."""

PLAIN_TEXT = re.compile(r"[\w.+]*", re.ASCII)
"""Every other text in it, keys too: names, and torch's release."""

_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
_IMAGE = {"type": "builtins.tuple", "context": "null", "children_spec": [_LEAF]}
_NO_WORDS = {"type": "builtins.dict", "context": "[]", "children_spec": []}
SPECS = {
    "in_spec": [1, {"type": "builtins.tuple", "context": "null", "children_spec": [_IMAGE, _NO_WORDS]}],
    "out_spec": [1, _LEAF],
}
"""One tensor in, one tensor out: torch imports what any other description asks for."""

PLAIN_FILES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/" + re.escape(RECORD_FILE) + "|"
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json))",
    re.ASCII,
)
EXAMPLES = "data/sample_inputs/model.pt"
"""torch unpickles what is in it, whatever that is; an exported network leaves it empty."""


class NotPlainError(Exception):
    """A file holds what an exported network does not need."""


def load_program(content: bytes) -> tuple[ExportedProgram, str]:
    """The program of a `.pt2` file, and its record, JSON or "".

    Raises:
        NotPlainError: There is more in it than an exported network.
        Exception: Whatever else torch finds wrong.
    """
    archive = _plain_archive(content)
    extra = {RECORD_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        program = torch.export.load(archive, extra_files=extra)
    return program, extra[RECORD_FILE]


def _plain_archive(content: bytes) -> io.BytesIO:
    """The files of an archive, each looked at, in another archive."""
    copied, left = io.BytesIO(), len(content)
    seen: set[str] = set()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(copied, "w") as copy:
        for entry in archive.infolist():
            inner = entry.filename.partition("/")[2]  # all is in one folder
            left -= entry.file_size
            is_plain = PLAIN_FILES.fullmatch(inner) or (inner == EXAMPLES and entry.file_size == 0)
            if not is_plain or inner in seen or entry.compress_type != zipfile.ZIP_STORED or left < 0:
                raise NotPlainError(f"it holds {entry.filename!r}")
            seen.add(inner)
            part = archive.read(entry)
            if inner.endswith(".json") and not inner.endswith(RECORD_FILE):
                part = _plain_json(part, inner)
            copy.writestr(f"archive/{inner}", part)
    copied.seek(0)
    return copied


def _plain_json(part: bytes, name: str) -> bytes:
    """A part of JSON that was looked at, without guards, which torch would run as Python."""
    values = json.loads(part.decode())
    if isinstance(values, dict):
        values.pop("guards_code", None)
    for keys, value in _leaves(values):
        fault = _fault(keys, value)
        if fault:
            raise NotPlainError(f"{name} has {fault}")
    return json.dumps(values).encode()


def _fault(keys: tuple[str, ...], value: Any) -> str:
    """What is wrong with a value of a program's JSON that lies under these keys, or ""."""
    key = keys[-1] if keys else ""
    if "metadata" in keys:
        return f"{key} of a node"
    for odd in keys:
        if not PLAIN_TEXT.fullmatch(odd) or (odd.startswith("as_") and odd not in ARGUMENTS):
            return f"the field {odd!r}"
    if key == "use_pickle" and value is not False:
        return "a pickled tensor"
    if key == "target" and value not in OPERATORS:
        return f"the operator {value!r}"
    if key in SPECS and json.loads(str(value)) != SPECS[key]:
        return f"another {key} than one tensor"
    if key == "expr_str":
        return "" if SIZE.fullmatch(str(value)) else f"the size {value!r}"
    if key not in ("target", *SPECS) and isinstance(value, str) and not PLAIN_TEXT.fullmatch(value):
        return f"the {key} {value!r}"
    return ""


def _leaves(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is no container, with the keys of the dictionaries around it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, (*keys, name))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, keys)
    else:
        yield keys, value
