"""Weights by name or path: ours, another project's, or a published name, each as a model that is ready to run."""

from __future__ import annotations

import json
from pathlib import Path

from deeplabv3.config import ImportConfig, InferenceConfig
from deeplabv3.data.label_sets import label_set_of_names
from deeplabv3.data.labels import LabelSet, read_label_set
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import cache_dir, is_folder, is_there, refuse_to_overwrite, require_writable
from deeplabv3.model.checkpoint import FORMAT, SUFFIX, Checkpoint, model_from, read_checkpoint, write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import choose_device, place
from deeplabv3.model.download import download, verified
from deeplabv3.model.exported import ExportedModel, is_exported, read_exported
from deeplabv3.model.foreign import MAX_HEADER_BYTES, read_foreign
from deeplabv3.model.hub import fetch, is_repository
from deeplabv3.model.importers import Imported, import_weights
from deeplabv3.model.zoo import ALIASES, PUBLISHED, find_published
from deeplabv3.records import to_record

CLASSES = ("meta.CLASSES", "meta.dataset_meta.classes", "meta.dataset_meta.CLASSES")
"""Where mmsegmentation keeps the names of its classes, before its version 1 and since."""

_ENDINGS = (SUFFIX, ".pth", ".pt", ".ckpt", ".bin")
"""What names of files of weights end with, and names of repositories hardly."""


def load_model(name_or_path: str | Path, *, output_stride: int | None = None) -> tuple[DeepLabV3, LabelSet]:
    """A model in evaluation mode and its label set.

    Args:
        name_or_path: A checkpoint of this package, a file of another project, or a name that `deeplabv3 models` lists.
        output_stride: 8, 16 or 32; None keeps the one that it was trained or published with.

    Raises:
        CheckpointError: There is neither such a file nor such a name, or the file cannot be used.
        InputError: It cannot be downloaded, or the output stride is not possible for this model.
    """
    return model_from(open_checkpoint(name_or_path), output_stride=output_stride)


def load_for_inference(
    name_or_path: str | Path, inference: InferenceConfig
) -> tuple[DeepLabV3 | ExportedModel, LabelSet]:
    """A network or an exported file, ready to predict on its device, and its label set.

    Args:
        name_or_path: What `load_model` takes, or a file that `deeplabv3 export` wrote.
        inference: Its output stride and device; an exported file must be able to do all of it.

    Raises:
        CheckpointError: There is neither such a file nor such a name, or the file cannot be used.
        InputError: It cannot be downloaded, the device is not there, or the model cannot do what is asked.
    """
    if is_exported(name_or_path):
        exported = read_exported(name_or_path, ExportedModel)
        exported.require(inference)
        return exported, exported.label_set
    choose_device(inference.device)  # a mistake there is found before anything is fetched
    return ready(open_checkpoint(name_or_path), inference)


def ready(checkpoint: Checkpoint, inference: InferenceConfig) -> tuple[DeepLabV3, LabelSet]:
    """`load_for_inference` of a checkpoint that has been read.

    Raises:
        InputError: The device is not there, or the output stride is not possible for this model.
    """
    device = choose_device(inference.device)
    model, label_set = model_from(checkpoint, output_stride=inference.output_stride)
    return place(model, device), label_set


def open_checkpoint(name_or_path: str | Path) -> Checkpoint:
    """The checkpoint behind a name or a path, imported if it is another project's.

    Raises:
        CheckpointError: There is neither such a file nor such a name, or the file cannot be used.
        InputError: It cannot be downloaded.
    """
    path = local_file(name_or_path)
    if is_ours(path):
        return read_checkpoint(path)
    imported, label_set = import_file(path)
    return checkpoint_of(path, imported, label_set)


def import_file(path: Path, *, output_stride: int | None = None) -> tuple[Imported, LabelSet]:
    """Read another project's file and bring it into our terms, with the label set that it most probably has.

    Raises:
        CheckpointError: It cannot be read, or is no DeepLab that is known.
    """
    foreign = read_foreign(path)
    imported = import_weights(foreign, output_stride=output_stride)
    text = next((foreign.notes[place] for place in CLASSES if place in foreign.notes), "[]")
    try:
        names = [str(name) for name in json.loads(text)]
    except (ValueError, TypeError):
        names = []
    return imported, label_set_of_names(imported.config.num_classes, names)


def import_checkpoint(config: ImportConfig) -> tuple[Path, Imported, LabelSet]:
    """Write another project's checkpoint as one of ours.

    Returns:
        The new file, what was imported, and its classes.

    Raises:
        InputError: The file cannot be read, is no DeepLab that is known or is ours already, its labels do not fit, or
            the new file cannot be written.
    """
    path = local_file(config.file)
    if is_ours(path):
        raise CheckpointError(f"{path} is a checkpoint of deeplabv3 already; use it as it is")
    # What has a name of its own lies in a cache, where nobody would look for it.
    out = config.out or (path.with_suffix(SUFFIX) if path == config.file else Path(config.file.name + SUFFIX))
    if out.absolute() == path.absolute():
        raise InputError(f"{path} would replace itself; name another file with --out")
    require_writable(out.parent)
    if not config.overwrite:
        refuse_to_overwrite([out])
    imported, label_set = import_file(path, output_stride=config.output_stride)
    if config.labels is not None:
        label_set = read_label_set(config.labels)
        if label_set.num_classes != imported.config.num_classes:
            raise InputError(
                f"{config.labels} has {label_set.num_classes} classes and {path} {imported.config.num_classes}; "
                "give the file of its own classes"
            )
    checkpoint = checkpoint_of(path, imported, label_set)
    write_checkpoint(out, checkpoint.tensors, checkpoint.record)
    return out, imported, label_set


def checkpoint_of(path: Path, imported: Imported, label_set: LabelSet) -> Checkpoint:
    """What an imported network would be stored as."""
    tensors = {f"model/{name}": value for name, value in imported.tensors.items()}
    source = {"file": path.name, "project": imported.kind, "assumed": imported.assumed}
    record = {"model": to_record(imported.config), "labels": label_set.to_dict(), "imported": source}
    return Checkpoint(path, tensors, record)


def local_file(name_or_path: str | Path) -> Path:
    """The file that a path names, or that a published name stands for, downloaded once into the user's cache.

    Raises:
        CheckpointError: There is neither such a file nor such a name, or it is damaged or an exported file.
        InputError: It cannot be downloaded; the message says where to put it.
    """
    if is_exported(name_or_path):
        raise CheckpointError(
            f"{name_or_path} is an exported file, whose weights cannot be trained, imported or exported again; give "
            "the checkpoint that it was made from"
        )
    path = Path(name_or_path)
    published = find_published(str(name_or_path))
    try:
        if is_there(path) and not (published and is_folder(path)):  # a run may be called as what it began with
            return path
    except OSError:
        return path  # in a folder that may not be looked into: its reader says so
    if (
        published is None
        and is_repository(path.as_posix())
        and path.suffix.lower() not in _ENDINGS
        and not path.parent.exists()
    ):
        return fetch(path.as_posix())
    if published is None:
        known = ", ".join(ALIASES)
        raise CheckpointError(
            f"there is no checkpoint {name_or_path}; give a file that train wrote, another project's file, or a name "
            f"such as {known} ({len(PUBLISHED)} are listed by deeplabv3 models)"
        )
    path = cache_dir() / published.file
    if not path.is_file():
        download(published.url, path)
    return verified(path)


def is_ours(path: Path) -> bool:
    """Whether a file begins as a checkpoint of this package does; it may be damaged further on."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")  # of the header, JSON text with the metadata in it
            header = file.read(min(length, MAX_HEADER_BYTES))
    except OSError:
        return False  # whoever reads it next says why it cannot be read
    return header.startswith(b"{") and f'"format":"{FORMAT}"'.encode() in header
