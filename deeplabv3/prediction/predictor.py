"""From an image of any size to the class of each of its pixels.

Shape letters: N batch, K classes, H and W pixels, h and w a window or a feature grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from deeplabv3.config import InferenceConfig, PredictConfig
from deeplabv3.data.findings import Unsound
from deeplabv3.data.images import Pixels, read_image
from deeplabv3.distributed import ending_together, gather, process_group, share_of
from deeplabv3.errors import DatasetError
from deeplabv3.files import refuse_to_overwrite, require_writable
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import autocast, choose_device
from deeplabv3.model.exported import ExportedModel
from deeplabv3.model.load import load_for_inference
from deeplabv3.prediction.clips import Live
from deeplabv3.prediction.results import KINDS, VIDEO_RESULT, Results, VideoResult, require_other_files
from deeplabv3.prediction.sources import find_images, find_videos, result_stems
from deeplabv3.prediction.upsampling import upsampled_argmax
from deeplabv3.prediction.video import predict_video
from deeplabv3.progress import track

Model = DeepLabV3 | ExportedModel
"""What predicts: a network in evaluation mode, or an exported file."""

Job = tuple[Path | Live, Results | VideoResult]
"""What is predicted, and where that goes."""

WHOLE_FRAME = InferenceConfig()
"""One look at the whole frame, at the output stride of training."""


@torch.inference_mode()
def predict_image(model: Model, image: Pixels, inference: InferenceConfig = WHOLE_FRAME) -> Pixels:
    """Segment one image.

    Args:
        model: In evaluation mode, on any device, at the output stride that is wanted.
        image: RGB, uint8, `(H, W, 3)`.
        inference: Scales, flip, windows and precision.

    Returns:
        trainIds, uint8, `(H, W)`.

    Raises:
        InputError: The model cannot do that.
    """
    prediction: Pixels = predict_batch(model, as_batch(image, model.device), inference)[0].cpu().numpy()
    return prediction


def as_batch(image: Pixels, device: torch.device) -> Tensor:
    """An image, uint8 `(H, W, 3)`, as a batch of one, uint8 `(1, 3, H, W)`, on a device."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(device)  # (1, 3, H, W)


@torch.inference_mode()
def predict_batch(model: Model, image: Tensor, inference: InferenceConfig = WHOLE_FRAME) -> Tensor:
    """Segment images of one size.

    Args:
        model: In evaluation mode, at the output stride that is wanted.
        image: RGB, uint8, `(N, 3, H, W)`, on the model's device.
        inference: Scales, flip, windows and precision.

    Returns:
        trainIds, uint8, `(N, H, W)`, on the same device.

    Raises:
        InputError: The model cannot do that.
    """
    model.require(inference)
    with _autocast(model, inference):
        if inference.is_plain and isinstance(model, ExportedModel):
            return model.labels(image)  # (N, H, W)
        if inference.is_plain and isinstance(model, DeepLabV3):
            return _labels(model, model.grid_logits(image), image)  # (N, H, W)
        if inference.tile_size is None:
            return mean_probabilities(model, image, inference).argmax(1).to(torch.uint8)  # (N, H, W)
        return _predict_tiles(model, image, inference, inference.tile_size)


@torch.inference_mode()
def predict_probabilities(
    model: Model, image: Tensor, inference: InferenceConfig = WHOLE_FRAME
) -> tuple[Tensor, Tensor]:
    """What `predict_batch` returns, and the probabilities of the whole frame, whose windows are left out.

    Args are those of `predict_batch`.

    Returns:
        trainIds, uint8 `(N, H, W)`, and float32 `(N, K, H, W)`, both on the device of the image.

    Raises:
        InputError: The model cannot do that.
    """
    model.require(inference)
    with _autocast(model, inference):
        if inference.is_plain and isinstance(model, DeepLabV3):
            grid_logits = model.grid_logits(image)  # (N, K, h, w)
            return _labels(model, grid_logits, image), _softmax(model, grid_logits, (image.shape[-2], image.shape[-1]))
        mean = mean_probabilities(model, image, inference)  # (N, K, H, W)
        if inference.tile_size is None:
            return mean.argmax(1).to(torch.uint8), mean
        return _predict_tiles(model, image, inference, inference.tile_size), mean


def _autocast(model: Model, inference: InferenceConfig) -> AbstractContextManager[object]:
    """The precision that is asked for; a file has its own."""
    return autocast(model.device, "float32" if isinstance(model, ExportedModel) else inference.precision)


def _labels(model: DeepLabV3, grid_logits: Tensor, image: Tensor) -> Tensor:
    """TrainIds, uint8 `(N, H, W)`, of logits `(N, K, h, w)`."""
    size, corners = (image.shape[-2], image.shape[-1]), model.config.align_corners
    return torch.stack([upsampled_argmax(logits, size, align_corners=corners) for logits in grid_logits])


def _softmax(model: DeepLabV3, grid_logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits `(N, K, h, w)` as probabilities, float32 `(N, K, *size)`."""
    corners = model.config.align_corners
    return F.interpolate(grid_logits.float(), size, mode="bilinear", align_corners=corners).softmax(1)


def mean_probabilities(model: Model, image: Tensor, inference: InferenceConfig) -> Tensor:
    """The softmax at the image's size, averaged over scales and mirror images (Chen et al. 2017, section 4.1).

    Args:
        model: In evaluation mode.
        image: RGB, uint8, `(N, 3, H, W)`.
        inference: Its scales and flip.

    Returns:
        float32 `(N, K, H, W)`.

    Raises:
        InputError: An exported file puts out labels, or does not take pixels of that size.
    """
    size = (image.shape[-2], image.shape[-1])
    total: Tensor | None = None
    for scale in inference.scale_values:
        scaled = _resized(image, scale)  # (N, 3, h, w)
        for mirrored in (False, True) if inference.flip else (False,):
            probabilities = _probabilities(model, scaled.flip(-1) if mirrored else scaled, size)
            probabilities = probabilities.flip(-1) if mirrored else probabilities
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(len(inference.scale_values) * (2 if inference.flip else 1))


def _probabilities(model: Model, image: Tensor, size: tuple[int, int]) -> Tensor:
    """The softmax of one look, float32 `(N, K, *size)`.

    An exported file puts it out at the size of the pixels that it is given, and takes whole numbers alone. At scale 1
    that is all the same; elsewhere it is resized behind the softmax and not before it, and rounded pixels are seen.
    """
    if isinstance(model, ExportedModel):
        return F.interpolate(model.probabilities(image), size, mode="bilinear", align_corners=False)
    return _softmax(model, model.grid_logits(image), size)


def _resized(image: Tensor, scale: float) -> Tensor:
    """The image at another scale, as float of 0..255, smoothed where it shrinks; itself at scale 1."""
    if scale == 1:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    return F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)


def _predict_tiles(model: Model, image: Tensor, inference: InferenceConfig, tile_size: tuple[int, int]) -> Tensor:
    """Segment by a sliding window whose probabilities are summed where windows overlap; uint8 `(N, H, W)`.

    Only a band of the frame as high as a window is held for all classes: rows above the next windows are final.
    """
    height, width = image.shape[-2:]
    tops, lefts = (
        tile_starts(side, tile, tile // 3 if inference.tile_overlap is None else inference.tile_overlap)
        for side, tile in zip((height, width), tile_size, strict=True)
    )
    prediction = torch.empty((len(image), height, width), dtype=torch.uint8, device=image.device)
    above: Tensor | None = None
    for row, top in enumerate(tops):
        bottom = min(top + tile_size[0], height)
        shape = (len(image), model.config.num_classes, bottom - top, width)
        band = torch.zeros(shape, device=image.device)  # (N, K, h, W)
        if above is not None:
            started = tops[row - 1]
            band[:, :, : started + above.shape[2] - top] = above[:, :, top - started :]
        for left in lefts:
            window = image[:, :, top:bottom, left : left + tile_size[1]]  # (N, 3, h, w)
            band[..., left : left + tile_size[1]] += mean_probabilities(model, window, inference)
        final = tops[row + 1] if row + 1 < len(tops) else height
        prediction[:, top:final] = band[:, :, : final - top].argmax(1)
        above = band
    return prediction


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the windows along one side begin: `tile - overlap` apart, the last one flush with the end."""
    last = max(0, side - tile)
    return [*range(0, last, tile - overlap), last]


def predict(config: PredictConfig) -> list[Path]:
    """Segment files: a label-id PNG, a colour mask and an overlay with legend for an image, one overlay for a video.

    Of several processes, each takes its share of the files.

    Returns:
        The overlays, in the order of the images and then of the videos.

    Raises:
        InputError: An input, the checkpoint or the output folder cannot be used; nothing was overwritten. Where a
            file is broken, all others are written first.
    """
    choose_device(config.inference.device)  # a mistake there is found before any folder is searched
    with process_group():
        with ending_together():  # all have looked for results before one of them writes any
            jobs = _jobs(config)
            todo = [job for job in jobs if not (config.resume and job[1].is_complete)]
            model, label_set = load_for_inference(config.model, config.inference)
        broken: list[DatasetError] = []
        with ending_together():
            for source, result in _shown(share_of(todo)):
                segment = partial(_segmented, model, source, config)
                try:
                    if isinstance(result, VideoResult):
                        predict_video(source, result.overlay, segment, label_set, config)
                        continue
                    assert isinstance(source, Path)
                    image = read_image(source, max_pixels=config.max_pixels)
                    prediction = segment(image)
                except DatasetError as error:  # one broken file must not cost the others their results
                    broken.append(_with_way_out(error))
                    continue
                result.write(image, prediction, label_set, opacity=config.opacity, legend=config.legend)
        broken = [error for errors in gather([broken]) for error in errors]
    if broken and len(jobs) == 1:
        raise broken[0]
    if broken:
        others = "; the others are written" if len(broken) < len(jobs) else ""
        head = f"{broken[0]} ({len(broken)} of {len(jobs)} files cannot be used{others})"
        raise DatasetError("\n  ".join([head, *map(str, broken[1:])]))
    return [result.overlay for _, result in jobs]


def _shown(jobs: Sequence[Job]) -> Iterator[Job]:
    """The images behind a bar, and then the videos, each of which has its own."""
    images = [job for job in jobs if isinstance(job[1], Results)]
    yield from track(images, "predicting") if images else ()
    yield from (job for job in jobs if isinstance(job[1], VideoResult))


def _segmented(model: Model, source: Path | Live, config: PredictConfig, image: Pixels) -> Pixels:
    """TrainIds, uint8 `(H, W)`, of an image of a source, RGB uint8 `(H, W, 3)`.

    Raises:
        DatasetError: It is too small for an exported model.
    """
    with naming(source.name if isinstance(source, Live) else source):
        return predict_image(model, image, config.inference)


@contextmanager
def naming(image: str | Path) -> Iterator[None]:
    """Tell which image it is that is too small for an exported model.

    Raises:
        DatasetError: As what the block raises, behind the image's name.
    """
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"{image} cannot be segmented: {error}") from error


def _with_way_out(error: DatasetError) -> DatasetError:
    """An error about too many pixels names the option that allows more."""
    is_large = isinstance(error.__cause__, Unsound) and error.__cause__.fault.reason == "too-large"
    return DatasetError(f"{error}, or raise --max-pixels") if is_large else error


def _jobs(config: PredictConfig) -> list[Job]:
    """Every source with its results, of which none is there unless that is wanted."""
    videos, others = find_videos(config.inputs, leave_out=(config.out, VIDEO_RESULT))
    images = find_images(others, leave_out=[config.out / kind for kind in KINDS])
    results: list[Results | VideoResult] = [Results(config.out, stem) for stem in result_stems(images)]
    names = [Path(video.name) if isinstance(video, Live) else video for video in videos]
    results += [VideoResult(config.out, stem) for stem in result_stems(names, VIDEO_RESULT)]
    require_writable(config.out)
    jobs: list[Job] = list(zip([*images, *videos], results, strict=True))
    require_other_files([source for source, _ in jobs], [result.paths for _, result in jobs])
    if not config.overwrite:  # a recording is not gone on with: what was live then is over
        new = [result for source, result in jobs if isinstance(source, Live) or not config.resume]
        refuse_to_overwrite(path for result in new for path in result.paths)
    return jobs
