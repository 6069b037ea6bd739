"""The confusion matrix as a table: shares of each row to be seen, pixel counts on hover and beside."""

from __future__ import annotations

import math

from deeplabv3.evaluation.confusion import Counts
from deeplabv3.evaluation.scores import Scores
from deeplabv3.report.markup import (
    NONE,
    count_text,
    css_color,
    escape,
    mistakes_list,
    named,
    share_text,
    swatch,
)
from deeplabv3.report.mistakes import class_counts, class_name, largest_mistakes, occurring

NUM_MISTAKES = 6
SCALE = (0.01, 0.05, 0.25, 0.5, 1.0)
"""The shares whose colours are shown below the matrix."""

STRONG = 0.8
"""From this strength on, a number is easier to read in white."""

DENSE = 26
"""From as many columns on, a cell is too small for its number."""


def strength(share: float) -> float:
    """How strongly a cell is coloured, 0..1: the square root of its share, so that one percent can be seen."""
    return math.sqrt(share)


def matrix_table(scores: Scores) -> str:
    """Rows are labels and columns predictions, over the classes that occur."""
    labels = scores.label_set
    matrix = class_counts(scores.counts, labels)
    shown = occurring(matrix)
    if not shown:
        return '<p class="lead">No pixel of these frames is labelled with a class that is scored.</p>'
    columns = shown + ([labels.num_classes] if matrix[:, labels.num_classes].any() else [])
    heads = "".join(
        f'<th scope="col"><div><span>{escape(class_name(column, labels))}</span>{swatch(css_color(column, labels))}'
        "</div></th>"
        for column in columns
    )
    rows = "".join(_row(row, columns, matrix, scores) for row in shown)
    mistakes = mistakes_list(largest_mistakes(matrix, NUM_MISTAKES), matrix, labels)
    if mistakes:
        mistakes = f'<p class="lead">The most frequent mistakes, in percent of all labelled pixels:</p>{mistakes}'
    return (
        f'{mistakes}<div class="scroll"><table class="{"matrix dense" if len(columns) >= DENSE else "matrix"}" '
        f'style="--n:{len(columns)}"><thead><tr><th class="corner"><span>label \u2193</span> '
        f'<span>prediction \u2192</span></th>{heads}<th scope="col" class="total">labelled pixels</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_legend()}"
    )


def _row(row: int, columns: list[int], matrix: Counts, scores: Scores) -> str:
    total = int(matrix[row].sum())
    name = f'<th scope="row">{named(row, scores.label_set)}</th>'
    if not total:
        nothing = f'<td class="nothing" colspan="{len(columns)}">predicted, but in no label</td>'
        return f'<tr>{name}{nothing}<td class="total">{NONE}</td></tr>'
    cells = "".join(_cell(row, column, int(matrix[row, column]), total, scores) for column in columns)
    return f'<tr>{name}{cells}<td class="total">{count_text(total)}</td></tr>'


def _cell(row: int, column: int, count: int, total: int, scores: Scores) -> str:
    kind = "right" if row == column else "wrong"
    if not count:
        return "<td></td>" if kind == "wrong" else '<td class="right"></td>'  # a large matrix is mostly empty
    share = count / total
    figure = f"{100 * share:.0f}" if share >= 0.005 else ""
    strong = " strong" if strength(share) >= STRONG else ""
    row_name, column_name = (escape(class_name(train_id, scores.label_set)) for train_id in (row, column))
    tip = f"{row_name} \u2192 {column_name}: {count_text(count)} pixels, {share_text(share)} of {row_name}"
    return f'<td class="{kind}{strong}" style="--s:{strength(share):.3f}" data-tip="{tip}">{figure}</td>'


def _legend() -> str:
    def ramp(kind: str) -> str:
        return "".join(f'<i class="{kind}" style="--s:{strength(share):.3f}"></i>' for share in SCALE)

    figures = "".join(f"<span>{100 * share:.0f}</span>" for share in SCALE)
    return (
        '<div class="ramps"><div><b>right</b>' + ramp("right") + "</div><div><b>wrong</b>" + ramp("wrong") + "</div>"
        f"<div><b>% of the row</b>{figures}</div></div>"
    )
