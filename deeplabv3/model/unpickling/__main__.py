"""The reading process: `python -m deeplabv3.model.unpickling SOURCE TARGET CPU_SECONDS`.

It prints one line of JSON: {} when TARGET is written, or {"refused": "why"}.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

import torch

from deeplabv3.model.unpickling import Refused, one_line
from deeplabv3.model.unpickling.convert import convert
from deeplabv3.model.unpickling.limits import forbid_everything_else, set_limits


def main(source: Path, target: Path, cpu_seconds: int) -> dict[str, str]:
    """Convert a file within limits and return the answer."""
    torch.set_num_threads(1)
    try:
        set_limits(source.stat().st_size, cpu_seconds)
        forbid_everything_else(target)
        convert(source, target)
    except Refused as refused:
        return {"refused": str(refused)}
    except Exception as error:
        return {"refused": f"cannot be read as weights ({one_line(error)}); it is damaged or made up: fetch it again"}
    return {}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))), flush=True)
    gc.freeze()  # whoever waits for the end need not wait for a search for garbage
