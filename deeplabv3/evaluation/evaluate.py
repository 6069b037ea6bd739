"""Score a model, or predictions that any program wrote, on a labelled split, every frame at its label's full size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from deeplabv3.config import EvaluateConfig, InferenceConfig
from deeplabv3.data.cityscapes import (
    IMAGES,
    Sample,
    find_labels,
    find_samples,
    require_unique_names,
)
from deeplabv3.data.frames import Frame, check_sizes, label_set_of, read_image_of, size_of
from deeplabv3.data.images import Pixels
from deeplabv3.data.labels import LabelSet
from deeplabv3.data.loading import eval_batches
from deeplabv3.data.workers import WORKER_TIMEOUT_SECONDS, default_num_workers
from deeplabv3.distributed import ending_together, is_first, process_group, share_of
from deeplabv3.evaluation.confusion import no_counts
from deeplabv3.evaluation.frames import combined, count_frame, why_no_iiou_of
from deeplabv3.evaluation.predictions import prediction_files, read_prediction_file, score_files
from deeplabv3.evaluation.scores import Scores
from deeplabv3.files import refuse_to_overwrite, require_writable, write_whole
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast
from deeplabv3.model.exported import ExportedModel
from deeplabv3.model.load import load_for_inference
from deeplabv3.prediction.predictor import WHOLE_FRAME, Model, naming, predict_batch, predict_image
from deeplabv3.prediction.results import Results
from deeplabv3.prediction.sources import result_stems
from deeplabv3.prediction.upsampling import upsampled_argmax, upsampled_loss
from deeplabv3.progress import Progress

_NOT_NOW = "instances are not read while training; deeplabv3 report counts them"


Loaded = tuple[Model, LabelSet]
"""What `load_for_inference` returns."""


def evaluate(
    config: EvaluateConfig, scored: Callable[[Scores], None] = lambda _: None, loaded: Loaded | None = None
) -> Scores:
    """Score a checkpoint or the files of another program; under torchrun the processes share the frames.

    Args:
        config: What is scored, and how.
        scored: Called with the scores before they are written, so that a full disk does not cost them.
        loaded: The model of `config.model`, where it has been read already.

    Returns:
        The scores of the whole split, the same in every process.

    Raises:
        InputError: The checkpoint, the predictions or the data set cannot be used, or a result cannot be written.
    """
    samples = samples_of(config)
    if config.model is not None:
        check_sizes(samples)
    for folder in (config.out.parent if config.out else None, config.results_dir):
        if folder is not None:
            require_writable(folder)
    if not config.overwrite:
        pictures = [path for result in _results(config.results_dir, samples) for path in result.paths]
        refuse_to_overwrite([*pictures, *([config.out] if config.out else [])])
    with process_group():
        if config.predictions is not None:
            label_set = label_set_of(config.data_dir, config.labels)
            scores = score_files(config.predictions, samples, label_set, num_workers=config.num_workers)
        else:
            assert config.model is not None
            model, label_set = loaded or load_for_inference(config.model, config.inference)
            scores = score_model(
                model,
                samples,
                label_set,
                inference=config.inference,
                batch_size=config.batch_size,
                num_workers=config.num_workers,
                results_dir=config.results_dir,
                with_instances=True,
            )
    scored(scores)
    if config.out is not None and is_first():
        write_whole(config.out, json.dumps(scores.to_json(), indent=2) + "\n")
    return scores


def samples_of(config: EvaluateConfig) -> list[Sample]:
    """The frames that are scored. Predictions need no images; where there are some, each must have its label.

    Raises:
        DatasetError: There are none, images lack their labels, or predictions could be of two frames.
    """
    if config.model is not None:
        samples = find_samples(config.data_dir, config.split)
        names = result_stems([sample.image_path for sample in samples])  # unique, where folders have equal names
        return [replace(sample, name=name) for sample, name in zip(samples, names, strict=True)]
    has_images = (config.data_dir / IMAGES / config.split).is_dir()
    samples = (find_samples if has_images else find_labels)(config.data_dir, config.split)
    require_unique_names([sample.image_path for sample in samples])
    return samples


@torch.inference_mode()
def score_model(
    model: Model,
    samples: Sequence[Sample],
    label_set: LabelSet,
    *,
    inference: InferenceConfig = WHOLE_FRAME,
    batch_size: int = 1,
    num_workers: int | None = None,
    timeout_seconds: float = WORKER_TIMEOUT_SECONDS,
    results_dir: Path | None = None,
    with_instances: bool = False,
    with_loss: bool = False,
) -> Scores:
    """Score a model that is in evaluation mode.

    Args:
        model: At the output stride that is wanted.
        samples: The frames.
        label_set: Its number of classes is the model's.
        inference: Scales, flip, windows and precision.
        batch_size: Frames of equal size a step.
        num_workers: Processes that read frames; None chooses.
        timeout_seconds: How long these may give nothing.
        results_dir: Where every frame's predictions are written; None writes none.
        with_instances: Whether instance ids are read, for the instance-weighted scores.
        with_loss: Whether the loss is computed, which takes a single look at the whole frame.

    Raises:
        DatasetError: A frame cannot be read.
    """
    assert (inference.is_plain and isinstance(model, DeepLabV3)) or not with_loss
    why_no_iiou = why_no_iiou_of(samples, label_set) if with_instances else _NOT_NOW
    counts, records = no_counts(label_set), []
    workers = default_num_workers(model.device.type) if num_workers is None else num_workers
    own, results = share_of(samples), iter(share_of(_results(results_dir, samples)))
    read = partial(eval_batches, instances=not why_no_iiou, num_workers=workers, timeout_seconds=timeout_seconds)
    with Progress("evaluating", len(own)) as progress, ending_together():
        for batch in read(own, label_set, batch_size):
            predictions, losses = _predict(model, batch, label_set, inference, with_loss)
            for frame, prediction, loss in zip(batch, predictions, losses, strict=True):
                frame_counts, record = count_frame(frame, label_set.id_of_train_id[prediction], label_set, loss)
                counts += frame_counts
                records.append(record)
                if results_dir is not None:
                    next(results).write(frame.image, prediction, label_set)
            progress.advance(len(batch))
    return combined(counts, records, label_set, why_no_iiou=why_no_iiou, with_loss=with_loss)


def predictions_of(
    config: EvaluateConfig, samples: Sequence[Sample], places: Sequence[int], loaded: Loaded | None = None
) -> tuple[Iterator[Pixels], LabelSet]:
    """The predictions of some frames of an evaluation, once more: label ids, uint8 `(H, W)`, and what they mean.

    They are made one after the other, as they are taken.

    Args:
        config: What was scored, and how.
        samples: All its frames, since a file belongs to the one whose name fits best.
        places: Which of them are wanted.
        loaded: The model of `config.model`, where it has been read already.

    Raises:
        InputError: A file cannot be used.
    """
    if config.predictions is not None:
        label_set = label_set_of(config.data_dir, config.labels)
        files = prediction_files(config.predictions, samples)
        paths = [(samples[place], files[samples[place].name][0]) for place in places]
        return (read_prediction_file(path, size_of(sample), label_set) for sample, path in paths), label_set
    assert config.model is not None
    model, label_set = loaded or load_for_inference(config.model, config.inference)
    images = (read_image_of(samples[place]) for place in places)
    return (label_set.id_of_train_id[predict_image(model, image, config.inference)] for image in images), label_set


def _predict(
    model: Model,
    batch: Sequence[Frame],
    label_set: LabelSet,
    inference: InferenceConfig,
    with_loss: bool,
) -> tuple[list[Pixels], list[float]]:
    """TrainIds and summed losses of frames of one size."""
    stacked = torch.from_numpy(np.stack([frame.image for frame in batch]))  # (N, H, W, 3)
    image = stacked.permute(0, 3, 1, 2).to(model.device)  # (N, 3, H, W)
    if not with_loss or isinstance(model, ExportedModel):
        with naming(batch[0].name):  # all have one size
            predicted = predict_batch(model, image, inference)
        return list(predicted.cpu().numpy()), [0.0] * len(batch)
    with autocast(model.device, inference.precision):
        grid_logits = model.grid_logits(image)  # (N, K, h, w)
    predictions, losses = [], []
    for frame, logits in zip(batch, grid_logits, strict=True):
        height, width = frame.label_ids.shape
        corners = model.config.align_corners
        predictions.append(upsampled_argmax(logits, (height, width), align_corners=corners).cpu().numpy())
        label = torch.from_numpy(label_set.train_id_or_ignored[frame.label_ids]).to(model.device)
        losses.append(upsampled_loss(logits, label, align_corners=corners))
    return predictions, losses


def _results(folder: Path | None, samples: Sequence[Sample]) -> list[Results]:
    """Where each frame's predictions go; none without a folder."""
    if folder is None:
        return []
    return [Results(folder, stem) for stem in result_stems([sample.image_path for sample in samples])]
