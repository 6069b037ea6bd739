"""DeepLab V3 for use in Python: it knows its classes, and its predictions can be shown and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from deeplabv3.config import InferenceConfig, ModelConfig, PredictConfig
from deeplabv3.data.decoding import one_error
from deeplabv3.data.images import Pixels, as_shown, read_image
from deeplabv3.data.label_sets import label_set_of_names
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import InputError
from deeplabv3.files import write_whole
from deeplabv3.model import deeplab, hub
from deeplabv3.model.checkpoint import model_from, write_checkpoint
from deeplabv3.model.device import choose_device, place
from deeplabv3.model.exported import ExportedModel, is_exported, read_exported
from deeplabv3.model.load import open_checkpoint
from deeplabv3.prediction.predictor import WHOLE_FRAME, as_batch, predict_image, predict_probabilities
from deeplabv3.prediction.render import class_shares, colorize, overlay, with_legend
from deeplabv3.prediction.results import Results
from deeplabv3.records import to_record


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model sees in an image.

    Attributes:
        image: RGB, uint8 `(H, W, 3)`.
        train_ids: The class of each pixel, uint8 `(H, W)`.
        label_set: What they mean.
        probabilities: float32 `(K, H, W)`, 0..1, or None where they were not asked for.
    """

    image: Pixels
    train_ids: Pixels
    label_set: LabelSet
    probabilities: npt.NDArray[np.float32] | None = None

    @property
    def label_ids(self) -> Pixels:
        """Label ids, uint8 `(H, W)`, as label-id PNGs hold them."""
        return self.label_set.id_of_train_id[self.train_ids]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels, 0..1, of each class that occurs, by name, the largest first."""
        shares = class_shares(self.train_ids, self.label_set)
        return {self.label_set.names[train_id]: share for train_id, share in shares.items()}

    def color(self) -> Pixels:
        """The colour mask, RGB uint8 `(H, W, 3)`."""
        return colorize(self.train_ids, self.label_set)

    def overlay(self, opacity: float = PredictConfig.opacity, *, legend: bool = False) -> Pixels:
        """The mask laid over the image, RGB uint8 `(H, W, 3)`; with a legend below it, it is higher.

        Raises:
            InputError: The opacity is not in 0..1.
        """
        if not 0 <= opacity <= 1:
            raise InputError(f"opacity is {opacity}; give a value of 0 to 1")
        picture = overlay(self.image, self.color(), opacity)
        return with_legend(picture, self.train_ids, self.label_set) if legend else picture

    def save(self, folder: str | Path, name: str) -> tuple[Path, Path, Path]:
        """Write `labelIds/NAME.png`, `color/NAME.png` and `overlay/NAME.png`, and return their paths.

        Files of these names are replaced.

        Raises:
            OutputError: A file cannot be written.
        """
        results = Results(Path(folder), name)
        results.write(self.image, self.train_ids, self.label_set)
        return results.paths


class DeepLabV3(deeplab.DeepLabV3):
    """The network with its label set.

    Args:
        config: What to build.
        label_set: What the channels of the logits mean; None takes the one that their number suggests.
    """

    def __init__(self, config: ModelConfig, label_set: LabelSet | None = None) -> None:
        super().__init__(config)
        self.label_set = label_set or label_set_of_names(config.num_classes)
        if self.label_set.num_classes != config.num_classes:
            raise InputError(
                f"the label set has {self.label_set.num_classes} classes and the network {config.num_classes}; "
                "both must have the same"
            )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, output_stride: int | None = None, device: str = "cpu"
    ) -> DeepLabV3:
        """A model in evaluation mode.

        Args:
            name_or_path: A checkpoint, another project's file, a published name (`deeplabv3 models` lists them), or
                `OWNER/NAME` of the Hugging Face Hub, which needs the extra `hub`.
            output_stride: 8, 16 or 32; None keeps the one of training.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            InputError: It cannot be found, fetched or used.
        """
        where = choose_device(device)
        checkpoint = open_checkpoint(name_or_path)
        model, label_set = model_from(checkpoint, output_stride=output_stride, build=cls)
        assert isinstance(model, cls)
        model.label_set = label_set
        return place(model, where)

    def predict(
        self,
        image: Pixels | Image.Image | str | Path,
        *,
        inference: InferenceConfig = WHOLE_FRAME,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one image; the model is put into evaluation mode.

        Args:
            image: RGB uint8 `(H, W, 3)`, an image of Pillow's, or the path of a file.
            inference: Scales, flip, windows and precision.
            probabilities: Whether they are wanted too; they are those of the whole frame, without windows.

        Raises:
            InputError: The image cannot be used.
        """
        self.eval()
        return _predicted(self, image, inference, probabilities)

    def save(self, path: str | Path, **record: Any) -> None:
        """Write a checkpoint that every command takes.

        Args:
            path: A `.safetensors` file.
            record: More JSON values to keep in it.

        Raises:
            OutputError: It cannot be written.
            NonFiniteError: A weight is NaN or infinite.
            InputError: The network was converted to another type than float32, in which no checkpoint is loaded.
        """
        if self.classifier.weight.dtype != torch.float32:
            raise InputError(f"the network is of {self.classifier.weight.dtype}; call .float() before it is saved")
        tensors = {f"model/{name}": value for name, value in self.state_dict().items()}
        record = {"model": to_record(self.config), "labels": self.label_set.to_dict(), **record}
        write_checkpoint(Path(path), tensors, record)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        scores: Mapping[str, Any] | None = None,
        licence: str | None = None,
        repository: str = "OWNER/NAME",
    ) -> None:
        """Write what a repository of the Hub holds: `model.safetensors` and a card, `README.md`.

        Args:
            folder: Is made if need be.
            scores: What `evaluate --out` wrote, as read by `json.load`, for the card.
            licence: An identifier such as "apache-2.0", for the card.
            repository: Where it will be, for the card.

        Raises:
            OutputError: A file cannot be written.
            NonFiniteError, InputError: As of `save`.
        """
        self.save(Path(folder) / hub.FILE)
        write_whole(Path(folder) / hub.CARD, hub.card(self.config, self.label_set, scores, licence, repository))

    def push_to_hub(
        self,
        repository: str,
        *,
        scores: Mapping[str, Any] | None = None,
        licence: str | None = None,
        private: bool = False,
    ) -> str:
        """Put the model and its card on the Hugging Face Hub, which needs the extra `hub` and a login.

        Args:
            repository: OWNER/NAME; it is made if need be.
            scores: As in `save_pretrained`.
            licence: As in `save_pretrained`.
            private: Whether a new repository is for its owner alone.

        Returns:
            Its address.

        Raises:
            InputError: The extra is not installed, the name has another form, or the Hub refuses; or as of `save`.
            NonFiniteError: As of `save`.
        """
        if not hub.is_repository(repository):
            raise InputError(f"repository is {repository!r}; give OWNER/NAME")
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, scores=scores, licence=licence, repository=repository)
            return hub.push(Path(folder), repository, private=private)


class Exported(ExportedModel):
    """An exported file for use in Python, which `load` returns for an .onnx or .pt2 file."""

    def predict(
        self,
        image: Pixels | Image.Image | str | Path,
        *,
        inference: InferenceConfig = WHOLE_FRAME,
        probabilities: bool = False,
    ) -> Prediction:
        """Segment one image.

        Args:
            image: RGB uint8 `(H, W, 3)`, an image of Pillow's, or the path of a file.
            inference: Scales, flip and windows; all need a file of probabilities.
            probabilities: Whether they are wanted too; they are those of the whole frame, without windows.

        Raises:
            InputError: The image cannot be used, or the file cannot do what is asked.
        """
        return _predicted(self, image, inference, probabilities)


def load(name_or_path: str | Path, *, output_stride: int | None = None, device: str = "auto") -> DeepLabV3 | Exported:
    """A model that is ready to predict.

    Args:
        name_or_path: What `DeepLabV3.from_pretrained` takes, or a file that `deeplabv3 export` wrote.
        output_stride: 8, 16 or 32; None keeps the one of training.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: It cannot be found, fetched or used, or an exported file cannot do what is asked.
    """
    if not is_exported(name_or_path):
        return DeepLabV3.from_pretrained(name_or_path, output_stride=output_stride, device=device)
    model = read_exported(name_or_path, Exported)
    model.require(InferenceConfig(output_stride=output_stride, device=device))
    return model


def _predicted(
    model: DeepLabV3 | Exported,
    image: Pixels | Image.Image | str | Path,
    inference: InferenceConfig,
    probabilities: bool,
) -> Prediction:
    pixels = _pixels(image)
    if not probabilities:
        return Prediction(pixels, predict_image(model, pixels, inference), model.label_set)
    labels, mean = predict_probabilities(model, as_batch(pixels, model.device), inference)  # (1, H, W), (1, K, H, W)
    return Prediction(pixels, labels[0].cpu().numpy(), model.label_set, mean[0].cpu().numpy())


def _pixels(image: Pixels | Image.Image | str | Path) -> Pixels:
    """RGB uint8 `(H, W, 3)` of whatever was given."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        with one_error(Path("the image")):
            return as_shown(image)
    if not isinstance(image, np.ndarray):
        raise InputError(
            f"an image of type {type(image).__name__} was given; give an array, an image of Pillow's or a path"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an image of {image.dtype} {image.shape} was given; uint8 (H, W, 3) is needed, RGB of 0..255")
    return image.copy()  # a camera's buffer may hold another one soon
