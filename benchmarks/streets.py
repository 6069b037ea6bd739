"""How many synthetic scenes of 512x256 one core draws and writes a second, all five files each.

    python benchmarks/streets.py [number of scenes]

Scenes are written by this process alone; seconds are those of its own processor time, so that other work on the
machine counts less. The peer is the figure that was asked for. The last line is one JSON object.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL

from deeplabv3.data.streets import write_streets

WANTED_SCENES_PER_SECOND = 10.0
WARM_UP = 4


def main(num_scenes: int = 100) -> None:
    """Measure, and print a table and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        write_streets(Path(folder) / "warm", num_train=WARM_UP, num_val=0, num_workers=1)
        start = time.process_time()
        write_streets(Path(folder) / "streets", num_train=num_scenes, num_val=0, num_workers=1)
        speed = num_scenes / (time.process_time() - start)
    print(f"scenes of 512x256 a second and core: {speed:.1f} (asked for: {WANTED_SCENES_PER_SECOND:.0f})")
    machine = {"processor": platform.machine(), "numpy": np.__version__, "pillow": PIL.__version__}
    row = {
        "name": "streets 512x256",
        "ours": round(speed, 2),
        "peer": WANTED_SCENES_PER_SECOND,
        "unit": "scenes a second and core",
        "ratio": round(speed / WANTED_SCENES_PER_SECOND, 2),
    }
    print(json.dumps({"machine": machine, "rows": [row]}))


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:]))
