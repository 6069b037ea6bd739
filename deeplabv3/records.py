"""Configurations as flat dictionaries of plain JSON values, and back.

A record is flat: the fields of a nested configuration stand beside those of the outer one, so that a key of a recipe, a
flag and a field have the same name everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from reprlib import repr as short
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from deeplabv3.errors import InputError, printable

Config = TypeVar("Config")


def config_fields(cls: type) -> dict[str, Any]:
    """Field name to default of a configuration, nested ones laid flat; `MISSING` where a value must be given."""
    flat: dict[str, Any] = {}
    for item in fields(cls):
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        if is_dataclass(default) and not isinstance(default, type):
            flat.update(config_fields(type(default)))
        else:
            flat[item.name] = default
    return flat


def to_record(config: Any) -> dict[str, Any]:
    """A configuration as one flat dictionary of plain JSON values."""
    record: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            record.update(to_record(value))
        else:
            record[item.name] = _plain(value)
    return record


def from_record(cls: type[Config], record: Mapping[str, Any]) -> Config:
    """Build a configuration from a flat record; keys of other configurations are left alone.

    Raises:
        InputError: A value is missing, of another type, or not possible.
    """
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]  # a class made by @dataclass
        hint = hints[item.name]
        if is_dataclass(hint):
            values[item.name] = from_record(hint, record)  # type: ignore[arg-type]
        elif item.name in record:
            values[item.name] = _typed(item.name, hint, record[item.name])
        elif item.default is MISSING and item.default_factory is MISSING:
            raise InputError(f"{item.name} is missing; give it a value")
    return cls(**values)


def default_record(cls: type) -> dict[str, Any]:
    """The values of a record that are the defaults; what must be given has none."""
    return {name: _plain(default) for name, default in config_fields(cls).items() if default is not MISSING}


def to_words(config: Any, positional: Sequence[str]) -> list[str]:
    """What is typed behind a verb to get a configuration: every option that is not the default.

    Args:
        config: The configuration.
        positional: Its fields that are typed without a flag, in order.
    """
    record, defaults = to_record(config), default_record(type(config))
    words: list[str] = []
    for name in positional:
        words += record[name] if isinstance(record[name], list) else [record[name]]
    for name, value in record.items():
        if name in positional or (name in defaults and value == defaults[name]):
            continue
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(text_of(value))
    return words


def text_of(value: Any) -> str:
    """A value of a record as it is typed."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Paths to text, tuples to lists, nested configurations to dictionaries."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return to_record(value) if is_dataclass(value) else value


def read_yaml(path: Path) -> Any:
    """The values of a YAML file that a user wrote.

    Raises:
        InputError: It is not one.
        OSError: It cannot be read.
    """
    import yaml  # costs start-up time

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise
    except Exception as error:  # besides its own errors, the parser raises those of dates, numbers and deep nesting
        raise InputError(f"{path} is not a YAML file: {printable(error)}") from error


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "null",
}


def _typed(name: str, hint: Any, value: Any) -> Any:
    """The inverse of `_plain`, for the few types that fields have.

    Raises:
        InputError: The value has another type.
    """
    try:
        return _converted(hint, value)
    except TypeError as error:
        raise InputError(f"{name} is {short(value)}; give {_described(hint)}") from error


def _converted(hint: Any, value: Any) -> Any:
    """A plain value as what a type hint says.

    Raises:
        TypeError: It is something else.
        InputError: It is a configuration whose values are not possible.
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for kind in inner:
            with suppress(TypeError):
                return _converted(kind, value)
    elif origin is Literal:
        if value in [item for item in inner if type(item) is type(value)]:
            return value
    elif origin in (tuple, list) and isinstance(value, (list, tuple)):
        kinds = inner if origin is tuple and inner[-1] is not Ellipsis else inner[:1] * len(value)
        if len(kinds) == len(value):
            return origin(_converted(kind, item) for kind, item in zip(kinds, value, strict=True))
    elif is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping):
            return from_record(hint, value)
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif hint is float and type(value) in (int, float):
        with suppress(OverflowError):
            return float(value)
    elif type(value) is (origin or hint):  # True is no whole number here
        return value
    raise TypeError(f"no {hint}")


def _described(hint: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(_described, inner))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}"
    return _WORDS.get(hint, "a list" if origin in (tuple, list) else "a table of values")
