"""What kind of file it is, and whether its parts lie where they should: looked at before torch reads it.

torch.save writes a zip archive since 1.6: `name/data.pkl`, `name/data/0`, ..., each stored without compression. Before,
it wrote five pickles and then the values of each storage. Whoever wants two readers to see two different archives needs
doubled names, overlapping parts or bytes around them; so everything that torch.save does not write is refused.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections import Counter
from dataclasses import dataclass
from typing import BinaryIO

from deeplabv3.model.unpickling import Refused, shown
from deeplabv3.model.unpickling.pickles import count_texts, requested_names

HEAD_BYTES = 512
ZIP = b"PK\x03\x04"
ZIP_END = b"PK\x05\x06"
ZIP_END_BYTES = 22
ZIP_LOCAL_BYTES = 30
DOS_FOLDER = 0x10
ZIP_FLAGS = 0x0808  # sizes repeated after the content, names in UTF-8
LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch's magic number, pickled
LFS = b"version https://git-lfs"
KINDS = {  # first bytes -> what it is and the next step
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed with xz; unpack it first",
    b"(\xb5/\xfd": "is compressed with zstd; unpack it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"\x89HDF": "is an HDF5 file as Keras writes it; give weights of a PyTorch model",
    b"\x93NUMPY": "is one NumPy array; give a file of all weights by name, as torch.save(state_dict, path) writes it",
    b"\x89PNG": "is a PNG picture; give a file of weights",
    b"\xff\xd8\xff": "is a JPEG picture; give a file of weights",
    b"\x80": "is a pickle that torch.save did not write; in its own program, save torch.save(state_dict, path)",
    LFS: "is a pointer of Git LFS and not the file itself; fetch that with `git lfs pull`",
}


@dataclass(frozen=True)
class Layout:
    """What a file says it holds.

    Attributes:
        names: Global names that its pickle asks for.
        storages: How many storages of each size in bytes there are; None if the file does not say before it is read.
        num_storages: How many there must be; None if more may be in the file than are used.
        payload_bytes: All values together, eight bytes for each storage included; None for a zip archive.
    """

    names: list[str]
    storages: Counter[int] | None = None
    num_storages: int | None = None
    payload_bytes: int | None = None


def inspect(file: BinaryIO, size: int) -> Layout:
    """Look through a file without unpickling it.

    Args:
        file: Opened at any position.
        size: Its size in bytes.

    Raises:
        Refused: It is something else than torch.save writes.
    """
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if head.startswith(ZIP):
        return inspect_zip(file, size)
    if head[257:262] == b"ustar":
        raise Refused("is a tar archive; unpack it and give the file of weights, or save it again with a newer torch")
    if head.startswith(LEGACY):
        return inspect_legacy(file, size)
    raise Refused(other_kind(head))


def other_kind(head: bytes) -> str:
    """What a file is that holds no weights, told from its first bytes."""
    for beginning, words in KINDS.items():
        if head.startswith(beginning):
            return words
    if not head:
        return "is empty; fetch it again"
    text = " ".join(head.decode("utf-8", errors="ignore").split())
    if text.isprintable() and len(text.encode()) > len(head) / 2:
        start = shown(text[:60]) + "..." * (len(text) > 60)
        return f"is text ({start}) and no weights, perhaps a page of an error; fetch the file itself"
    return f"is of no known kind (it begins with {head[:8].hex(' ')}); give a file of torch.save or .safetensors"


def inspect_zip(file: BinaryIO, size: int) -> Layout:
    """Check an archive's entries and checksums, and read which names its pickle asks for.

    Raises:
        Refused: It is not as torch.save writes it.
    """
    require_zip_end(file, size)
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            folder = require_plain_entries(entries)
            require_separate_entries(file, entries, archive.start_dir)
            damaged = archive.testzip()
            if damaged is not None:
                raise Refused(f"is damaged: {shown(damaged)} in it does not fit its checksum; fetch it again")
            sizes = {entry.filename.removeprefix(f"{folder}/"): entry.file_size for entry in entries}
            require_weights_archive(sizes)
            if "byteorder" in sizes and archive.read(f"{folder}/byteorder") != b"little":
                raise Refused("was written on a machine of another byte order; save it again on a common one")
            names = requested_names(io.BytesIO(archive.read(f"{folder}/data.pkl")))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise Refused(f"is damaged: its archive cannot be read ({shown(str(error))}); fetch it again") from error
    return Layout(names, Counter(value for name, value in sizes.items() if name.startswith("data/")))


def require_zip_end(file: BinaryIO, size: int) -> None:
    """Require that the archive's last part is the last part of the file.

    Raises:
        Refused: The file is cut off, or goes on.
    """
    file.seek(max(0, size - 0xFFFF - ZIP_END_BYTES))
    tail = file.read()
    if len(tail) >= ZIP_END_BYTES and tail[-ZIP_END_BYTES:].startswith(ZIP_END) and tail.endswith(b"\0\0"):
        return
    if 0 <= tail.rfind(ZIP_END) <= len(tail) - ZIP_END_BYTES:
        raise Refused("has bytes after the end of its archive, so it is damaged or made up; fetch it again")
    raise Refused(f"is cut off after {size:,} bytes: the end of its archive is missing; fetch it again")


def require_plain_entries(entries: list[zipfile.ZipInfo]) -> str:
    """Require entries as torch.save makes them, and return the one folder that they all lie in.

    Raises:
        Refused: A name, a flag or a kind is another.
    """
    folders = {entry.filename.partition("/")[0] for entry in entries}
    for entry in entries:
        name = entry.filename
        inner = name.partition("/")[2]
        # Two readers must see one name: zipfile ends it at a zero byte and may take another one from an extra field.
        if name != entry.orig_filename or not inner.isascii():
            raise Refused(f"has an entry {shown(entry.orig_filename)} with an ambiguous name; do not use it")
        if "\\" in name or name.startswith("/") or ".." in name.split("/"):
            raise Refused(f"has an entry {shown(name)} that leads out of its archive; do not use it")
        # torch 2.13 takes an entry with the folder mark of DOS as read and returns memory that nothing was written to.
        marked = entry.external_attr & DOS_FOLDER or entry.is_dir()
        if marked or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise Refused(f"has an entry {shown(name)} that is a link or a folder; do not use it")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Refused(f"has a compressed entry {shown(name)}, which torch.save never writes; unpack it first")
        if entry.flag_bits & ~ZIP_FLAGS:
            raise Refused(f"has an encrypted or patched entry {shown(name)}; save it again with torch.save")
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise Refused("has two entries of one name, so it is damaged or made up; do not use it")
    if len(folders) != 1:
        raise Refused(
            "is an archive, but none of torch.save's: its entries lie in several folders; give a file of weights"
        )
    return folders.pop()


def require_separate_entries(file: BinaryIO, entries: list[zipfile.ZipInfo], end: int) -> None:
    """Require that the entries begin at the start of the file and that none reaches into the next.

    Raises:
        Refused: They overlap, or something lies before them.
    """
    position = 0
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry.header_offset)):
        if entry.header_offset < position or (number == 0 and entry.header_offset > 0):
            raise Refused(f"has an entry {shown(entry.filename)} that overlaps another; do not use it")
        file.seek(entry.header_offset)
        local = file.read(ZIP_LOCAL_BYTES)
        lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
        position = entry.header_offset + ZIP_LOCAL_BYTES + lengths + entry.compress_size
    if position > end:
        raise Refused("has an entry that overlaps its table of contents; do not use it")


def require_weights_archive(sizes: dict[str, int]) -> None:
    """Require the one pickle of torch.save, and no program.

    Raises:
        Refused: The archive is of another kind.
    """
    if "constants.pkl" in sizes or any(name.startswith("code/") for name in sizes):
        raise Refused(
            "is a TorchScript archive, which is a program; where it was made, save torch.save(model.state_dict(), path)"
        )
    if "data.pkl" not in sizes:
        some = ", ".join(shown(name) for name in list(sizes)[:3])
        raise Refused(f"is an archive of {some} without the data.pkl of torch.save; give a file of weights")


def inspect_legacy(file: BinaryIO, size: int) -> Layout:
    """Walk over the five pickles of torch before 1.6, and measure what follows.

    Raises:
        Refused: It is cut off or made up.
    """
    file.seek(0)
    before = [requested_names(file) for _ in range(3)]  # magic number, version, the machine it was written on
    names = requested_names(file)
    num_storages = count_texts(file)
    if any(before):
        raise Refused("asks for names of Python's outside its weights; do not use it")
    return Layout(names, num_storages=num_storages, payload_bytes=size - file.tell())
