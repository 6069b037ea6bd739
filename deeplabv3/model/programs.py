"""Files of torch.export, read without running what only pretends to be one.

A `.pt2` file is a program. torch evaluates its symbolic sizes and its guards as Python, resolves its operators by name
and unpickles what is marked for it. So a file is let in only if it says nothing but what an exported network says:
operators of aten, arithmetic on sizes, tensors as plain bytes.
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

OPERATORS = re.compile(r"torch\.ops\.aten\.\w+(\.\w+)?|_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|lt|le|gt|ge)")
WORDS = frozenset("Add Mul Pow Max Min Mod FloorDiv Integer Symbol True False positive integer L image size".split())
"""All that sizes and guards are written with, besides numbers and the names of sizes, as in `s40`."""

PLAIN_FILES = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/" + re.escape(RECORD_FILE) + "|"
    r"data/(weights/(weight_\d+|model_weights_config\.json)|constants/(tensor_\d+|model_constants_config\.json))"
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
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        _check(archive)
    extra = {RECORD_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about itself
        program = torch.export.load(io.BytesIO(content), extra_files=extra)
    return program, extra[RECORD_FILE]


def _check(archive: zipfile.ZipFile) -> None:
    names = archive.namelist()
    for entry in archive.infolist():
        inner = entry.filename.partition("/")[2]  # all is in one folder
        is_plain = PLAIN_FILES.fullmatch(inner) or (inner == EXAMPLES and entry.file_size == 0)
        if not is_plain or names.count(entry.filename) > 1:
            raise NotPlainError(f"it holds {entry.filename!r}")
    for name in names:
        if name.endswith(".json") and not name.endswith(RECORD_FILE):
            for key, value in _leaves(json.loads(archive.read(name))):
                fault = _fault(key, value)
                if fault:
                    raise NotPlainError(f"{name} has {fault}")


def _fault(key: str, value: Any) -> str:
    """What is wrong with a value of a program's JSON, or ""."""
    if key == "use_pickle" and value is not False:
        return "a pickled tensor"
    if key == "target" and not OPERATORS.fullmatch(str(value)):
        return f"the operator {value!r}"
    if key in ("expr_str", "guards_code"):
        words = set(re.findall(r"[^\W\d]\w*", str(value))) - WORDS
        odd = sorted(word for word in words if not re.fullmatch(r"[su]\d+", word))
        return f"{odd[0]!r} among its sizes" if odd else ""
    if key == "name" and not re.fullmatch(r"[\w.]*", str(value)):
        return f"the name {value!r}"
    if key in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
        return f"{key} of a node"
    return ""


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the key of the innermost dictionary around it."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value
