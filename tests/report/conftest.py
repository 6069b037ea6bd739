"""A data set of three classes, and a page of it with every section."""

import numpy as np
import pytest

from deeplabv3.data.frames import Labelled
from deeplabv3.data.labels import LabelClass, LabelSet
from deeplabv3.evaluation.frames import count_frame
from deeplabv3.evaluation.scores import scores_from
from deeplabv3.report.page import Options, write_page
from deeplabv3.report.worst import ShownFrame

HOSTILE = "<b>\"a\" & 'b'</b> $x^{2$"
YARD = LabelSet(
    "yard",
    (
        LabelClass(HOSTILE, 255, 0, (255, 255, 255), "ground"),
        LabelClass("grass", 3, 1, (107, 142, 35), "plants"),
        LabelClass("weeds", 9, 1, (0, 0, 0), "plants"),
        LabelClass("pond", 70, 2, (70, 130, 180), "water"),
        LabelClass("void", 0, 255, (0, 0, 0)),
    ),
)
HISTORY = [
    {"epoch": 1, "train_loss": 2.0, "val_loss": 1897.6, "miou": 0.015},
    {"epoch": 2, "train_loss": 1.5, "val_loss": None, "miou": None},
    {"epoch": 3, "train_loss": 1.25, "val_loss": 1.75, "miou": 0.25},
]


def frame_of(label_ids, prediction_ids, name="a_000000_000000"):
    """A frame of a grey image, and what is counted of it."""
    label_ids, prediction_ids = np.array(label_ids, np.uint8), np.array(prediction_ids, np.uint8)
    counts, record = count_frame(Labelled(name, label_ids), prediction_ids, YARD)
    return ShownFrame(record.score, np.full((*label_ids.shape, 3), 128, np.uint8), label_ids, prediction_ids), counts


def scores_of(*frames):
    """The scores of what `frame_of` returns."""
    counts = np.sum([counts for _, counts in frames], 0)
    return scores_from(counts, YARD, frames=[frame.score for frame, _ in frames])


def write(folder):
    """Eight pixels of two classes; the pond does not occur."""
    frame = frame_of([[255, 255, 255, 255], [3, 9, 3, 0]], [[255, 255, 255, 3], [9, 9, 255, 255]], HOSTILE)
    return write_page(
        folder,
        scores_of(frame),
        title=f"title {HOSTILE} \udcff",
        source=f"source {HOSTILE}",
        history=HISTORY,
        options=[Options("Training", {"seed": 0, "width": 64}, {"seed": 0, "width": 32, "name": HOSTILE})],
        command=f"deeplabv3 report '{HOSTILE}'",
        worst=[frame[0]],
    )


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The path of a page; read only."""
    return write(tmp_path_factory.mktemp("page") / "report")
