"""What is typed behind a verb, as its configuration: flags, types and help come from the configuration's class."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from deeplabv3.config import ModelConfig, TrainConfig
from deeplabv3.errors import InputError, printable
from deeplabv3.files import is_file
from deeplabv3.records import config_fields, from_record, read_yaml, to_record

RECIPES_DIR = Path(__file__).parent / "recipes"
"""Complete configurations that come with the package; `--config camvid` finds `camvid.yaml` there."""


def parse_arguments(verb: str, cls: type, positional: Sequence[str], words: Sequence[str]) -> Any:
    """Turn the words behind a verb into its configuration.

    Args:
        verb: The verb.
        cls: The class of its configuration.
        positional: The fields that are typed without a flag, in order.
        words: What was typed behind the verb.

    Raises:
        InputError: A flag is unknown, or a value is missing or not possible.
    """
    parser = make_parser(verb, cls, positional)
    normalised = _normalised(words, cls)
    values = parser.parse_args(normalised).as_dict()
    for name, value in values.items():  # within a tuple, the parser leaves what it makes of a dictionary
        if isinstance(value, tuple):
            values[name] = tuple(item.as_dict() if hasattr(item, "as_dict") else item for item in value)
    config: Any = from_record(cls, values)
    if isinstance(config, TrainConfig) and config.weights is not None:
        _require_network_untyped(config, normalised)
    return config


def _require_network_untyped(config: TrainConfig, words: Sequence[str]) -> None:
    """Refuse a flag of the network beside weights that come with theirs, be it the default: here alone is that seen."""
    typed = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    for name in config_fields(ModelConfig):
        if name in typed and name != "dropout":
            raise config.twice_described(name)


def make_parser(verb: str, cls: type, positional: Sequence[str]) -> Any:
    """The parser of a verb, made from its configuration's class."""
    import jsonargparse

    class Parser(jsonargparse.ArgumentParser):
        """Flags with hyphens, and errors as `InputError`."""

        def format_help(self, *args: Any) -> str:
            text = super().format_help(*args)
            return re.sub(r"--(?!print_config)\w+", lambda flag: flag[0].replace("_", "-"), text)

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            defaults = {flag: action.default for flag, action in self._option_string_actions.items()}
            raise InputError(_told(message, defaults, positional)) from ex

    about = (cls.__doc__ or "").splitlines()[0]
    parser = Parser(prog=f"deeplabv3 {verb}", description=about, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of these options; flags override it.")
    helps = _field_helps(cls)
    for name in positional:
        many = {"nargs": "+", "type": str} if name == "inputs" else {"type": Path}
        parser.add_argument(name, help=helps[name], **many)
    nested = {name: hint for name, hint in get_type_hints(cls).items() if is_dataclass(hint)}
    parser.add_class_arguments(cls, skip={*positional, *nested}, as_group=False)
    for hint in nested.values():
        parser.add_class_arguments(hint, skip={"num_classes"} & {item.name for item in fields(hint)})  # of the labels
    if cls is TrainConfig:  # instances in a default would not be printed by --print_config
        parser.set_defaults(phases=[to_record(phase) for phase in config_fields(TrainConfig)["phases"]])
    return parser


def _normalised(words: Sequence[str], cls: type) -> list[str]:
    """Accept `--batch-size` for the field `batch_size`, `--resume` for `--resume true`, and a recipe by its name.

    A configuration file goes to the front, so that flags override it wherever they stand.
    """
    switches = {name for name, default in config_fields(cls).items() if isinstance(default, bool)}
    files: list[str] = []
    result: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":  # what follows are no flags
            result += [word, *rest]
            break
        name, equals, value = word.partition("=")
        if not name.startswith("--"):
            result.append(word)
            continue
        name = "--" + name[2:].replace("-", "_")
        following = rest[0] if rest and not rest[0].startswith("--") else None
        if name == "--config" and (equals or following is not None):
            files += [name, _recipe(value if equals else rest.pop(0))]
        elif name[2:] in switches and (equals or following is None or following.lower() in _TRUTH):
            value = value if equals else rest.pop(0) if following is not None else "true"
            result.append(f"{name}={_TRUTH.get(value.lower(), value)}")
        else:
            # A bare switch is not followed by its value but by something else, such as a folder.
            result.append(f"{name}=true" if name[2:] in switches else name + equals + value)
    return files + result


_TRUTH = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}


def _recipe(name: str) -> str:
    """The path of a configuration file: `name` itself, or the recipe of that name that comes with the package.

    Raises:
        InputError: There is neither, or it holds no options.
    """
    path = next((path for path in (Path(name), RECIPES_DIR / f"{name}.yaml") if is_file(path)), None)
    if path is None:
        recipes = ", ".join(sorted(recipe.stem for recipe in RECIPES_DIR.glob("*.yaml")))
        raise InputError(f"there is no configuration file {name}; give a YAML file, or a recipe: {recipes}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no options; write lines such as 'batch_size: 8'")
    return str(path)


def _field_helps(cls: type) -> dict[str, str]:
    """The line of each field in the "Attributes" sections of a configuration's docstring and its parents'."""
    import docstring_parser

    helps: dict[str, str] = {}
    for base in filter(is_dataclass, cls.__mro__):
        parsed = docstring_parser.parse(base.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
        helps = {parameter.arg_name: parameter.description or "" for parameter in parsed.params} | helps
    assert set(helps) == {item.name for item in fields(cls)}
    return helps


_PHASES = "[{steps: 400, learning_rate: 0.01}]"
_OF_MODELS = ("--checkpoint", "--checkpoint-path", "--ckpt", "--weights")
_MODELS = (".safetensors", ".pth", ".pt", ".onnx", ".pt2")
_OF_PHASES = ("--epochs", "--num-epochs", "--steps", "--max-steps", "--learning-rate", "--lr", "--warmup-steps")


def _told(message: str, defaults: Mapping[str, Any], positional: Sequence[str]) -> str:
    """A parser's message of several lines as one, with flags as they are typed and types as they are called."""
    if key := re.fullmatch(r".*Option '([^']+)' is not accepted\s*", message, re.DOTALL):  # of a configuration file
        if f"--{key[1]}".replace("_", "-") in _OF_PHASES:
            return f"there is no option {key[1]}; it is part of phases, as in 'phases: {_PHASES}'"
        near = difflib.get_close_matches(key[1], [flag.lstrip("-") for flag in defaults], n=1, cutoff=0.8)
        if key[1] in config_fields(TrainConfig):
            return f"there is no option {key[1]} here; the file is for deeplabv3 train"
        return f"there is no option {printable(key[1])}; " + (f"is {near[0]} meant? " if near else "") + "see --help"
    if message.startswith("unrecognized arguments: "):
        return _unexpected(message.partition(": ")[2], defaults, positional)
    line = printable(message, most=1000)
    line = re.sub(r'Parser key "([\w.]+)": ?', lambda key: f"--{key[1].replace('_', '-')}: ", line)
    line = re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), line)
    line = re.sub(r"Does not validate .*Subtypes: \[(.*?)\] Errors: .*Given value: ", r"expected \1, got ", line)
    line = re.sub(r"<class '(?:pathlib\.)?(\w+)'>", r"\1", line).replace("NoneType", "null")
    line = re.sub(r", typing\.Literal\['(\w+)'\]", r" or \1", line)
    line = re.sub(r"\btuple with (\d+) elements", r"list of \1 in brackets", line)
    line = re.sub(r"\btuple\[tuple\[.*?\]\]", "list of lists in brackets", line)
    line = re.sub(r"\btuple(?:\[(\w+(?:, [\w.]+)*)\])?", _list_of, line)
    line = re.sub(
        r"Not a valid subclass of Phase\. Got value: (.*?) Subclass types .*", r"expected tables, got \1", line
    )
    line = line.replace("Expected a ", "expected ").replace(". Got value: ", ", got ")
    # What is wrong within a phase is told of as it was typed: there is no flag --steps.
    line = re.sub(r"^--(epochs|steps|learning-rate|warmup-steps|frozen-batch-norm): ", r"--phases: \1: ", line)
    line = line.replace("the following arguments are required: learning_rate", "--phases: learning_rate is missing")
    if cut := re.fullmatch(r"(--\S+): expected list.*, got (\[[^\]]*)", line):
        return f"{line}; put a list in quotes, as in {cut[1]} '{cut[2].rstrip(',')}, ...]'"
    if bare := re.fullmatch(r"--(\S+): expected list(?: of (\d+))? in brackets.*, got ([\w./,]+)", line):
        example = _as_list(bare[3], int(bare[2] or 0), defaults.get("--" + bare[1].replace("-", "_")))
        if example:
            return f"{line}; write '[{example}]'"
    missing = re.sub(r"(required: )([\w.]+)$", r"\1--\2", line)
    line = missing if missing.rpartition(" ")[2] in defaults else line
    return line + (f"; as in '{_PHASES}'" if line.startswith("--phases") else "; see --help")


def _unexpected(words: str, defaults: Mapping[str, Any], positional: Sequence[str]) -> str:
    """What is said of words that no option takes."""
    if words.startswith("-"):
        typed = words.split()[0].partition("=")[0]
        name, known = printable(typed).replace("_", "-"), [flag.replace("_", "-") for flag in defaults]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if name in _OF_PHASES and "--phases" in known:
            return f"there is no option {name}; it is part of --phases, as in '{_PHASES}'"
        if name in _OF_MODELS and "--model" in known:
            return f"there is no option {name}; a model is given by --model"
        if name[2:].replace("-", "_") in positional or (name in _OF_MODELS and "model" in positional):
            order = " ".join(word.upper() for word in positional)
            return f"there is no option {name}; it stands without a flag, in the order {order}"
        return f"there is no option {name}; " + (f"is {near[0]} meant? " if near else "") + "see --help"
    hint = "a model is given by --model" if "--model" in defaults and Path(words).suffix in _MODELS else "see --help"
    return f"{printable(words)}: nothing is expected there; {hint}"


def _list_of(kind: re.Match[str]) -> str:
    """What a tuple is called, with how many values it has if that is known."""
    values = kind[1]
    return f"list of {values.count(',') + 1} in brackets" if values and "..." not in values else "list in brackets"


def _as_list(typed: str, length: int, default: Any) -> str:
    """What was typed without brackets, as it is typed in them, a number as often as needed; nothing if it is no such.

    Args:
        typed: One value, or some with commas between.
        length: How many there have to be; 0 if that is not known.
        default: The option's, which tells numbers from names; None is that of whole numbers.
    """
    values, like = typed.split(","), next(iter(default or ()), 1 if default is None else "")
    if isinstance(like, str):
        return ", ".join(values) if all(value.isidentifier() and value != "None" for value in values) else ""
    number = {int: r"\d+", float: r"\d+(\.\d+)?"}.get(type(like))
    if number is None or not all(re.fullmatch(number, value) for value in values):
        return ""
    return ", ".join(values * max(1, length, len(default or ())) if len(values) == 1 else values)
