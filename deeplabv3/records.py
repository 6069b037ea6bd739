"""Configurations as flat dictionaries of plain JSON values, and back.

A record is flat: the fields of a nested configuration stand beside those of the outer one, so that a key of a recipe, a
flag and a field have the same name everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from deeplabv3.errors import InputError

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
        InputError: A value is missing or not possible.
    """
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]  # a class made by @dataclass
        hint = hints[item.name]
        if is_dataclass(hint):
            values[item.name] = from_record(hint, record)  # type: ignore[arg-type]
        elif item.name in record:
            values[item.name] = _typed(hint, record[item.name])
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


def _typed(hint: Any, value: Any) -> Any:
    """The inverse of `_plain`, for the few types that fields have."""
    if hint in (Path, Path | None):
        return None if value is None else Path(value)
    if isinstance(value, (list, tuple)):
        (item_hint, *_) = [*get_args(hint), None]
        if is_dataclass(item_hint) and isinstance(item_hint, type):
            return tuple(item if isinstance(item, item_hint) else from_record(item_hint, item) for item in value)
        return tuple(value)
    return value
