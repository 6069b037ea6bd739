"""The sections of the page that show frames, and the legend of their colours."""

from __future__ import annotations

import math

from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.confusion import count_pixels
from deeplabv3.report.markup import css_color, data_uri, escape, mistakes_list, named, percents, swatch
from deeplabv3.report.mistakes import class_counts, largest_mistakes
from deeplabv3.report.worst import CAPTIONS, IGNORED, PAGE_SIDE, WRONG, ShownFrame, mask_png, panels_of, photo_jpeg

NUM_MISTAKES = 4
_SMALL = 400  # pixels; frames that are enlarged by the browser show their pixels as they are


def frame_article(frame: ShownFrame, label_set: LabelSet) -> str:
    """A frame: its scores, its four pictures side by side, and what was taken for what."""
    panels = panels_of(frame, label_set, PAGE_SIDE)
    addresses = (
        data_uri(photo_jpeg(panels.image), "jpeg"),
        data_uri(mask_png(panels.label, label_set), "png"),
        data_uri(mask_png(panels.prediction, label_set), "png"),
        data_uri(photo_jpeg(panels.errors), "jpeg"),
    )
    height, width = panels.label.shape
    small = ' class="small"' if max(height, width) < _SMALL else ""
    name, score = escape(frame.score.name), frame.score
    accuracy = score.num_right / score.num_pixels if score.num_pixels else math.nan
    pictures = "".join(
        f'<figure><img src="{address}" width="{width}" height="{height}" alt="{caption} of {name}"{small}>'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, address in zip(CAPTIONS, addresses, strict=True)
    )
    matrix = class_counts(count_pixels(frame.label_ids, frame.prediction_ids, label_set.num_ids), label_set)
    return (
        f'<article class="frame"><header><h3>{name}</h3><p><b>{percents(score.miou)} %</b> mIoU</p>'
        f"<p><b>{percents(accuracy)} %</b> of its pixels right</p></header>"
        f'<div class="panels">{pictures}</div>'
        f"{mistakes_list(largest_mistakes(matrix, NUM_MISTAKES), matrix, label_set)}</article>"
    )


def legend(label_set: LabelSet) -> str:
    """The colours of the masks and of the error maps."""
    names = "".join(f"<li>{named(train_id, label_set)}</li>" for train_id in range(label_set.num_classes))
    ignored = f"<li>{swatch(css_color(label_set.num_classes, label_set))}ignored</li>"
    red, (dark, light) = _css(WRONG), map(_css, IGNORED)
    hatch = f"repeating-linear-gradient(135deg, {dark} 0 3px, {light} 3px 6px)"
    return (
        f'<div class="legend"><h4>masks</h4><ul>{names}{ignored}</ul><h4>errors</h4><ul>'
        f"<li>{swatch(red)}wrong</li><li>{swatch('#e3e5e8')}right</li>"
        f"<li>{swatch(hatch)}not counted: label ignored</li></ul></div>"
    )


def _css(color: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)
