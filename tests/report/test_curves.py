import csv
import json

from PIL import Image

from deeplabv3.data.labels import CITYSCAPES, LabelClass, LabelSet
from deeplabv3.evaluation.confusion import no_counts
from deeplabv3.evaluation.scores import scores_from
from deeplabv3.report.curves import COLUMNS, plot_losses, write_log, write_losses
from deeplabv3.report.tables import percent, score_table

HISTORY = [
    {"epoch": 1, "step": 2, "learning_rate": 0.1, "train_loss": 2.5, "val_loss": None, "miou": None, "more": 1},
    {"epoch": 2, "step": 4, "learning_rate": 0.05, "train_loss": 1.5, "val_loss": 1.25, "miou": 0.375, "more": 2},
]


def test_losses_are_a_table_of_their_columns(tmp_path):
    write_losses(HISTORY, tmp_path / "losses.csv")
    with (tmp_path / "losses.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["val_loss"] for row in rows] == ["", "1.25"]


def test_log_is_one_object_a_line(tmp_path):
    write_log(HISTORY, tmp_path / "log.jsonl")
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == HISTORY


def test_same_history_is_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        plot_losses(HISTORY, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (1650, 630)


def test_columns_stand_below_their_heads_whatever_the_names():
    short = LabelSet("short", (LabelClass("a", 1, 0, (0, 0, 0)), LabelClass("b", 0, 255, (0, 0, 0))))
    counts = no_counts(short)
    counts[1, 1] = 1
    head, _, row, _, mean, *_ = score_table(scores_from(counts, short)).splitlines()
    assert {line.index(text) + len(text) for line, text in ((head, "IoU %"), (row, "100.00"), (mean, "100.00"))} == {14}


def test_absent_class_is_a_dash_in_the_table():
    counts = no_counts(CITYSCAPES)
    counts[7, 7], counts[8, 7] = 3, 1
    lines = score_table(scores_from(counts, CITYSCAPES)).splitlines()
    table = {line.split()[0]: line.split() for line in lines if line}
    assert table["road"] == ["road", "75.00"]
    assert table["train"] == ["train", "-"]
    assert table["mIoU"] == ["mIoU", "37.50", "over", "2", "of", "19"]
    assert lines[-1] == "iIoU is not available: instances were not asked for"
    assert percent(float("nan")) == "-"
