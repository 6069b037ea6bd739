"""Files that torch.save wrote elsewhere, turned into plain ones. It is meant to run as a process of its own.

    python -m deeplabv3.model.unpickling SOURCE TARGET CPU_SECONDS

    __main__     the process: limits, the work, one line of JSON that says how it went
    limits       memory, time, size of files; no programs, connections or other files
    containers   what kind of file it is, and whether its parts lie where they should
    instructions  a pickle read as a list, not carried out
    pickles      what it asks for: allowed, replaced by something inert, or refused
    convert      torch.load under these rules; the weights go to a .safetensors file
    contents     where in the loaded value the weights and the texts are

A file is looked through before torch sees it, and torch reads it with `weights_only=True`. Whatever is wrong is a
`Refused`; `deeplabv3.model.foreign` starts the process and turns its answer into a CheckpointError.
"""


class Refused(Exception):
    """Why a file is not read: what was seen and the next step, to be put after the file's name."""


def one_line(error: BaseException) -> str:
    """What an error says, in one short line of plain characters."""
    lines = str(error).strip().splitlines()
    return ascii(lines[0][:160])[1:-1].replace("\\'", "'") if lines else type(error).__name__


def shown(text: str) -> str:
    """A name out of a file for a message: short, in one line, without control characters."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 80 else f"{plain[:80]}..."
