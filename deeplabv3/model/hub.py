"""The Hugging Face Hub: models fetched from it and put there, with a card that says what they are and how they score.

It needs the extra `hub`. A repository holds `model.safetensors`, a checkpoint of this package, and `README.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from deeplabv3.config import ModelConfig
from deeplabv3.data.labels import LabelSet
from deeplabv3.errors import CheckpointError, InputError, printable

FILE = "model.safetensors"
CARD = "README.md"


def is_repository(name: str) -> bool:
    """Whether a name has the form OWNER/NAME."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def fetch(repository: str) -> Path:
    """The checkpoint of a repository, downloaded once into the Hub's own cache.

    Raises:
        InputError: The extra is not installed.
        CheckpointError: The repository or its file cannot be had.
    """
    try:
        hub = _library()
    except InputError as error:
        raise InputError(f"there is no file {repository}, and {error}") from error
    try:
        return Path(hub.hf_hub_download(repository, FILE))
    except Exception as error:  # the library raises many kinds, network errors among them
        raise CheckpointError(
            f"there is no file {repository}, and {FILE} of {repository} cannot be had from the Hub "
            f"({printable(error)}); check the name, or fetch it elsewhere and give its path"
        ) from error


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Put a folder with `model.safetensors` and `README.md` into a repository, which is made if need be.

    Returns:
        Its address.

    Raises:
        InputError: The extra is not installed, or the Hub refuses.
    """
    hub = _library()
    try:
        address = hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repository, folder_path=folder, commit_message="DeepLab V3 and its card")
    except Exception as error:
        raise InputError(
            f"{repository} cannot be written on the Hub ({printable(error)}); log in with: hf auth login"
        ) from error
    return str(address)


def card(
    config: ModelConfig,
    label_set: LabelSet,
    scores: Mapping[str, Any] | None,
    licence: str | None,
    repository: str = "OWNER/NAME",
) -> str:
    """A repository's README: what the model is, how to use it, and its scores.

    Args:
        config: Of the network.
        label_set: Its classes.
        scores: What `evaluate --out` wrote, as read by `json.load`; None leaves the section out.
        licence: An identifier such as "apache-2.0"; None says nothing.
        repository: Where it will be.
    """
    head = ["---", "library_name: deeplabv3", "pipeline_tag: image-segmentation"]
    head += [f"license: {licence}"] if licence else []
    head += ["tags: [semantic-segmentation, deeplabv3, street-scenes]", "---", ""]
    plus = "+" if config.decoder != "none" else ""
    body = [
        f"# DeepLab V3{plus}, {config.backbone}",
        "",
        f"Output stride {config.output_stride}, {config.num_classes} classes ({label_set.name}): "
        f"{', '.join(label_set.names)}.",
        "",
        "```python",
        "import deeplabv3",
        "",
        f'model = deeplabv3.load("{repository}")',
        'model.predict("street.jpg").save("pictures", "street")',
        "```",
        "",
    ]
    if scores is not None:
        body += ["## Scores", "", "| | IoU % |", "|---|---|"]
        rows = {**scores["classScores"], "**mIoU**": scores["averageScoreClasses"]}
        body += [f"| {name} | {100 * iou:.2f} |" for name, iou in rows.items() if iou is not None]
        frames = len(scores.get("perImageScores", {}))
        body += ["", f"By the rules of cityscapesScripts, over {frames} frames." if frames else ""]
    return "\n".join([*head, *body]).rstrip() + "\n"


def _library() -> Any:
    """The library `huggingface_hub`.

    Raises:
        InputError: It is not installed.
    """
    try:
        library, logging = (import_module(f"huggingface_hub{part}") for part in ("", ".utils.logging"))
    except ImportError as error:
        raise InputError("the Hugging Face Hub needs an extra: pip install 'deeplabv3[hub]'") from error
    logging.set_verbosity_error()  # it warns of each retry; the last one is an error here
    return library
