"""How often each class occurs in a data set, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from deeplabv3.data.findings import Findings
from deeplabv3.report.charts import GRID, INK, MUTED, as_png, bare, names_along, new_figure, short_name
from deeplabv3.report.markup import css_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOWEST_PERCENT = 1e-3  # where the scale begins at least
_PERCENTS, _FRAMES = 250, 700  # where figures of the first split end, right of the scale
_MARKS = "|xo+v^"  # of the splits after the first


def balance_png(findings: Findings) -> bytes:
    """A bar for each class in its colour: its percent of the first split's labelled pixels, on a logarithmic scale.

    The other splits are marks on the bars, and behind them stands in how many frames of the first split the class is.
    """
    labels = findings.label_set
    shares = {
        split: [100 * pixels / max(1, sum(counts.pixels)) for pixels in counts.pixels]
        for split, counts in findings.splits.items()
    }
    (first, bars), *others = shares.items()
    order = sorted(range(labels.num_classes), key=lambda train_id: (bars[train_id], -train_id))
    positive = [share for values in shares.values() for share in values if share > 0]
    low = 10.0 ** math.floor(math.log10(min([*positive, 1.0])) - 0.01)
    low = max(low, _LOWEST_PERCENT * 1e-3)
    figure = new_figure(10, 1.6 + 0.29 * len(order))
    axes = figure.subplots()
    bare(axes)
    axes.set_xscale("log")
    for place, train_id in enumerate(order):
        share, frames = bars[train_id], findings.splits[first].frames[train_id]
        if share > low:
            width = share - low
            color = css_color(train_id, labels)
            axes.barh(place, width, 0.72, left=low, color=color, edgecolor="#00000040", linewidth=0.6)
        else:
            axes.text(
                low * 1.1, place, f"not in {first}", va="center", color=MUTED, style="italic", size=9, parse_math=False
            )
        if frames:
            text = f"{share:.2g}" if share < 1 else f"{share:.1f}"
            axes.text(_PERCENTS, place, text, va="center", ha="right", color=INK, size=9)
            axes.text(_FRAMES, place, f"{frames:,}", va="center", ha="right", color=INK, size=9)
    _mark(axes, others, order)
    for right, text in ((_PERCENTS, "%"), (_FRAMES, "frames")):
        axes.text(right, len(order) - 0.3, text, ha="right", color=MUTED, size=9)
    names_along(axes, "y", [short_name(labels.names[train_id]) for train_id in order])
    axes.set(xlim=(low, _FRAMES), ylim=(-0.6, len(order) - 0.4))
    axes.set_xticks([10.0**power for power in range(round(math.log10(low)), 3)])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", color=GRID)
    marks = ", ".join(f"{mark} {split}" for (split, _), mark in zip(others, cycle(_MARKS), strict=False))
    legend = f"labelled pixels, % (logarithmic); bars {first}" + (f", {marks}" if marks else "")
    axes.set_xlabel(legend, color=MUTED, parse_math=False)
    axes.set_title("class balance", loc="left", color=INK, size=15, weight="bold", pad=12)
    return as_png(figure)


def _mark(axes: Axes, others: Sequence[tuple[str, Sequence[float]]], order: Sequence[int]) -> None:
    """Draw what the splits after the first have, each with a mark of its own."""
    for (_, values), mark in zip(others, cycle(_MARKS), strict=False):
        drawn = [(values[train_id], place) for place, train_id in enumerate(order) if values[train_id] > 0]
        x, y = [share for share, _ in drawn], [place for _, place in drawn]
        size = 15 if mark == "|" else 7
        axes.plot(x, y, mark, color="white", markersize=size, markeredgewidth=4.5)
        axes.plot(x, y, mark, color=INK, markersize=size, markeredgewidth=1.8)
