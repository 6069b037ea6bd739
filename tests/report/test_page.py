import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.evaluation.confusion import no_counts
from deeplabv3.evaluation.scores import scores_from
from deeplabv3.report.page import pictures_in, write_page
from deeplabv3.report.scoreboard import ABSENT, category_table, class_table, headline
from tests.report.conftest import HOSTILE, frame_of, scores_of, write

VOID_TAGS = {"meta", "link", "img"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def text_of(html):
    return " ".join(" ".join(Reader(html).words).split())


def test_page_asks_for_nothing_from_elsewhere(page):
    html = page.read_text()
    assert not re.search(r"https?:|url\(|@import|<script|srcset", html)
    for tag, attributes in Reader(html).tags:
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("data:", "#")), tag


def test_names_are_escaped(page):
    html = page.read_text()
    assert "<b>&quot;" not in html
    assert '<b>"' not in html
    words = "".join(Reader(html).words)
    assert f"title {HOSTILE} \\udcff" in words
    assert words.count(HOSTILE) >= 8


def test_same_scores_are_the_same_bytes(page, tmp_path):
    write(tmp_path)
    first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (page.parent, tmp_path))
    assert first == second


def test_pictures_lie_beside_the_page_and_are_named_on_it(page):
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == ["classes.png", "confusion.png", "index.html", "losses.png", "worst_1__b_a_b_b_x_2_.png"]
    for path in pictures_in(page.parent):
        with Image.open(path) as picture:
            picture.load()
        assert path.name in page.read_text()


def test_sections_without_content_are_left_out(page, tmp_path, monkeypatch):
    for name in ("classes_png", "confusion_png"):
        monkeypatch.setattr(f"deeplabv3.report.page.{name}", lambda scores: b"")
    bare = write_page(tmp_path, scores_of(frame_of([[3]], [[3]])), title="bare")
    whole, less = ({attributes.get("id") for _, attributes in Reader(path.read_text()).tags} for path in (page, bare))
    assert whole - less == {"frames-with-the-lowest-miou", "training", "how-to-repeat-it"}


def test_pictures_of_an_older_page_are_removed_and_others_left(tmp_path, monkeypatch):
    for name in ("classes_png", "confusion_png"):
        monkeypatch.setattr(f"deeplabv3.report.page.{name}", lambda scores: b"")
    for name in ("worst_7_x.png", "worst_of_all.png", "losses.png", "mine.png"):
        (tmp_path / name).touch()
    write_page(tmp_path, scores_of(frame_of([[3]], [[3]])), title="new")
    assert {"losses.png", "worst_7_x.png"} <= {
        path.name for path in tmp_path.iterdir()
    }  # there was no page they were of
    write_page(tmp_path, scores_of(frame_of([[3]], [[3]])), title="newer")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"index.html", "classes.png", "confusion.png", "worst_of_all.png", "mine.png"}


def test_values_that_are_not_the_default_stand_out(page):
    rows = re.findall(r'<div class="(default|changed)"><dt>(\w+)</dt>', page.read_text())
    assert rows == [("default", "seed"), ("changed", "width"), ("changed", "name")]


def test_absent_class_is_not_shown_as_zero():
    rows = class_table(scores_of(frame_of([[255, 3]], [[3, 3]]))).split("<tr")
    pond = next(row for row in rows if "pond" in row)
    assert ABSENT in pond
    assert "0.00" not in pond
    missed = next(row for row in rows if "&lt;b&gt;" in row)
    assert ABSENT not in missed
    assert "0.00" in missed


def test_bars_are_as_long_as_their_iou_and_sorted():
    table = class_table(scores_of(frame_of([[255, 255, 3, 3]], [[255, 3, 3, 3]])))
    assert re.findall(r"width:([\d.]+)%", table) == ["66.67", "50.00"]
    assert "--mean:58.33%" in table


def test_unavailable_iiou_says_why():
    scores = scores_of(frame_of([[3]], [[3]]))
    assert "not available: instances were not asked for" in text_of(headline(scores))


def test_iiou_has_its_column_and_tick():
    counts = no_counts(CITYSCAPES)
    counts[26, 26], counts[26, 7] = 60, 40
    scores = scores_from(counts, CITYSCAPES, instances=np.array([[26, 100, 60, 60]]))
    assert '<i style="left:60.00%"></i>' in class_table(scores)
    assert "by objects, 1 of 8 classes" in text_of(headline(scores))
    assert "vehicle" in text_of(category_table(scores))


def test_split_without_a_labelled_pixel(tmp_path):
    page = write_page(tmp_path, scores_of(frame_of([[0]], [[3]])), title="void", worst=[frame_of([[0]], [[3]])[0]])
    text = text_of(page.read_text())
    assert "No pixel of these frames is labelled" in text
    assert "nan" not in text
