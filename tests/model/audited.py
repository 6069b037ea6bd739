"""Read every file of a folder under an audit hook, which cannot be taken away again: hence a process of its own.

    python -m tests.model.audited FOLDER MARKER

It prints one JSON object: what came of each file, what happened that should not, whether the marker was touched, and
what happens when an ordinary reader is let loose on one of the files.
"""

import ctypes
import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch

from deeplabv3.model import foreign
from deeplabv3.model.unpickling.convert import convert
from deeplabv3.model.unpickling.limits import FORBIDDEN, set_limits

events: list[str] = []
listening = False
TEMPORARY = tempfile.gettempdir()
OURS = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
    str(Path(foreign.__file__).parent.parent),
    "<frozen",
)


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    if not listening:
        return
    if event == "open":
        writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and not str(arguments[0]).startswith(TEMPORARY):
            events.append(f"{event} {arguments[0]}")
    elif event == "exec" and not arguments[0].co_filename.startswith(OURS):
        events.append(f"{event} {arguments[0].co_filename}")
    elif event == "compile" and not str(arguments[1]).startswith(OURS):
        events.append(f"{event} {arguments[1]}")
    elif event == "ctypes.call_function" and sys._getframe(1).f_code is ctypes.cast.__code__:
        pass  # safetensors calls nothing but that; before Python 3.14 it was no event
    elif event.startswith((*FORBIDDEN, "ctypes.")) and not event.startswith(
        ("os.mkdir", "os.remove", "os.rmdir", "shutil.")
    ):
        events.append(f"{event} {arguments}")


def main(folder: Path, marker: Path) -> dict[str, Any]:
    global listening
    torch.set_num_threads(1)
    foreign.unpickle = convert  # here instead of in a process of its own
    foreign.read_foreign(folder.parent / "genuine.pth")  # torch imports some of its parts when it first reads
    set_limits(32 << 20, 120)
    sys.addaudithook(listen)
    outcomes = {}
    listening = True
    for path in sorted(folder.iterdir()):
        try:
            foreign.read_foreign(path)
        except Exception as error:
            outcomes[path.name] = [type(error).__name__, str(error)]
        else:
            outcomes[path.name] = ["", "it was read"]
    found = {"outcomes": outcomes, "events": events.copy(), "touched": marker.exists()}
    torch.load(folder / "os_system_protocol_2", weights_only=False)
    return found | {"control_events": events, "control_touched": marker.exists()}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
