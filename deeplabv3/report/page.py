"""A page to look at: scores, mistakes, the worst frames, the training's curves, and how to repeat it all.

    <folder>/index.html            holds all that it shows and asks for nothing from elsewhere
    <folder>/losses.png            the same charts as pictures, for talks
    <folder>/classes.png
    <folder>/confusion.png
    <folder>/worst_1_<name>.png    and so on: the frames with the lowest mIoU

There is no date in them: the same values give the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import remove, write_whole
from deeplabv3.prediction.render import save_picture
from deeplabv3.records import text_of
from deeplabv3.report.charts import classes_png, confusion_png
from deeplabv3.report.curves import History, plot_losses
from deeplabv3.report.gallery import frame_article, legend
from deeplabv3.report.lines import curves
from deeplabv3.report.markup import escape, percents
from deeplabv3.report.matrix import matrix_table
from deeplabv3.report.scoreboard import category_table, class_table, headline
from deeplabv3.report.worst import ShownFrame, strip

PAGE = "index.html"
LOSSES, CLASSES, CONFUSION = "losses.png", "classes.png", "confusion.png"
STYLE = Path(__file__).with_name("page.css")

_NAME_LENGTH = 50  # of a frame's name in a file's name, which may have 255 bytes
_WORST, _STRANGE = re.compile(r"worst_\d+_.*\.png"), re.compile(r"[^\w.-]+")


class Options(NamedTuple):
    """A configuration as the page lists it.

    Attributes:
        heading: What it configures.
        defaults: The values that are not worth a second look, by name.
        record: Its values, flat, as `records.to_record` makes them.
    """

    heading: str
    defaults: Mapping[str, Any]
    record: Mapping[str, Any]


def pictures_in(folder: Path) -> list[Path]:
    """The files of a folder that have the names of the page's pictures."""
    worst = sorted(path for path in folder.glob("worst_*") if _WORST.fullmatch(path.name))
    return [path for path in (folder / LOSSES, folder / CLASSES, folder / CONFUSION, *worst) if path.is_file()]


def write_page(
    folder: Path,
    scores: Scores,
    *,
    title: str,
    source: str = "",
    history: History = (),
    options: Sequence[Options] = (),
    command: str = "",
    worst: Iterable[ShownFrame] = (),
) -> Path:
    """Write the page and its pictures from values that are there already; what is not given has no section.

    Files of the same names are replaced. Other pictures of an older page are removed: they would be taken for its own.

    Args:
        folder: Made if need be.
        scores: What the page is about.
        title: What was scored.
        source: What predicted it.
        history: An entry an epoch, as a checkpoint's record has them.
        options: The configurations that led here.
        command: What is typed to repeat it.
        worst: The frames to show, in order; taken one at a time, so a generator need not hold them all.

    Returns:
        The page.

    Raises:
        OutputError: A file cannot be written.
    """
    older = pictures_in(folder) if (folder / PAGE).is_file() else []  # else they are pictures of something else
    articles: dict[str, str] = {}  # of each frame, by the name of its picture
    for number, frame in enumerate(worst, start=1):
        name = f"worst_{number}_{_STRANGE.sub('_', frame.score.name)[:_NAME_LENGTH]}.png"
        save_picture(folder / name, strip(frame, scores.label_set))
        articles[name] = frame_article(frame, scores.label_set)
    pictures = [*_write_charts(folder, scores, history), *articles]
    for path in older:
        if path.name not in pictures:
            remove(path)
    sections = [
        *_score_sections(scores),
        _section("Frames with the lowest mIoU", FRAMES_LEAD, _frames(articles.values(), scores)),
        _section("Training", "", curves(history)),
        _section("How to repeat it", "", _repetition(command, options)),
    ]
    write_whole(folder / PAGE, page_html(scores, title, source, sections, pictures))
    return folder / PAGE


def _write_charts(folder: Path, scores: Scores, history: History) -> list[str]:
    """Write the charts as pictures and return their names."""
    write_whole(folder / CLASSES, classes_png(scores))
    write_whole(folder / CONFUSION, confusion_png(scores))
    if not history:
        return [CLASSES, CONFUSION]
    plot_losses(history, folder / LOSSES)
    return [LOSSES, CLASSES, CONFUSION]


class Section(NamedTuple):
    """A part of the page with a heading: its anchor, its heading and all of it as HTML."""

    anchor: str
    heading: str
    content: str


def _section(heading: str, lead: str, content: str) -> Section | None:
    """A section, or None where there is nothing to show."""
    if not content:
        return None
    anchor = heading.lower().replace(" ", "-")
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return Section(anchor, heading, f'<section id="{anchor}"><h2>{heading}</h2>{lead}{content}</section>')


def page_html(
    scores: Scores, title: str, source: str, sections: Sequence[Section | None], pictures: Sequence[str]
) -> str:
    """The page from its parts; title, source and the pictures' names are plain text."""
    there = [section for section in sections if section is not None]
    return TEMPLATE.format(
        title=escape(title),
        miou=percents(scores.miou),
        style=STYLE.read_text(encoding="utf-8"),
        source=escape(source),
        headline=headline(scores),
        links="".join(f'<a href="#{section.anchor}">{section.heading}</a>' for section in there),
        sections="\n".join(section.content for section in there),
        pictures=", ".join(f"<code>{escape(name)}</code>" for name in pictures),
    )


def _score_sections(scores: Scores) -> list[Section | None]:
    lead = "IoU is intersection over union over all pixels of the split; the dashed line is the mean. "
    if scores.class_iiou is None:
        lead += f"iIoU is not available: {escape(scores.why_no_iiou)}."
    else:
        lead += "The tick is iIoU, in which a small object weighs as much as a large one."
    return [
        _section("Classes", lead, class_table(scores)),
        _section("Categories", "Groups of classes, each scored as one.", category_table(scores)),
        _section("Confusion matrix", MATRIX_LEAD, matrix_table(scores)),
    ]


def _frames(articles: Collection[str], scores: Scores) -> str:
    return legend(scores.label_set) + "\n".join(articles) if articles else ""


def _repetition(command: str, options: Sequence[Options]) -> str:
    """The command, and every option, those that are not the default in bold."""
    parts = [f'<pre class="command"><code>{escape(command)}</code></pre>'] if command else []
    if options:
        parts.append('<p class="lead">Values in bold are not the default.</p>')
    for heading, defaults, record in options:
        rows = ""
        for name, value in record.items():
            kind = "default" if name in defaults and value == defaults[name] else "changed"
            rows += f'<div class="{kind}"><dt>{escape(name)}</dt><dd>{escape(text_of(value))}</dd></div>'
        parts.append(f'<h3>{escape(heading)}</h3><dl class="options">{rows}</dl>')
    return "".join(parts)


MATRIX_LEAD = "A row is a class of the labels, a column what was predicted there, in percent of the row\u2019s pixels."
FRAMES_LEAD = (
    "A frame\u2019s mIoU is the mean over the classes in its label or its prediction. "
    "The mistakes below it are in percent of its labelled pixels."
)

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{title}: mIoU {miou} %</title>
<style>
{style}</style>
</head>
<body>
<main>
<header><p class="eyebrow">Segmentation report</p><h1>{title}</h1><p class="source">{source}</p></header>
{headline}
<nav>{links}</nav>
{sections}
<footer>Pictures for talks, beside this page: {pictures}</footer>
</main>
</body>
</html>
"""
