"""A pickle as the list of its instructions, none of which is carried out.

The standard library's pickletools would nearly do; but it decodes what it reads, so that it may see another name than
the reader that counts. Here every instruction is taken byte by byte, as torch's own reader takes it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import BinaryIO

from deeplabv3.model.unpickling import Refused

# What torch.load knows of protocol 2: an instruction and how many bytes follow it.
SIZES = {
    **dict.fromkeys("NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS BINPERSID STOP".split(), 0),
    **dict.fromkeys("MARK TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST EMPTY_DICT".split(), 0),
    **dict.fromkeys("NONE NEWFALSE NEWTRUE".split(), 0),
    **dict.fromkeys("BININT1 BINGET BINPUT PROTO".split(), 1),
    **dict.fromkeys("BININT LONG_BINGET LONG_BINPUT".split(), 4),
    "BININT2": 2,
    "BINFLOAT": 8,
}
LENGTHS = {"SHORT_BINSTRING": 1, "LONG1": 1, "BINUNICODE": 4}  # and how many bytes say how many follow
NAMES = {item.code.encode("latin-1"): item.name for item in pickletools.opcodes}
PIECE_BYTES = 1 << 20


def instructions(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Each instruction of one pickle with the bytes that belong to it; the file is left after its end.

    Raises:
        Refused: It is cut off, or uses instructions that torch.load does not know.
    """
    name = ""
    while name != "STOP":
        name = NAMES.get(code := take(file, 1), code.hex())
        if name == "GLOBAL":
            yield name, file.readline() + file.readline()
        elif name in SIZES:
            yield name, take(file, SIZES[name])
        elif name in LENGTHS:
            yield name, take(file, int.from_bytes(take(file, LENGTHS[name]), "little"))
        else:
            raise Refused(
                f"uses the pickle instruction {name}, which torch.save's own protocol 2 does not have; save its "
                "state_dict again with torch.save(state_dict, path)"
            )


def take(file: BinaryIO, num_bytes: int) -> bytes:
    """So many bytes of a file, without making room for more than there are.

    Raises:
        Refused: The file ends before.
    """
    data = file.read(min(num_bytes, PIECE_BYTES))
    while len(data) < num_bytes:
        piece = file.read(min(num_bytes - len(data), PIECE_BYTES))
        if not piece:
            raise Refused("is cut off or damaged: its pickle ends too early; fetch it again")
        data += piece
    return data
