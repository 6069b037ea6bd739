"""Losses and mIoU over epochs as drawings that are part of the page: sharp at any size, values on hover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deeplabv3.report.curves import History, epoch_ticks, loss_limit, nice_step, points_of

WIDTH, HEIGHT = 520, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 14, 40
_MANY = 40  # points on a line, from which on they are smaller


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: In the legend and on hover.
        kind: Its class in the style sheet.
        points: `(epoch, value)`, all finite, in order, at least one.
        digits: Of a value where it is written.
        peak: Whether the highest value is written beside it.
    """

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    digits: int = 4
    peak: bool = False


@dataclass(frozen=True)
class Scale:
    """Where epochs and values are in a drawing.

    Attributes:
        first: The epoch at the left.
        last: The epoch at the right.
        step: Between two values that are written.
        top: The value at the upper edge, a multiple of `step`; what is above is drawn there.
    """

    first: int
    last: int
    step: float
    top: float

    def x(self, epoch: float) -> float:
        """An epoch's place from the left; the middle if it is the only one."""
        share = (epoch - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """A value's place from above."""
        return HEIGHT - _BOTTOM - min(value / self.top, 1.0) * (HEIGHT - _TOP - _BOTTOM)


def curves(history: History) -> str:
    """A chart of the losses and one of mIoU, as HTML; nothing for a history without epochs."""
    if not history:
        return ""
    losses = [
        Line(f"{name} loss", kind, points)
        for name, kind in (("training", "train"), ("validation", "val"))
        if (points := points_of(history, f"{kind}_loss"))
    ]
    charts = _figure("cross-entropy a pixel", losses, history, loss_limit(history)) if losses else ""
    mious = [(epoch, 100 * value) for epoch, value in points_of(history, "miou")]
    if mious:
        highest = max(value for _, value in mious)
        charts += _figure("validation mIoU, %", [Line("mIoU", "miou", mious, 2, peak=True)], history, 1.1 * highest)
    return f'<p class="lead">{_words(history)}</p><div class="charts">{charts}</div>'


def _words(history: History) -> str:
    """Where the run stands, in a sentence."""
    last = history[-1]["epoch"]
    losses, mious = points_of(history, "train_loss"), points_of(history, "miou")
    words = f"{last} epoch{'s' if last > 1 else ''}"
    if losses:
        words += f"; training loss {losses[-1][1]:.4f} in the last"
    if mious:
        epoch, best = max(mious, key=lambda point: point[1])
        words += f"; best validation mIoU {100 * best:.2f} % after epoch {epoch:.0f}"
    return words + "."


def _figure(title: str, lines: Sequence[Line], history: History, limit: float) -> str:
    step = nice_step(limit, 5)
    scale = Scale(history[0]["epoch"], history[-1]["epoch"], step, step * max(1, math.ceil(limit / step - 1e-9)))
    keys = "".join(f'<span><i class="{line.kind}"></i>{line.name}</span>' for line in lines if len(lines) > 1)
    if any(value > scale.top for line in lines for _, value in line.points):
        keys += "<span>\u25b2 above the scale</span>"
    drawing = _axes(scale) + "".join(_drawn(line, scale) for line in lines)
    return (
        f"<figure><figcaption><b>{title}</b>{keys}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} over epochs">{drawing}</svg></figure>'
    )


def _axes(scale: Scale) -> str:
    parts = []
    for tick in range(round(scale.top / scale.step) + 1):
        value = tick * scale.step
        parts.append(f'<path class="grid" d="M{_LEFT} {scale.y(value):.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 8, scale.y(value) + 4, f"{value:g}", "end"))
    bottom = HEIGHT - _BOTTOM
    parts += [_text(scale.x(epoch), bottom + 18, str(epoch)) for epoch in epoch_ticks(scale.first, scale.last)]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, "epoch"))
    return "".join(parts)


def _drawn(line: Line, scale: Scale) -> str:
    path = "L".join(f"{scale.x(epoch):.1f} {scale.y(value):.1f}" for epoch, value in line.points)
    parts = [f'<path class="line {line.kind}" d="M{path}"/>']
    radius = 3.2 if len(line.points) <= _MANY else 1.8
    for epoch, value in line.points:
        x, y = scale.x(epoch), scale.y(value)
        title = f"<title>epoch {epoch:.0f}: {line.name} {value:,.{line.digits}f}</title>"
        if value > scale.top:
            parts.append(f'<path class="mark {line.kind}" d="M{x - 5:.1f} {y + 5:.1f}h10l-5 -9z">{title}</path>')
        else:
            parts.append(f'<circle class="mark {line.kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">{title}</circle>')
    if line.peak:
        epoch, value = max(line.points, key=lambda point: point[1])
        x = min(max(scale.x(epoch), _LEFT + 20), WIDTH - _RIGHT - 20)
        parts.append(_text(x, scale.y(value) - 10, f"{value:.{line.digits}f}", kind="peak"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
