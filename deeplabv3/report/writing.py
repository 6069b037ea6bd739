"""An evaluation as a page: `deeplabv3 report`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from deeplabv3.config import ReportConfig, TrainConfig
from deeplabv3.data.frames import read_labels
from deeplabv3.distributed import is_first
from deeplabv3.evaluation.evaluate import evaluate, predictions_of, samples_of
from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import refuse_to_overwrite, require_writable
from deeplabv3.model.checkpoint import Checkpoint, recorded, using_record
from deeplabv3.model.exported import is_exported
from deeplabv3.model.load import open_checkpoint
from deeplabv3.records import default_record, to_record, to_words
from deeplabv3.report.curves import History, require_history
from deeplabv3.report.page import PAGE, Options, pictures_in, write_page
from deeplabv3.report.worst import ShownFrame, image_or_grey, lowest


def write_report(config: ReportConfig, scored: Callable[[Scores], None] = lambda _: None) -> Scores:
    """Evaluate, and write the page and its pictures; under torchrun the processes share the evaluation.

    Args:
        config: What is scored, and where the page goes.
        scored: Called with the scores before anything is written.

    Returns:
        The scores of the whole split, the same in every process.

    Raises:
        InputError: What `evaluate` raises; or a page is there already, which is found out before anything is scored.
    """
    folder = config.report_dir
    require_writable(folder)
    if not config.overwrite:
        refuse_to_overwrite([folder / PAGE, *pictures_in(folder)])
    options = [Options("Evaluation", default_record(ReportConfig), to_record(config))]
    history: History = ()
    if config.model is not None and not is_exported(config.model):  # an exported file knows nothing of its training
        training, history = _training(open_checkpoint(config.model))
        options += training
    scores = evaluate(config, scored)
    if not is_first():
        return scores
    write_page(
        folder,
        scores,
        title=f"{config.data_dir.resolve().name}, {config.split}",
        source=f"model {config.model}" if config.model else f"predictions in {config.predictions}",
        history=history,
        options=options,
        command=shlex.join(["deeplabv3", "report", *to_words(config, ["data_dir"])]),
        worst=_worst(config, scores),
    )
    return scores


def _training(checkpoint: Checkpoint) -> tuple[list[Options], History]:
    """What the file says about the run that it comes from, which may be nothing.

    Raises:
        CheckpointError: It cannot be shown.
    """
    record, options, history = checkpoint.record, [], []
    if "config" in record:
        options = [Options("Training", default_record(TrainConfig), recorded(checkpoint, "config", dict))]
    if "position" in record:
        with using_record(checkpoint, "position"):
            history = recorded(checkpoint, "position", dict).get("history", [])
            require_history(history)
    return options, history


def _worst(config: ReportConfig, scores: Scores) -> Iterator[ShownFrame]:
    """The frames with the lowest mIoU and their predictions, read one after the other."""
    places = lowest(scores.frames, config.num_worst)
    if not places:
        return  # and no model is loaded for nothing
    every = samples_of(config)  # in the order of the scores
    samples = [every[place] for place in places]
    predictions, label_set = predictions_of(config, samples)
    for place, sample, prediction in zip(places, samples, predictions, strict=True):
        label_ids = read_labels(sample, label_set).label_ids
        # Predictions of other programs are scored without images; then there is none to show.
        yield ShownFrame(scores.frames[place], image_or_grey(sample, label_ids), label_ids, prediction)
