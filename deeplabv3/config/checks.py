"""How a value that is not possible is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from deeplabv3.errors import InputError

OUTPUT_STRIDES = (8, 16, 32)
PRECISIONS = ("float32", "bfloat16", "float16", "auto")
MIN_SCALE, MAX_SCALE = 0.01, 100

MAX_CHANNELS, MAX_RATE, MAX_BRANCHES = 2**14, 2**12, 64
"""What no network comes near, so that a wrong number is one line and not a huge allocation."""

MAX_WORKERS = 1024

MAX_PIXELS = 2**25
"""Of an image: a frame of 8K (7680x4320) fits. Decoding takes at most 600 MB and about two seconds then."""

MOST_PIXELS = 178_956_970  # Pillow decodes no more, whatever is asked for


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value with one line that names it and what is allowed.

    Raises:
        InputError: `condition` is false.
    """
    if not condition:
        raise InputError(f"{name} is {value!r}; {allowed}")


def with_plain_types(config: Any) -> None:
    """Make a path of each text that a configuration's caller gave for one, and a tuple of each list or single name.

    Args:
        config: A frozen dataclass, while it is made.
    """
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, str) and item.type in ("Path", "Path | None"):  # as they are written
            object.__setattr__(config, item.name, Path(value))
        elif isinstance(value, str) and item.type == "tuple[str, ...]":
            object.__setattr__(config, item.name, (value,))
        elif isinstance(value, list):
            object.__setattr__(config, item.name, _as_tuple(value))


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def require_suffix(name: str, path: Path | None, suffix: str) -> None:
    """Refuse to write a file under a name that promises another form of it; one without an ending promises nothing.

    Raises:
        InputError: Its name has another ending.
    """
    ok = path is None or path.suffix.lower() == suffix or not path.suffix[1:2].isalpha()  # ".01" is of a number
    require(ok, name, str(path), f"it is written as {suffix[1:]}; let its name end with {suffix}")


def require_output_stride(value: int | None) -> None:
    """Refuse an output stride that no network here has; None stands for a model's own.

    Raises:
        InputError: It is not 8, 16 or 32.
    """
    require(value is None or value in OUTPUT_STRIDES, "output_stride", value, "choose 8, 16 or 32")


def require_precision(value: str) -> None:
    """Refuse an unknown precision.

    Raises:
        InputError: It is none of `PRECISIONS`.
    """
    require(value in PRECISIONS, "precision", value, "choose one of " + ", ".join(PRECISIONS))


def require_num_workers(value: int | None) -> None:
    """Refuse a number of processes that no machine has; None leaves the choice to the program.

    Raises:
        InputError: It is below 0 or above `MAX_WORKERS`.
    """
    require(0 <= (value or 0) <= MAX_WORKERS, "num_workers", value, f"give 0 to {MAX_WORKERS}, or null")


def require_splits(values: Sequence[str]) -> None:
    """Refuse what are no names of folders, each once.

    Raises:
        InputError: One is a path, hidden, or there twice; or there is none.
    """
    plain = all(split and not split.startswith(".") and not set("/\\") & set(split) for split in values)
    ok = plain and len(set(values)) == len(values) >= 1
    require(ok, "splits", list(values), "give names of folders, each once, as in [train, val]")
