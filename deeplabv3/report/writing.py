"""An evaluation as a page: `deeplabv3 report`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

from deeplabv3.config import ReportConfig, TrainConfig
from deeplabv3.data.frames import read_labels
from deeplabv3.distributed import is_first
from deeplabv3.evaluation.evaluate import Loaded, evaluate, predictions_of, samples_of
from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import refuse_to_overwrite, require_writable
from deeplabv3.model.checkpoint import Checkpoint, recorded, using_record
from deeplabv3.model.exported import is_exported
from deeplabv3.model.load import load_for_inference, open_checkpoint, ready
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
    loaded: Loaded | None = None
    if config.model is not None and is_exported(config.model):  # it knows nothing of its training
        loaded = load_for_inference(config.model, config.inference)
    elif config.model is not None:  # read once: a run that is going on may replace it
        checkpoint = open_checkpoint(config.model)
        training, history = _training(checkpoint)
        options += training
        loaded = ready(checkpoint, config.inference)
        del checkpoint  # its tensors take as much memory as the model
    scores = evaluate(config, scored, loaded)
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
        worst=_worst(config, scores, loaded),
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


def _worst(config: ReportConfig, scores: Scores, loaded: Loaded | None) -> Iterator[ShownFrame]:
    """The frames with the lowest mIoU and their predictions, read one after the other."""
    places = lowest(scores.frames, config.num_worst)
    samples = samples_of(config)  # in the order of the scores
    predictions, label_set = predictions_of(config, samples, places, loaded)
    for place, prediction in zip(places, predictions, strict=True):
        label_ids = read_labels(samples[place], label_set).label_ids
        # Predictions of other programs are scored without images; then there is none to show.
        yield ShownFrame(scores.frames[place], image_or_grey(samples[place], label_ids), label_ids, prediction)
