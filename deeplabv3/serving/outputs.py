"""A prediction as the bytes that were asked for."""

from __future__ import annotations

import io
import json
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from deeplabv3.config import PredictConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.prediction.render import png_of
from deeplabv3.prediction.segmenter import Prediction
from deeplabv3.serving.refusals import Refusal

MAX_PROBABILITIES = 19 * 2**22
"""All pixels times all classes are in memory at once: so many take 319 MB, a few times over."""


class Wanted(BaseModel):
    """What a request asks for."""

    model_config = ConfigDict(extra="forbid")

    output: Literal["label_ids", "color", "overlay", "shares", "probabilities"] = Field(
        "label_ids",
        description="label_ids: PNG of a label id a pixel, as predict writes it; color: PNG in the classes' colours; "
        "overlay: PNG of the colours laid over the image; shares: JSON with the share of each class; probabilities: "
        "npz with float16 (C, H, W) of the classes that are asked for, and their names.",
    )
    classes: str = Field(
        "", max_length=2000, description="For probabilities: names of classes with commas between them."
    )
    opacity: float = Field(
        PredictConfig.opacity, ge=0, le=1, description="For an overlay: how strongly it covers the image."
    )
    legend: bool = Field(True, description="For an overlay: whether the classes are named below it.")

    def train_ids(self, label_set: LabelSet) -> list[int]:
        """The trainIds of the classes.

        Raises:
            Refusal: A name is none of the label set's, or there is none where one is needed.
        """
        if self.output != "probabilities":
            return []
        names = [name.strip() for name in self.classes.split(",") if name.strip()]
        for name in names or [""]:
            if name not in label_set.names:
                known = ", ".join(label_set.names)
                raise Refusal(422, f"classes has {name[:80]!r}; give one or more of {known}, as in classes=road,car")
        return [label_set.names.index(name) for name in names]


def written(prediction: Prediction, wanted: Wanted) -> tuple[bytes, str]:
    """What was asked for, and its media type."""
    if wanted.output == "shares":
        height, width = prediction.train_ids.shape
        shares = {"height": height, "width": width, "shares": prediction.shares}
        return json.dumps(shares, ensure_ascii=False).encode(), "application/json"
    if wanted.output == "probabilities":
        assert prediction.probabilities is not None
        chosen = wanted.train_ids(prediction.label_set)
        names = np.array([prediction.label_set.names[train_id] for train_id in chosen])
        content = io.BytesIO()
        np.savez(content, classes=names, probabilities=prediction.probabilities[chosen].astype(np.float16))
        return content.getvalue(), "application/octet-stream"
    if wanted.output == "label_ids":
        return png_of(prediction.label_ids), "image/png"
    if wanted.output == "color":
        return png_of(prediction.color()), "image/png"
    return png_of(prediction.overlay(wanted.opacity, legend=wanted.legend)), "image/png"
