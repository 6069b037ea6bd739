"""Small damage of many kinds, each a function of a random generator alone: bytes, JSON values, text, tensors."""

import json
import random
from copy import deepcopy
from typing import Any

import torch

BYTES = (b"\0", b"\xff", b"{", b"}", b"[", b'"', b":", b",", b"\n", b"\xed\xa0\x80", b"-1", b"99999999999999999999")
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 255, 256, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 0.5, -0.5, 1e308, 5e-324),
    *("", "\n", "\ud800", "é\0", "auto", "9" * 50, "model", "a" * 300),
    *([], {}, [[]], [None], {"": None}, [1] * 300),
)
TOKENS = (
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "[" * 3000,
    '{"a":' * 3000,
    "\\ud800",
    "nul",
    "'",
    "\x00",
    "1.",
    "//",
)
YAML = (
    *("&a [*a]", "*b", "!!python/object:os.system []", "!!timestamp x", "2001-99-99", "!!int ''", "!!float x", "0x"),
    *("? ", "- ", "{", "]", ": ", "\t", "%", "--- ", "...", "|", ">", "<<: *a", "!!binary x", "1:99:99", "~", ".nan"),
    *(".inf", "[" * 2000, "{a: " * 1000, "9" * 5000, "\x07", "\ufeff", "!!set {a}", "&a " * 50, "'", "\u2028", "1e999"),
)
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64),
)


def of_bytes(content: bytes, rng: random.Random, *, where: int | None = None) -> bytes:
    """Flip, cut, add, repeat or move a few bytes, before the place `where` if it is given."""
    data, end = bytearray(content), where or len(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place, length = rng.randrange(max(1, min(end, len(data)))), rng.choice((1, 2, 8, 40))
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[min(place, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[min(place, len(data) - 1)] = rng.randrange(256)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            data[place:place] = rng.choice(BYTES)
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5:
            other = rng.randrange(max(1, end))
            data[place : place + length] = data[other : other + length]
        else:
            data = data[: place if rng.random() < 0.5 else len(data) - length]
    return bytes(data)


def of_json(value: Any, rng: random.Random) -> str:
    """The text of a JSON value of which one to three places were changed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        _places(value, places)
        if not places:
            break
        holder, key = rng.choice(places)
        other, other_key = rng.choice(places)
        kind = rng.randrange(7)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice((f"{key}x", "", "model", "epoch", "\n"))] = holder[key]
        elif kind == 2:
            holder[key] = json.loads(json.dumps(other[other_key]))
        elif kind == 3:
            holder[key] = rng.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))
        elif kind == 4 and isinstance(holder[key], (int, float)):
            holder[key] += rng.choice((-1, 1, 0.5, 16))
        else:
            holder[key] = deepcopy(rng.choice(VALUES))
    text = json.dumps(value)
    if rng.random() < 0.15:
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(TOKENS) + text[place + rng.choice((0, 1, 5)) :]
    return text


def _places(value: Any, found: list[tuple[Any, Any]]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found.append((value, key))
        _places(item, found)


def of_text(text: str, rng: random.Random) -> str:
    """A YAML text of which words, lines or single characters were changed."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.split("\n")
        place, kind = rng.randrange(len(lines)), rng.randrange(7)
        line = lines[place]
        if kind == 0:
            lines[place] = line[: line.find(":") + 1] + " " + rng.choice((*YAML, *map(repr, VALUES)))
        elif kind == 1:
            del lines[place]
        elif kind == 2:
            lines[place:place] = [rng.choice(lines)]
        elif kind == 3:
            lines[place] = " " * rng.choice((1, 2, 4)) + line
        else:
            at = rng.randrange(len(line) + 1)
            lines[place] = line[:at] + rng.choice(YAML) + line[at + rng.choice((0, 0, 1, 3)) :]
        text = "\n".join(lines)
    return text


def of_tensors(tensors: dict[str, torch.Tensor], rng: random.Random) -> dict[str, torch.Tensor]:
    """One to three tensors renamed, dropped, exchanged, of another type or shape, or with a value that is no number."""
    result = dict(tensors)
    for _ in range(rng.choice((1, 1, 2, 3))):
        name = rng.choice(sorted(result))
        other = rng.choice(sorted(result))
        value, kind = result[name], rng.randrange(10)
        if kind == 0:
            del result[name]
        elif kind == 1:
            prefix = name.split("/")[0]
            result = {key: item for key, item in result.items() if not key.startswith(prefix)} or result
        elif kind == 2:
            result[name], result[other] = result[other], value
        elif kind == 3:
            result[rng.choice(("model/x", "optimizer/x", "average/x", "scaler/x", "x", "", "model/\n", "é/x"))] = (
                value.clone()
            )
        elif kind == 4:
            result[name] = value.to(rng.choice(DTYPES))
        elif kind == 5:
            result[name] = rng.choice((value[None], value.reshape(-1), value.reshape(-1)[:0], value.reshape(-1)[:1]))
        elif kind == 6 and value.is_floating_point() and value.numel():
            result[name] = value.clone()
            result[name].view(-1)[rng.randrange(value.numel())] = rng.choice((float("nan"), float("inf")))
        elif kind == 7:
            scalars = [key for key, item in result.items() if not item.dim()]
            if scalars:
                key = rng.choice(sorted(scalars))
                result[key] = torch.full_like(result[key], rng.choice((-1, 0, 2**40)))
        elif kind == 8:
            result[f"{name.split('/')[0]}/{other.split('/')[-1]}"] = value.clone()
        else:
            result[name + rng.choice("x./")] = result.pop(name)
    return {name: value.contiguous() for name, value in result.items()}
