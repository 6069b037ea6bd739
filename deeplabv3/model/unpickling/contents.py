"""Where in a loaded value the weights and the texts are.

Only the outermost levels are looked at, and never all of what could be there: a value from outside can be nested
without end. Methods of dictionaries are called on the class, because an OrderedDict may carry attributes from its file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from deeplabv3.model.unpickling import Refused, shown
from deeplabv3.model.unpickling.pickles import StandIn

# Names that programs give to the weights in a file with more in it; the first one found is taken.
WRAPPERS = ("state_dict", "model_state", "model", "model_state_dict", "net", "params", "module")
PREFIXES = ("module.", "_orig_mod.")  # of nn.DataParallel and torch.compile
ORDINARY = frozenset(
    [
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
    ]
)
MAX_DEPTH = 3
MAX_ENTRIES = 20_000  # per dictionary that is searched; published networks have about 1,000 tensors
MAX_NAME = 1_000
MAX_NOTE = 1 << 20
MAX_NOTES = 8 << 20
MAX_NUM_NOTES = 1_000
MAX_ITEMS = (100, 1_000)  # in an inner and in an outer list of a note
MAX_WORD = 200  # characters of a text in such a list
NEXT = "in the program that made it, save torch.save(model.state_dict(), path)"


def find_weights(root: Any) -> dict[Any, Any]:
    """The dictionary of weights in what a file holds.

    Raises:
        Refused: There is none; the message says what there is.
    """
    if not isinstance(root, dict):
        raise Refused(f"holds {kind_of(root)} instead of weights by name; {NEXT}")
    if not root:
        raise Refused(f"holds an empty dictionary and no weights; {NEXT}")
    found = wrapped(root, MAX_DEPTH) or max(mappings(root, MAX_DEPTH, set()), key=num_tensors, default={})
    if num_tensors(found):
        return found
    keys = ", ".join(shown(key) if type(key) is str else type(key).__name__ for key in islice(dict.keys(root), 5))
    if any(is_optimizer(value) for value in (root, *islice(dict.values(root), MAX_ENTRIES))):
        raise Refused(f"holds the state of an optimizer ({keys}) and no weights of a model; {NEXT}")
    if num_tensors(root, any_name=True):
        raise Refused(f"names its tensors by something else than text ({keys}); {NEXT}")
    raise Refused(f"holds a dictionary ({keys}) without any tensor; {NEXT}")


def wrapped(mapping: dict[Any, Any], depth: int) -> dict[Any, Any] | None:
    """The weights under one of the known names, or under several of them one in another."""
    for name in WRAPPERS:
        inner = dict.get(mapping, name)
        if depth and isinstance(inner, dict) and not is_optimizer(inner):
            found = wrapped(inner, depth - 1) or (inner if num_tensors(inner) else None)
            if found is not None:
                return found
    return None


def mappings(mapping: dict[Any, Any], depth: int, seen: set[int]) -> Iterator[dict[Any, Any]]:
    """A dictionary and those in it, down to a depth, each once; those of optimizers are left out."""
    if is_optimizer(mapping) or id(mapping) in seen:
        return
    seen.add(id(mapping))
    yield mapping
    if depth:
        for value in islice(dict.values(mapping), MAX_ENTRIES):
            if isinstance(value, dict):
                yield from mappings(value, depth - 1, seen)


def is_optimizer(value: Any) -> bool:
    """Whether a value is what `optimizer.state_dict()` returns."""
    return isinstance(value, dict) and dict.__contains__(value, "param_groups")


def num_tensors(mapping: dict[Any, Any], any_name: bool = False) -> int:
    """How many entries of a dictionary are tensors by name."""
    return sum(
        isinstance(value, Tensor) and (any_name or type(name) is str)
        for name, value in islice(dict.items(mapping), MAX_ENTRIES)
    )


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, Tensor):
        return f"one tensor of {tuple(value.shape)}"
    if isinstance(value, (list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return "an object of another program" if isinstance(value, StandIn) else f"one {type(value).__name__}"


def plain_tensors(mapping: dict[Any, Any], max_bytes: int) -> dict[str, Tensor]:
    """The tensors of a dictionary, contiguous, each with memory of its own.

    Args:
        mapping: From `find_weights`; what is no tensor is left out.
        max_bytes: How much all values together may be.

    Raises:
        Refused: One is no dense tensor of an ordinary type, or they claim more than their file can hold.
    """
    found = {name: value for name, value in dict.items(mapping) if isinstance(value, Tensor)}
    if len(found) > MAX_ENTRIES:
        raise Refused(f"holds {len(found):,} tensors, of at most {MAX_ENTRIES:,}; {NEXT}")
    total = 0
    for name, value in found.items():
        require_plain(name, value)
        total += math.prod(value.shape) * value.itemsize
    if total > max_bytes:
        raise Refused(
            f"claims {total:,} bytes of values, of at most {max_bytes:,} in a file of its size; do not use it"
        )
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in found.items():
        storage = value.untyped_storage()
        dense = value.detach().contiguous()
        whole = storage.nbytes() == dense.numel() * dense.itemsize and storage.data_ptr() not in seen
        seen.add(storage.data_ptr())
        result[name] = dense if whole or dense.data_ptr() != value.data_ptr() else dense.clone()
    return result


def require_plain(name: Any, value: Tensor) -> None:
    """Require a dense tensor of an ordinary type that lies within its storage.

    Raises:
        Refused: It is another kind.
    """
    if type(name) is not str or len(name) > MAX_NAME or not name.isprintable():
        raise Refused(f"has a tensor whose name is no plain text; {NEXT}")
    shape = tuple(value.shape)
    if type(value) not in (Tensor, nn.Parameter) or value.layout != torch.strided or value.is_quantized:
        raise Refused(f"has {shown(name)} as a sparse, quantised or unusual tensor; save dense ones")
    if value.dtype not in ORDINARY or value.is_conj() or value.is_neg():
        raise Refused(f"has {shown(name)} of type {value.dtype}; save it as float32")
    if value.device.type != "cpu" or value.is_nested:
        raise Refused(f"has {shown(name)} without values in the file; {NEXT}")
    if math.prod(shape):
        last = value.storage_offset() + sum((n - 1) * step for n, step in zip(shape, value.stride(), strict=True))
        if (last + 1) * value.itemsize > value.untyped_storage().nbytes():
            raise Refused(f"has {shown(name)} of {shape}, which is more than its storage holds; do not use it")


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, without a wrapper's name where all have it."""
    for prefix in PREFIXES * 2:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def find_notes(root: dict[Any, Any], weights: dict[Any, Any]) -> dict[str, str]:
    """The texts, numbers and short lists beside the weights, by their place: "meta.config", "epoch".

    Texts are as they are, everything else is JSON. Each has at most `MAX_NOTE` bytes and all `MAX_NOTES`; the rest is
    left out.
    """
    notes: dict[str, str] = {}
    room = MAX_NOTES
    for place, value in places(root, "", MAX_DEPTH, {id(weights)} - {id(root)}):
        note = as_note(value)
        if note is None or len(note.encode()) > MAX_NOTE:
            continue
        room -= len(note.encode()) + len(place)
        if room < 0 or len(notes) == MAX_NUM_NOTES:
            break
        notes[place] = note
    return notes


def places(mapping: dict[Any, Any], prefix: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Every value of a dictionary and of those in it with its place; those seen already and optimizers are left out."""
    if is_optimizer(mapping) or id(mapping) in seen:
        return
    seen.add(id(mapping))
    for name, value in islice(dict.items(mapping), MAX_ENTRIES):
        if type(name) is not str or len(name) > MAX_NAME or not name.isprintable():
            continue
        if isinstance(value, dict) and depth > 1:
            yield from places(value, f"{prefix}{name}.", depth - 1, seen)
        elif not isinstance(value, Tensor):
            yield f"{prefix}{name}", value


def as_note(value: Any) -> str | None:
    """A value as text, or None if it is no text, number or short list of those."""
    if type(value) is str:
        return value if encodable(value) else None
    return json.dumps(value) if is_simple(value, depth=2) else None


def is_simple(value: Any, depth: int) -> bool:
    """Whether a value is a number or a text, or a list of few of those, or one of lists of those."""
    if type(value) in (list, tuple):
        few = depth > 0 and len(value) <= MAX_ITEMS[depth - 1]
        return few and all(is_simple(item, depth - 1) for item in value)
    return type(value) in (bool, int, float) or (type(value) is str and len(value) <= MAX_WORD)


def encodable(text: str) -> bool:
    """Whether a text is proper Unicode; a pickle may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
