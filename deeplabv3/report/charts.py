"""The page's charts as PNGs of their own, for talks."""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from deeplabv3.evaluation.scores import Scores
from deeplabv3.report.markup import NONE, best_first, css_color, drawable, percents
from deeplabv3.report.matrix import DENSE, STRONG, strength
from deeplabv3.report.mistakes import class_counts, class_name, occurring

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#14181f", "#566170", "#e0e5ea"
RIGHT, WRONG = "#1f57a4", "#c4302b"
TRAIN, VALIDATION, MIOU = "#7d8896", "#d2602f", RIGHT
"""The colours of the page's style sheet."""

MARGIN = 0.15
"""Around and between the parts of a figure, in inches."""

_LONGEST_NAME = 28
_LETTER = 0.085  # width of one, in inches


def new_figure(width: float, height: float, *, is_laid_out: bool = True) -> Figure:
    """An empty figure of a size in inches; without pyplot, so without a window system and global state.

    Args:
        width: In inches.
        height: In inches.
        is_laid_out: Whether its parts find their places by themselves, for which it is drawn once more.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=MARGIN, h_pad=MARGIN) if is_laid_out else None
    return Figure(figsize=(width, height), dpi=150, layout=layout)


def bare(axes: Axes) -> None:
    """Leave of the axes what is needed to read them."""
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=MUTED)
    axes.set_axisbelow(True)


def as_png(figure: Figure) -> bytes:
    """The file of a drawn figure, the same bytes for the same figure."""
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names may be in any script
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def classes_png(scores: Scores) -> bytes:
    """A bar for each class in its colour, the highest IoU on top, a tick for its iIoU, a line for the mean."""
    labels = scores.label_set
    order = [labels.names.index(name) for name in reversed(best_first(scores.class_iou))]
    figure = new_figure(10, 1.4 + 0.29 * len(order))
    axes = figure.subplots()
    bare(axes)
    for place, train_id in enumerate(order):
        iou = scores.class_iou[labels.names[train_id]]
        iiou = (scores.class_iiou or {}).get(labels.names[train_id], math.nan)
        if math.isnan(iou):
            axes.text(0.5, place, "in no label and no prediction", va="center", color=MUTED, style="italic", size=9)
            axes.text(103, place, NONE, va="center", ha="right", color=MUTED)
            continue
        axes.barh(place, 100 * iou, 0.72, color=css_color(train_id, labels), edgecolor="#00000040", linewidth=0.6)
        if iiou > 0:
            axes.plot([100 * iiou] * 2, [place - 0.42, place + 0.42], color="white", linewidth=4.5)
            axes.plot([100 * iiou] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.8)
        axes.text(106, place, percents(iou), va="center", ha="right", color=INK)
    names_along(axes, "y", [short_name(labels.names[train_id]) for train_id in order])
    if not math.isnan(scores.miou):
        axes.axvline(100 * scores.miou, color=INK, linewidth=1.2, linestyle=(0, (3, 3)))
    axes.set(xlim=(0, 106), ylim=(-0.6, len(order) - 0.4), xticks=range(0, 101, 20))
    axes.set_xlabel("IoU, %" + ("; ticks: iIoU" if scores.class_iiou else "") + "; dashed: mIoU", color=MUTED)
    axes.grid(axis="x", color=GRID)
    axes.set_title(f"mIoU {percents(scores.miou)} %", loc="left", color=INK, size=15, weight="bold", pad=12)
    return as_png(figure)


def names_along(axes: Axes, which: str, names: list[str], **style: Any) -> None:
    """Names of classes along an axis, none of them read as a formula."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    axis.set_ticks(range(len(names)), names, parse_math=False, color=INK, **style)


def short_name(name: str) -> str:
    """A name that can be drawn and leaves room for the chart."""
    return drawable(name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "\u2026")


def confusion_png(scores: Scores) -> bytes:
    """The confusion matrix over the classes that occur, each row by itself in percent."""
    labels = scores.label_set
    matrix = class_counts(scores.counts, labels)
    rows = occurring(matrix)
    columns = rows + ([labels.num_classes] if matrix[:, labels.num_classes].any() else [])
    if not rows:
        figure = new_figure(5.5, 1.0)
        figure.supxlabel("no pixel is labelled with a class that is scored", color=MUTED, fontsize=10)
        return as_png(figure)
    names = [short_name(class_name(column, labels)) for column in columns]
    side = min(0.5, max(0.12, 13 / max(1, len(columns))))
    room = 1.2 + _LETTER * max(map(len, names), default=0)
    figure = new_figure(max(5.5, room + side * len(columns)), room + side * len(rows))
    axes = figure.subplots()
    bare(axes)
    counts = matrix[np.ix_(rows, columns)]
    totals = matrix[rows].sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    axes.imshow(_cell_colors(shares, rows, columns), aspect="equal")
    if len(columns) < DENSE:
        for (row, column), share in np.ndenumerate(shares):
            if share >= 0.005:
                ink = "white" if strength(share) >= STRONG else INK
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=ink, size=9)
    small = min(9.5, 60 * side)
    names_along(axes, "y", names[: len(rows)], fontsize=small)
    names_along(axes, "x", names, fontsize=small, rotation=90)
    axes.xaxis.tick_top()
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    figure.supxlabel("rows: labels; columns: predictions, in percent of the row", color=MUTED, fontsize=10)
    return as_png(figure)


def _cell_colors(shares: Any, rows: list[int], columns: list[int]) -> Any:
    """RGB 0..1 `(rows, columns, 3)`: blue where label and prediction agree, red elsewhere, on a pale ground."""
    from matplotlib.colors import to_rgb

    right = np.equal.outer(rows, columns)[..., None]
    color = np.where(right, to_rgb(RIGHT), to_rgb(WRONG))
    strengths = np.sqrt(shares)[..., None]
    return strengths * color + (1 - strengths) * np.array(to_rgb("#f5f7f9"))
