"""The official evaluation script, fed with arrays instead of files."""

import importlib
import sys
from unittest import mock

import numpy as np
from PIL import Image

setattr(np, "in1d", np.isin)  # noqa: B010  # NumPy 2 warned of it and then took it away, and the script calls it

script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def official(frames, *, instances=True):
    """The result of `evaluateImgLists` for (label ids, prediction ids, instance ids) of each frame."""
    files: dict[str, Image.Image | None] = {}
    for place, (label_ids, prediction_ids, instance_ids) in enumerate(frames):
        files[f"{place}_labelIds"] = Image.fromarray(label_ids)
        files[f"{place}_prediction"] = Image.fromarray(prediction_ids)
        files[f"{place}_instanceIds"] = None if instance_ids is None else Image.fromarray(instance_ids)
    args = script.args
    args.quiet, args.JSONOutput, args.evalInstLevelScore = True, False, instances
    names = range(len(frames))
    with mock.patch.object(script.Image, "open", files.__getitem__), mock.patch.object(sys, "stdout"):
        return script.evaluateImgLists(
            [f"{place}_prediction" for place in names], [f"{place}_labelIds" for place in names], args
        )
