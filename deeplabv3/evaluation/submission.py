"""Submissions to the Cityscapes benchmark server: a zip file of label-id PNGs, written and checked.

The server wants one single-channel 8-bit PNG of label ids a frame, as large as the frame, whose name begins with the
frame's `<city>_<sequence>_<frame>`; folders within the zip file do not matter (cityscapes-dataset.com, "Submit").
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deeplabv3.config import SubmitConfig
from deeplabv3.data.cityscapes import find_images, frame_name, require_unique_names
from deeplabv3.data.frames import label_set_of
from deeplabv3.data.images import image_size, read_image
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.data.numbering import looks_like_train_ids
from deeplabv3.distributed import require_single
from deeplabv3.errors import DatasetError, InputError, printable
from deeplabv3.evaluation.predictions import count_faults, files_of_frames, read_prediction
from deeplabv3.files import is_file, open_whole, refuse_to_overwrite, require_writable
from deeplabv3.model.load import load_for_inference
from deeplabv3.prediction.predictor import naming, predict_image
from deeplabv3.prediction.render import png_of
from deeplabv3.progress import track

MAX_MEMBER_BYTES = 2**26
"""Largest PNG that is unpacked: label maps are far smaller, and a zip file may claim anything."""

_DATE = (1980, 1, 1, 0, 0, 0)  # the same predictions are the same file, whenever they are made


def submit(config: SubmitConfig) -> int:
    """Predict every image of a split and write the zip file; labels are neither needed nor read.

    Returns:
        The number of frames.

    Raises:
        InputError: An image or the checkpoint cannot be used, or the file cannot be written; then nothing is.
    """
    assert config.model is not None
    require_single("submit")
    sizes = _sizes(config)
    images = {frame_name(path): path for path in find_images(config.data_dir, config.split)}
    require_writable(config.out.parent)
    if not config.overwrite:
        refuse_to_overwrite([config.out])
    model, label_set = load_for_inference(config.model, config.inference)
    _require_benchmark_classes(config.model, label_set)
    with open_whole(config.out) as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, path in track(list(images.items()), "predicting"):
                image = read_image(path)
                with naming(path):
                    prediction = predict_image(model, image, config.inference)
                content = png_of(label_set.id_of_train_id[prediction])
                archive.writestr(zipfile.ZipInfo(f"{name}_labelIds.png", _DATE), content)  # compressed by the PNG
        with zipfile.ZipFile(file) as archive:
            faults = faults_of(archive, sizes, CITYSCAPES)
        if faults:
            raise DatasetError("\n  ".join(["the submission would be refused, so it is not written:", *faults]))
    return len(images)


def check_submission(config: SubmitConfig) -> int:
    """Look for everything in a zip file that the server would refuse or misread.

    Returns:
        The number of frames, each of which is there once and sound.

    Raises:
        DatasetError: There are faults; all of them are listed.
    """
    assert config.check is not None
    label_set = label_set_of(config.data_dir, config.labels)
    sizes = _sizes(config)
    if not is_file(config.check):
        raise DatasetError(f"there is no file {config.check}; give the zip file that is to be checked")
    try:
        archive = zipfile.ZipFile(config.check)
    except OSError:
        raise
    except Exception as error:  # a damaged directory has many kinds
        raise DatasetError(f"{config.check} is not a sound zip file ({printable(error)}); write it anew") from error
    with archive:
        faults = faults_of(archive, sizes, label_set)
    if faults:
        many = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        head = f"{config.check} has {many}, measured on the {len(sizes)} frames of {config.split}:"
        raise DatasetError("\n  ".join([head, *faults]))
    return len(sizes)


def _sizes(config: SubmitConfig) -> dict[str, tuple[int, int]]:
    """Height and width of each frame of the split by its name, which no other frame may have."""
    images = find_images(config.data_dir, config.split)
    require_unique_names(images)
    return {frame_name(path): image_size(path) for path in images}


def _require_benchmark_classes(model: Path, label_set: LabelSet) -> None:
    """Refuse a model of other classes than the server's, whose ids would mean something else there."""
    benchmark = {(row.id, row.name) for row in CITYSCAPES.evaluated}
    other = next((row for row in label_set.evaluated if (row.id, row.name) not in benchmark), None)
    if other is not None:
        raise InputError(
            f"{model} was trained on {label_set.name}, whose id {other.id} is '{other.name}'; the server takes the "
            "classes of Cityscapes"
        )


def faults_of(archive: zipfile.ZipFile, sizes: Mapping[str, tuple[int, int]], label_set: LabelSet) -> list[str]:
    """Every fault of a submission, a line each.

    Args:
        archive: The open zip file.
        sizes: Height and width of each frame by its name.
        label_set: Which label ids there are.
    """
    members = {Path(info.filename): info for info in archive.infolist() if not info.is_dir()}
    listed = [Path(info.filename) for info in archive.infolist() if not info.is_dir()]
    found, strange = files_of_frames(listed, list(sizes))
    faults = count_faults(found)
    faults += [f"{path}: belongs to no frame, whose names are like {next(iter(sizes))}*.png" for path in strange]
    for name, files in track(list(found.items()), "checking"):
        if len(files) == 1:
            fault = _fault_of(archive, members[files[0]], files[0], sizes[name], label_set)
            faults += [fault] if fault else []
    return faults


def _fault_of(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, size: tuple[int, int], label_set: LabelSet
) -> str:
    """What is wrong with one PNG, or ""."""
    try:
        with archive.open(member) as file:
            content = file.read(MAX_MEMBER_BYTES + 1)  # whatever the directory of the zip file claims
    except Exception as error:  # every compression has its own kinds
        return f"{path} cannot be unpacked: {printable(error)}"
    if len(content) > MAX_MEMBER_BYTES:
        return f"{path} has over {MAX_MEMBER_BYTES:,} bytes unpacked; a label map has less"
    try:
        values = read_prediction(content, path, size, label_set)
    except DatasetError as error:
        return str(error)
    if looks_like_train_ids(np.unique(values), label_set):
        return f"{path} holds trainIds, and label ids are wanted; write what LabelSet.id_of_train_id makes of them"
    return ""
