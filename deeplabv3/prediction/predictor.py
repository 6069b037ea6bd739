"""From an image of any size to the class of each of its pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from deeplabv3.config import PredictConfig
from deeplabv3.data.images import Pixels, read_image
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import DatasetError
from deeplabv3.files import refuse_to_overwrite, require_writable
from deeplabv3.model.checkpoint import load_model
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import choose_device, place
from deeplabv3.prediction.render import colorize, overlay, save_picture, with_legend
from deeplabv3.prediction.sources import find_images, result_stems
from deeplabv3.progress import track

KINDS = ("labelIds", "color", "overlay")
"""The folders of the results."""


@torch.inference_mode()
def predict_image(model: DeepLabV3, image: Pixels) -> Pixels:
    """Segment one image.

    Args:
        model: In evaluation mode, on any device.
        image: RGB, uint8, `(H, W, 3)`.

    Returns:
        trainIds, uint8, `(H, W)`.
    """
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]  # (1, 3, H, W)
    logits = model(pixels.to(model.pixel_mean.device))  # (1, K, H, W)
    prediction: Pixels = logits[0].argmax(0).to(torch.uint8).cpu().numpy()  # (H, W)
    return prediction


def predict(config: PredictConfig) -> list[Path]:
    """Segment files and write a label-id PNG, a colour mask and an overlay with legend for each.

    Returns:
        The overlays, in the order of the images.

    Raises:
        InputError: An input, the checkpoint or the output folder cannot be used; nothing was overwritten. Where an
            image is broken, all others are written first.
    """
    device = choose_device(config.device)
    images = find_images(config.inputs, leave_out=[config.out / kind for kind in KINDS])
    results = [Results(config.out, stem) for stem in result_stems(images)]
    require_writable(config.out)
    if not config.overwrite:
        refuse_to_overwrite(path for result in results for path in result.paths)
    model, label_set = load_model(config.model, output_stride=config.output_stride)
    model = place(model, device)
    broken: list[DatasetError] = []
    for path, result in track(list(zip(images, results, strict=True)), "predicting"):
        try:
            image = read_image(path)
        except DatasetError as error:  # one broken file must not cost the others their results
            broken.append(error)
            continue
        result.write(image, predict_image(model, image), label_set, opacity=config.opacity, legend=config.legend)
    if broken:
        raise DatasetError(f"{broken[0]} ({len(broken)} of {len(images)} images are broken; the others are written)")
    return [result.overlay for result in results]


class Results:
    """The three files of an image, each kind in a folder of its own.

    cityscapesScripts take every PNG of a frame's name for a prediction, so `labelIds` can be handed to them as it is.

    Args:
        folder: Holds the three folders.
        stem: Name of the files without ending.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.label_ids, self.color, self.overlay = (folder / kind / f"{stem}.png" for kind in KINDS)

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """All three."""
        return self.label_ids, self.color, self.overlay

    def write(
        self, image: Pixels, prediction: Pixels, label_set: LabelSet, *, opacity: float = 0.55, legend: bool = True
    ) -> None:
        """Write them.

        Args:
            image: RGB uint8 `(H, W, 3)`.
            prediction: trainIds uint8 `(H, W)`.
            label_set: Ids, colours and names.
            opacity: Of the overlay, 0..1.
            legend: Whether the overlay has one below it.

        Raises:
            OutputError: A file cannot be written.
        """
        color = colorize(prediction, label_set)
        picture = overlay(image, color, opacity)
        save_picture(self.label_ids, label_set.id_of_train_id[prediction])
        save_picture(self.color, color)
        save_picture(self.overlay, with_legend(picture, prediction, label_set) if legend else picture)
