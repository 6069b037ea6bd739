"""An image's way through the service: admitted, decoded, segmented, drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from deeplabv3.config import ServeConfig
from deeplabv3.data.images import Pixels
from deeplabv3.prediction.predictor import predict_batch
from deeplabv3.prediction.segmenter import DeepLabV3, Exported, Prediction
from deeplabv3.serving.batches import Batches
from deeplabv3.serving.decoders import Decoders
from deeplabv3.serving.metrics import Metrics
from deeplabv3.serving.outputs import MAX_PROBABILITIES, Wanted, written
from deeplabv3.serving.refusals import Refusal, busy
from deeplabv3.serving.uploads import Room

UPLOADS = 16
"""Unfinished bodies may take the memory of so many of the largest ones."""


class Service:
    """What all requests share.

    Args:
        config: Limits and inference.
        model: On its device, or an exported file.
    """

    def __init__(self, config: ServeConfig, model: DeepLabV3 | Exported) -> None:
        self.config, self.model, self.label_set = config, model, model.label_set
        self.metrics = Metrics()
        self.room = Room(UPLOADS * config.max_body_bytes)
        self._is_stopping = False
        self._num_images = 0

    def start(self) -> None:
        """Start processes and threads; an event loop runs."""
        self.decoders = Decoders(self.config, self.metrics)
        self._batches = Batches(self._run, self.config.batch_size, self.metrics)
        self._pens = ThreadPoolExecutor(2, "encoder")

    def end(self) -> None:
        """End them."""
        self._batches.end()
        self.decoders.end()
        self._pens.shutdown(wait=False, cancel_futures=True)

    @property
    def is_stopping(self) -> bool:
        """Whether new images are sent away."""
        return self._is_stopping

    @property
    def is_at_work(self) -> bool:
        """Whether an image is in work, or the network runs for one that nobody waits for any more."""
        return self._num_images > 0 or self._batches.is_running

    def stop(self) -> None:
        """Take no new images; those in work go on."""
        self._is_stopping = True

    def give_up(self) -> None:
        """Send those away that still wait for the network."""
        self._batches.give_up()

    def admit(self) -> None:
        """Take an image in, or send it away; `release` is called when its answer is sent.

        Raises:
            Refusal: There are too many, or the service stops.
        """
        if self._is_stopping:
            raise busy("the service is stopping")
        if self._num_images >= self.config.queue_size:
            raise busy(f"{self._num_images} images are in work, as many as are admitted")
        self._num_images += 1
        self.metrics.images.set(self._num_images)

    def release(self) -> None:
        """The answer to an admitted image is sent, or will not be."""
        self._num_images -= 1
        self.metrics.images.set(self._num_images)

    async def segment(self, content: bytes, wanted: Wanted, times: dict[str, float]) -> tuple[bytes, str]:
        """Segment an image that was admitted.

        Args:
            content: Of a file.
            wanted: What to return.
            times: Gets the seconds of each stage.

        Returns:
            The answer's bytes and media type.

        Raises:
            Refusal: The image or what is wanted cannot be served.
        """
        wanted.train_ids(self.label_set)
        probabilities = wanted.output == "probabilities"
        if probabilities and isinstance(self.model, Exported) and self.model.output == "labels":
            raise Refusal(422, "this service's model gives labels and no probabilities; ask for another output")
        with self.metrics.timed("decode", times):
            image = await self.decoders.decode(content)
        most_pixels = MAX_PROBABILITIES // self.label_set.num_classes
        if probabilities and image.shape[0] * image.shape[1] > most_pixels:
            most = f"{most_pixels:,}"
            raise Refusal(413, f"probabilities are given of images of up to {most} pixels; make the image smaller")
        prediction = await self._batches.segment(image, probabilities=probabilities, times=times)
        with self.metrics.timed("encode", times):
            return await asyncio.get_running_loop().run_in_executor(self._pens, written, prediction, wanted)

    def _run(self, images: Sequence[Pixels], probabilities: bool) -> list[Prediction]:
        """The network's part. A single image goes the way of `predict`, whose mask it then has to the byte."""
        inference = self.config.inference
        if probabilities or len(images) == 1:
            return [self.model.predict(image, inference=inference, probabilities=probabilities) for image in images]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (N, 3, H, W)
        labels = predict_batch(self.model, pixels.to(self.model.device), inference).cpu().numpy()
        return [Prediction(image, label, self.label_set) for image, label in zip(images, labels, strict=True)]
