"""What a pickle asks for, read off its instructions without running them.

torch's own reader with `weights_only=True` is a small machine with an allow-list. Ours is stricter: of torch only what
dense tensors of ordinary types need. Names of known metadata are replaced by inert classes, so that weights beside
them can be read although nothing of those packages is imported. Everything else is refused by name.
"""

from __future__ import annotations

import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, BinaryIO

from deeplabv3.model.unpickling import Refused, shown
from deeplabv3.model.unpickling.instructions import instructions

LETTERS = {"PROTO": "p", "EMPTY_LIST": "l", "MARK": "m", "APPEND": "a", "APPENDS": "e", "STOP": "s"}
LETTERS |= {"BINUNICODE": "t", "SHORT_BINSTRING": "t", "BINPUT": "", "LONG_BINPUT": ""}
LIST_OF_TEXTS = re.compile("pl(ta|mt*e)*s")
TYPES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
DTYPES = "float16 bfloat16 float32 float64 int8 int16 int32 int64 uint8 bool".split()
READ = frozenset(  # what torch itself builds
    [
        "_codecs.encode",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        "torch.Size",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch.device",
        *(f"torch.{name}Storage" for name in TYPES),
        *(f"torch.{name}" for name in DTYPES),
    ]
)
INERT = frozenset(
    [
        "argparse.Namespace",  # the command line of a training script
        "builtins.dict",  # these four: the default of a defaultdict
        "builtins.float",
        "builtins.int",
        "builtins.list",
        "builtins.getattr",  # mmengine's histories name their methods with it
        "numpy.core.multiarray._reconstruct",  # numpy 1, then numpy 2: numbers in histories and scores
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy.dtype",
        "numpy.ndarray",
    ]
)
INERT_MODULES = ("mmcv.", "mmengine.", "mmseg.", "numpy.dtypes.", "pathlib.")
INERT_DICTS = frozenset(  # these are filled item by item, which torch does with dictionaries only
    [
        "addict.addict.Dict",
        "collections.defaultdict",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.ConfigDict",
    ]
)
UNREAD = {  # the beginning of a name -> what its file holds
    "torch._utils._rebuild_sparse": "sparse tensors",
    "torch.serialization._get_layout": "sparse tensors",
    "torch.sparse.": "sparse tensors",
    "torch._utils._rebuild_qtensor": "quantised tensors",
    "torch.QInt": "quantised tensors",
    "torch.QUInt": "quantised tensors",
    "torch.per_": "quantised tensors",
    "torch._utils._rebuild_nested": "nested tensors",
    "torch.nested.": "nested tensors",
    "torch._utils._rebuild_meta": "tensors without values",
    "torch.Complex": "complex tensors",
    "torch._utils._rebuild_": "tensors of an unusual kind",
    "torch._tensor.": "tensors of an unusual kind",
    "torch.Untyped": "tensors of an unusual type",
}


class StandIn:
    """Stands for any class or function of known metadata: takes everything, does nothing, keeps nothing."""

    __slots__ = ()

    def __new__(cls, *_: Any) -> StandIn:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None:
        """Forget any state."""

    def __repr__(self) -> str:
        """Words for torch's messages."""
        return "an inert object"


class DictStandIn:
    """Stands for a dictionary of another package: what is made is a plain one."""

    def __new__(cls, *_: Any) -> Any:  # noqa: D102
        return OrderedDict()


def requested_names(file: BinaryIO) -> list[str]:
    """The global names in one pickle, in order, each once; the file is left after its end.

    Raises:
        Refused: It is cut off, malformed, or uses instructions that torch.load does not know.
    """
    lines = (argument for instruction, argument in instructions(file) if instruction == "GLOBAL")
    return list(dict.fromkeys(map(modern_name, lines)))


def count_texts(file: BinaryIO) -> int:
    """The number of different texts in a pickled list of texts; the file is left after its end.

    Raises:
        Refused: It is cut off, or no such list.
    """
    found = list(instructions(file))
    texts = [argument for instruction, argument in found if LETTERS.get(instruction) == "t"]
    letters = "".join(LETTERS.get(instruction, "?") for instruction, _ in found)
    if LIST_OF_TEXTS.fullmatch(letters) is None or len(set(texts)) < len(texts):
        raise Refused("has no list of its storages where it should be, so it is damaged or made up; fetch it again")
    return len(texts)


def modern_name(lines: bytes) -> str:
    """The dotted name of a GLOBAL instruction, Python 2's names replaced as torch does.

    Raises:
        Refused: It is no pair of plain names.
    """
    found = re.fullmatch(rb"([\w.]+)\n([\w.]+)\n", lines)
    if found is None:
        raise Refused(f"asks for {shown(lines.decode('latin-1'))}, which is no name of Python's; do not use it")
    module, name = found[1].decode(), found[2].decode()
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    else:
        module = IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"


def stand_ins(names: Iterable[str]) -> list[tuple[Any, str]]:
    """What torch.load has to be given for these names, in the form that `torch.serialization.safe_globals` takes.

    Raises:
        Refused: A name is neither one of dense tensors nor of known metadata.
    """
    replaced: list[tuple[Any, str]] = []
    refused: list[str] = []
    for name in names:
        if name in INERT_DICTS:
            replaced.append((DictStandIn, name))
        elif name in INERT or name.startswith(INERT_MODULES):
            replaced.append((StandIn, name))
        elif name not in READ:
            refused.append(name)
    if refused:
        raise Refused(refusal(refused))
    return replaced


def refusal(names: list[str]) -> str:
    """Why a file with these names is not read."""
    first = names[0]
    kinds = [words for beginning, words in UNREAD.items() if first.startswith(beginning)]
    if kinds:
        return f"holds {kinds[0]} ({shown(first)}); only dense ones of ordinary types are read: save those"
    layers = [name for name in names if name.startswith("torch.nn.")]
    if layers:
        return (
            f"is a whole pickled model (of {shown(layers[0])}), which only its own program can read; there, save "
            "torch.save(model.state_dict(), path)"
        )
    return (
        f"wants to run {shown(first)}, so it is a program and not only weights; nothing of it was run: use weights "
        "from a source you trust, or save model.state_dict() alone"
    )
