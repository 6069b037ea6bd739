"""The small pieces that every section of the page is made of."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping

from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.confusion import Counts
from deeplabv3.report.mistakes import Mistake, class_name
from deeplabv3.report.tables import percent

NONE = "\u2013"
"""Stands for a number that there is not."""


def escape(text: object) -> str:
    """Text of users and files as HTML, in elements and in quoted attributes.

    Bytes of a file's name that are no UTF-8 are written as numbers, for a page has to be UTF-8.
    """
    return html.escape(str(text).encode("utf-8", "backslashreplace").decode())


def drawable(text: str) -> str:
    """Text for a picture: what cannot be drawn, such as a line break, becomes a question mark."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def percents(fraction: float | None) -> str:
    """A fraction in percent with two digits and without the sign; a dash for NaN and for what is not there."""
    return NONE if fraction is None or math.isnan(fraction) else percent(fraction)


def best_first(scores: Mapping[str, float]) -> list[str]:
    """Names by score, the highest first and those that are NaN last."""
    return sorted(scores, key=lambda name: 1.0 if math.isnan(scores[name]) else -scores[name])


def share_text(share: float) -> str:
    """A share in percent with as many digits as it needs to be told from nothing."""
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "&lt; 0.1 %"


def count_text(count: int) -> str:
    """A whole number with its thousands apart."""
    return f"{count:,}"


def css_color(train_id: int, label_set: LabelSet) -> str:
    """The colour of a class as CSS writes it; black for ignored ids, as in the masks."""
    red, green, blue = label_set.evaluated[train_id].color if train_id < label_set.num_classes else (0, 0, 0)
    return f"#{red:02x}{green:02x}{blue:02x}"


def is_light(color: str) -> bool:
    """Whether black is easier to read than white on a colour such as `#804080`: by relative luminance, as in WCAG 2."""
    values = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179


def swatch(color: str) -> str:
    """A small square of a colour."""
    return f'<i class="swatch" style="--c:{color}"></i>'


def named(train_id: int, label_set: LabelSet) -> str:
    """A class as its colour and its name."""
    return f"{swatch(css_color(train_id, label_set))}{escape(class_name(train_id, label_set))}"


def mistakes_list(mistakes: list[Mistake], matrix: Counts, label_set: LabelSet) -> str:
    """Kinds of wrong pixels, each with its share of all pixels in the matrix that it is from; nothing without any."""
    total = int(matrix.sum())
    items = "".join(
        f'<li title="{count_text(mistake.num_pixels)} pixels">{named(mistake.label, label_set)}'
        f'<span class="arrow">\u2192</span>{named(mistake.prediction, label_set)}'
        f"<b>{share_text(mistake.num_pixels / total)}</b></li>"
        for mistake in mistakes
    )
    return f'<ul class="mistakes">{items}</ul>' if items else ""


def data_uri(content: bytes, kind: str) -> str:
    """A picture as an address that holds it; `kind` is png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
