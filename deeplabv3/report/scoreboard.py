"""The sections of the page that show scores: the headline, the classes, the categories."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from deeplabv3.evaluation.confusion import Counts
from deeplabv3.evaluation.scores import Ids, Scores, accuracy, groups
from deeplabv3.report.markup import (
    NONE,
    best_first,
    count_text,
    css_color,
    escape,
    is_light,
    named,
    percents,
    share_text,
)
from deeplabv3.report.mistakes import class_counts, class_name

ABSENT = "in no label and no prediction"
_LEAST_NAMED_SHARE = 0.09  # of a ribbon, so that a class's name fits on it


def headline(scores: Scores) -> str:
    """MIoU in large figures, the other means, and what the labels and the predictions consist of."""
    num_pixels = sum(frame.num_pixels for frame in scores.frames)
    weighted = f"not available: {scores.why_no_iiou}"
    if scores.class_iiou is not None:
        weighted = f"by objects, {_present(scores.class_iiou)} classes"
    figures = [_figure("pixel accuracy", _with_unit(scores.pixel_accuracy), "of the labelled pixels are right")]
    if scores.category_iou:
        note = f"{_present(scores.category_iou)} categories"
        figures.append(_figure("mean category IoU", _with_unit(scores.mean_category_iou), note))
    figures.append(_figure("mean iIoU", _with_unit(scores.mean_class_iiou), weighted))
    figures.append(_figure("frames", count_text(len(scores.frames)), f"{count_text(num_pixels)} labelled pixels"))
    return (
        f'<div class="hero"><div><div class="big">{_with_unit(scores.miou)}</div>'
        f'<div class="what">mIoU <span>over {_present(scores.class_iou)} classes</span></div></div>'
        f'<dl class="figures">{"".join(figures)}</dl></div>{_ribbons(scores)}'
    )


def _present(scores: Mapping[str, float]) -> str:
    """How many of some scores are there, and so in their mean."""
    return f"{sum(not math.isnan(score) for score in scores.values())} of {len(scores)}"


def _with_unit(fraction: float | None) -> str:
    text = percents(fraction)
    return text if text == NONE else f'{text}<span class="unit">%</span>'


def _figure(name: str, value: str, note: str) -> str:
    return f'<div><dt>{name}</dt><dd>{value}</dd><dd class="note">{escape(note)}</dd></div>'


def _ribbons(scores: Scores) -> str:
    """Two bars as wide as the page: the classes' shares of what is labelled, and of what was predicted there."""
    matrix = class_counts(scores.counts, scores.label_set)
    if not matrix.sum():
        return ""
    rows = (("labelled", np.append(matrix.sum(1), 0)), ("predicted", matrix.sum(0)))
    return f'<div class="ribbons">{"".join(_ribbon(name, counts, scores) for name, counts in rows)}</div>'


def _ribbon(name: str, counts: Counts, scores: Scores) -> str:
    total, parts = int(counts.sum()), []
    for train_id, count in enumerate(counts.tolist()):
        if count:
            share, color = count / total, css_color(train_id, scores.label_set)
            text = escape(class_name(train_id, scores.label_set))
            written = f"<span>{text}</span>" if share >= _LEAST_NAMED_SHARE else ""
            ink = "dark" if is_light(color) else "light"
            title = f"{text}: {share_text(share)} of what is {name}, {count_text(count)} pixels"
            parts.append(f'<i class="{ink}" style="--c:{color};flex-grow:{count}" title="{title}">{written}</i>')
    return f'<div class="ribbon"><b>{name}</b><div>{"".join(parts)}</div></div>'


def class_table(scores: Scores) -> str:
    """A bar for each class in its colour, the highest IoU first; those that do not occur last, and never as zero."""
    ids_of, _, _ = groups(scores.label_set)
    train_ids = {name: train_id for train_id, name in enumerate(scores.label_set.names)}
    rows = [
        _bar_row(
            named(train_ids[name], scores.label_set),
            css_color(train_ids[name], scores.label_set),
            scores.class_iou[name],
            _iiou_of(scores.class_iiou, name),
            _share_of(ids_of[name], scores),
        )
        for name in best_first(scores.class_iou)
    ]
    return _bar_table("class", rows, scores.miou, scores.mean_class_iiou)


def category_table(scores: Scores) -> str:
    """The same for the categories; nothing where the label set has none."""
    _, ids_of, _ = groups(scores.label_set)
    rows = [
        _bar_row(
            escape(name),
            "var(--neutral)",
            scores.category_iou[name],
            _iiou_of(scores.category_iiou, name),
            _share_of(ids_of[name], scores),
        )
        for name in best_first(scores.category_iou)
    ]
    return _bar_table("category", rows, scores.mean_category_iou, scores.mean_category_iiou) if rows else ""


def _iiou_of(scores: Mapping[str, float] | None, name: str) -> float | None:
    """None where there is no such score at all."""
    return None if scores is None else scores.get(name)


def _share_of(ids: Ids, scores: Scores) -> str:
    """How much of the labelled pixels belong to some label ids."""
    count = int(scores.counts[ids].sum())
    return share_text(count / accuracy(scores.counts, scores.label_set)[1]) if count else NONE


def _bar_row(name: str, color: str, iou: float, iiou: float | None, share: str) -> str:
    kind = ""
    if math.isnan(iou):
        kind, bar = ' class="absent"', f"<span>{ABSENT}</span>"
    else:
        tick = f'<i style="left:{100 * iiou:.2f}%"></i>' if iiou is not None and iiou > 0 else ""
        bar = f'<div class="track"><b style="--c:{color};width:{100 * iou:.2f}%"></b>{tick}</div>'
    weighted = "" if iiou is None else percents(iiou)
    return (
        f'<tr{kind}><th scope="row">{name}</th><td class="bar">{bar}</td><td class="number strong">{percents(iou)}</td>'
        f'<td class="number iiou">{weighted}</td><td class="share">{share}</td></tr>'
    )


def _bar_table(what: str, rows: list[str], mean: float, mean_iiou: float | None) -> str:
    line = "" if math.isnan(mean) else f' style="--mean:{100 * mean:.2f}%"'
    kind = "bars" + (" plain" if mean_iiou is None else "") + (" with-mean" if line else "")
    weighted = "" if mean_iiou is None else percents(mean_iiou)
    return (
        f'<table class="{kind}"{line}><thead><tr><th scope="col">{what}</th><th class="scale"><span>0</span>'
        '<span>50</span><span>100</span></th><th scope="col">IoU&#8239;%</th><th scope="col" class="iiou">'
        f'iIoU&#8239;%</th><th scope="col" class="share">of the labels</th></tr></thead><tbody>{"".join(rows)}</tbody>'
        f'<tfoot><tr><th scope="row">mean</th><td></td><td class="number strong">{percents(mean)}</td>'
        f'<td class="number iiou">{weighted}</td><td class="share"></td></tr></tfoot></table>'
    )
