"""How many frames Cityscapes has, and what to say where fewer or more are there.

A frame that is gone with its label leaves no trace in any file: only the official numbers tell that an archive was not
unpacked to its end. Whoever took frames out on purpose, as the check itself advises for a bad one, is not at fault,
and neither is who trains on some cities. So a number is a note and no defect: it is told, and stops nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

FRAMES_OF_CITY = {
    "train": {
        "aachen": 174, "bochum": 96, "bremen": 316, "cologne": 154, "darmstadt": 85, "dusseldorf": 221, "erfurt": 109,
        "hamburg": 248, "hanover": 196, "jena": 119, "krefeld": 99, "monchengladbach": 94, "strasbourg": 365,
        "stuttgart": 196, "tubingen": 144, "ulm": 95, "weimar": 142, "zurich": 122,
    },
    "val": {"frankfurt": 267, "lindau": 59, "munster": 174},
    "test": {"berlin": 544, "bielefeld": 181, "bonn": 46, "leverkusen": 58, "mainz": 298, "munich": 398},
}  # fmt: skip
"""Of the finely annotated part: 2,975, 500 and 1,525."""

_NAME = re.compile(r"([a-z]+)_\d{6}_\d{6}")


def note_on_number(split: str, frames: Iterable[str]) -> str:
    """What to say of a split that is Cityscapes' own and has another number of frames; "" where there is nothing.

    It is Cityscapes' own if more than half of the official frames, or some of every official city, are there by their
    names: city, sequence and frame of six digits. Frames of other names are somebody's own, and are not counted.

    Args:
        split: Its folder.
        frames: The names of the frames whose images are there.
    """
    official = FRAMES_OF_CITY.get(split, {})
    seen = Counter(match[1] for frame in frames if (match := _NAME.fullmatch(frame)) and match[1] in official)
    wanted = sum(official.values())
    is_official = seen and (2 * seen.total() > wanted or seen.keys() == official.keys())
    differing = [f"{city} {seen[city]:,} of {number:,}" for city, number in official.items() if seen[city] != number]
    if not is_official or not differing:
        return ""
    numbers = f"{split} has {seen.total():,} frames with the names of Cityscapes, which has {wanted:,}"
    archives = "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip"
    return f"{numbers} ({', '.join(differing)}); unless that is meant, unpack {archives} anew"
