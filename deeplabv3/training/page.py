"""The page of a finished run: its last validation, the frames that went worst, its curves and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deeplabv3.config import InferenceConfig, ModelConfig, TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.frames import read_frame
from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.scores import Scores
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.records import default_record, to_record, to_words
from deeplabv3.report.curves import History
from deeplabv3.report.page import PAGE, Options, write_page
from deeplabv3.report.worst import ShownFrame, lowest
from deeplabv3.training.beginning import Run

NUM_WORST = 6


def page_is_current(folder: Path, history: History) -> bool:
    """Whether the page of a run is there and shows it at its end, rather than as it was before it went on."""
    page = folder / PAGE
    return page.exists() and f">{_source(history)}" in page.read_text(encoding="utf-8", errors="replace")


def _source(history: History) -> str:
    steps = history[-1]["step"]  # the last epoch may have been cut short, and gone on with
    return f"{len(history)} epochs of training with {steps} steps, the weights of the last"


def write_run_page(folder: Path, model: DeepLabV3, scores: Scores, history: History, run: Run) -> None:
    """Write the page of a run.

    Args:
        folder: Where to.
        model: What training has made.
        scores: Of its last validation.
        history: An entry an epoch.
        run: What was asked for.

    Raises:
        InputError: A frame cannot be read any more, or the page cannot be written.
    """
    config = run.config
    # What follows from the data set, the machine or a resumption is not typed, and a new run needs a new folder.
    model_config = replace(config.asked_model, num_classes=ModelConfig().num_classes)
    typed = replace(
        config,
        model=model_config,
        num_workers=None,
        resume=False,
        run_dir=Path("NEW_RUN"),
        checkpoint_dir=None,
        losses_dir=None,
    )
    write_page(
        folder,
        scores,
        title=f"{config.run_dir.resolve().name}: {config.data_dir.resolve().name}, val",
        source=_source(history),
        history=history,
        options=[Options("Training", default_record(TrainConfig), to_record(config))],
        command=shlex.join(["deeplabv3", "train", *to_words(typed, ["data_dir", "run_dir"])]),
        worst=_worst(model.eval(), scores, config, run.label_set, run.val_samples),
    )


def _worst(
    model: DeepLabV3, scores: Scores, config: TrainConfig, label_set: LabelSet, samples: Sequence[Sample]
) -> Iterator[ShownFrame]:
    inference = InferenceConfig(precision=config.precision)
    for place in lowest(scores.frames, NUM_WORST):
        frame = read_frame(samples[place], label_set, instances=False)
        prediction = label_set.id_of_train_id[predict_image(model, frame.image, inference)]
        yield ShownFrame(scores.frames[place], frame.image, frame.label_ids, prediction)
