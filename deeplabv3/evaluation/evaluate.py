"""Score a model on a labelled split, every frame at its label's full size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from deeplabv3.config import EvaluateConfig
from deeplabv3.data.cityscapes import Sample, check_sizes, find_samples
from deeplabv3.data.labels import IGNORE_INDEX, LabelSet
from deeplabv3.data.loading import default_num_workers, eval_batches
from deeplabv3.evaluation.confusion import count_pixels, no_counts
from deeplabv3.evaluation.scores import Scores, scores_from
from deeplabv3.files import refuse_to_overwrite, require_writable, write_whole
from deeplabv3.model.checkpoint import load_model
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast, choose_device, place
from deeplabv3.prediction.predictor import Results
from deeplabv3.prediction.sources import result_stems
from deeplabv3.progress import Progress


def evaluate(config: EvaluateConfig) -> Scores:
    """Score a checkpoint.

    Raises:
        InputError: The checkpoint or the data set cannot be used, or a result cannot be written.
    """
    device = choose_device(config.device)
    samples = find_samples(config.data_dir, config.split)
    check_sizes(samples)
    for folder in (config.out.parent if config.out else None, config.predictions_dir):
        if folder is not None:
            require_writable(folder)
    if not config.overwrite:
        pictures = [path for result in _results(config.predictions_dir, samples) for path in result.paths]
        refuse_to_overwrite([*pictures, *([config.out] if config.out else [])])
    model, label_set = load_model(config.model, output_stride=config.output_stride)
    model = place(model, device)
    scores = score_model(
        model,
        samples,
        label_set,
        device=device,
        batch_size=config.batch_size,
        predictions_dir=config.predictions_dir,
    )
    if config.out is not None:
        write_whole(config.out, json.dumps(scores.to_json(), indent=2) + "\n")
    return scores


@torch.inference_mode()
def score_model(
    model: DeepLabV3,
    samples: Sequence[Sample],
    label_set: LabelSet,
    *,
    device: torch.device,
    batch_size: int = 1,
    num_workers: int | None = None,
    precision: str = "float32",
    predictions_dir: Path | None = None,
) -> Scores:
    """Score a model that is in evaluation mode.

    Args:
        model: On `device`.
        samples: The frames.
        label_set: Its number of classes is the model's.
        device: Where the model is.
        batch_size: Frames of equal size a step.
        num_workers: Processes that read frames; None chooses.
        precision: float32, bfloat16 or auto.
        predictions_dir: Where every frame's predictions are written; None writes none.

    Raises:
        DatasetError: A frame cannot be read.
    """
    counts, loss_sum = no_counts(label_set), 0.0
    workers = default_num_workers(device.type) if num_workers is None else num_workers
    results = iter(_results(predictions_dir, samples))
    with Progress("evaluating", len(samples)) as progress:
        for batch in eval_batches(samples, label_set, batch_size, num_workers=workers):
            with autocast(device, precision):
                logits = model(batch.image.to(device))  # (N, K, H, W)
            # Frame by frame: the softmax of a whole batch at full size would need as much memory as its logits again.
            for image, frame_logits, label in zip(batch.image, logits, batch.label, strict=True):
                target = label[None].to(device).long()  # (1, H, W)
                loss = F.cross_entropy(frame_logits[None], target, ignore_index=IGNORE_INDEX, reduction="sum")
                loss_sum += float(loss)
                prediction = frame_logits.argmax(0).to(torch.uint8).cpu().numpy()  # (H, W)
                counts += count_pixels(label.numpy(), prediction, label_set.num_classes)
                if predictions_dir is not None:
                    next(results).write(image.permute(1, 2, 0).numpy(), prediction, label_set)
            progress.advance(len(batch.names))
    num_pixels = int(counts.sum())
    loss_mean = loss_sum / num_pixels if num_pixels else float("nan")
    return scores_from(counts, label_set, num_frames=len(samples), loss=loss_mean)


def _results(folder: Path | None, samples: Sequence[Sample]) -> list[Results]:
    """Where each frame's predictions go; none without a folder."""
    if folder is None:
        return []
    return [Results(folder, stem) for stem in result_stems([sample.image_path for sample in samples])]
