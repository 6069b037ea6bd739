"""What is fuzzed: how a file of each kind is damaged, and what may come of reading it.

A target makes damaged content from a random generator and reads a file. Reading gives None or raises an InputError of
one printable line, a CheckpointError that names the file for checkpoints; what it accepts must be what the file says.
"""

import io
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
from PIL import Image

from deeplabv3.cli import parse
from deeplabv3.config import ModelConfig, Phase, TrainConfig
from deeplabv3.data.images import image_size, read_image, read_label
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX, read_label_set
from deeplabv3.errors import CheckpointError, DatasetError, InputError
from deeplabv3.model.checkpoint import SUFFIX, digest, model_from, read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import load_model, open_checkpoint
from deeplabv3.records import to_record
from deeplabv3.report.writing import _training
from deeplabv3.training.learner import make_learner
from deeplabv3.training.resuming import checkpoint_to_resume
from deeplabv3.training.state import RunPaths, config_yaml, restore, state_tensors
from tests.fuzzing.mutations import of_bytes, of_json, of_tensors, of_text
from tests.model.forging import forged, written
from tests.training.conftest import CPU

RECIPES = Path(parse.__code__.co_filename).parent / "recipes"
LABELS = """name: my-streets
classes:
  - {name: road, id: 7, color: [128, 64, 128], category: flat, has_instances: false}
  - {name: car, id: 26, color: [0, 0, 142], has_instances: true}
  - {name: sky, id: 23, train_id: 2, color: [70, 130, 180], file_train_id: 10}
ignored_ids: [0, 255]
"""


class Target(NamedTuple):
    """A reader and its input.

    Attributes:
        name: The file's name, whose ending the reader may look at.
        damaged: The content of another damaged file.
        read: Reads it, and asserts of what is accepted that it is right.
        error: What reading may raise; its message names the file if `names_file`.
        names_file: Whether it does.
    """

    name: str
    damaged: Callable[[random.Random], bytes]
    read: Callable[[Path], object]
    error: type[InputError]
    names_file: bool = True


def run_config(run_dir: Path) -> TrainConfig:
    """The run whose stopped state `present` is."""
    return TrainConfig(
        data_dir=Path("streets"),
        run_dir=run_dir,
        model=ModelConfig(backbone="resnet18", width=16, aspp_channels=8, dropout=0.2),
        backbone_weights="none",
        phases=(Phase(epochs=3, learning_rate=0.05), Phase(epochs=1, learning_rate=0.01)),
        batch_size=3,
        crop_size=(32, 48),
        average_decay=0.9,
        precision="float16",
        resume=True,
        device="cpu",
    )


def checkpoint_bytes() -> Target:
    """Raw bytes and the header of a checkpoint, whose digest stays what it was."""
    content = written("present")
    size = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:size])
    checkpoint = safetensors.torch.load(content)
    right = digest(checkpoint, header["__metadata__"]["record"])

    def damaged(rng: random.Random) -> bytes:
        kind = rng.randrange(4)
        if kind == 0:
            return of_bytes(content, rng)
        if kind == 1:
            return of_bytes(content, rng, where=size)
        text = of_json(header, rng).encode(errors="surrogatepass")
        length = len(text) if kind == 2 else rng.choice((0, 1, 2**62, 2**64 - 1, len(content), len(text) - 1))
        return length.to_bytes(8, "little") + text + content[size:]

    def read(path: Path) -> None:
        found = read_checkpoint(path)
        assert digest(found.tensors, json.dumps(found.record)) == right, "another checkpoint was read"

    return Target(f"bytes{SUFFIX}", damaged, read, CheckpointError)


def checkpoint_record() -> Target:
    """Record and tensors of a checkpoint whose digest fits, as a model, a page and a run to go on with."""
    contents = [safetensors.torch.load(written("present")), safetensors.torch.load(written("first"))]
    records = [_record_of(written(name)) for name in ("present", "first")]
    config = run_config(Path("run"))
    learner = make_learner(DeepLabV3(config.model), config, CPU)

    def damaged(rng: random.Random) -> bytes:
        which, kind = rng.choice((0, 0, 1)), rng.randrange(4)
        tensors = of_tensors(contents[which], rng) if kind in (0, 1) else contents[which]
        return forged(tensors, of_json(records[which], rng) if kind else json.dumps(records[which]))

    def read(path: Path) -> None:
        checkpoint = open_checkpoint(path)
        failures = []
        for use in (_use_model, _training, partial(_resume, config=config, learner=learner)):
            try:
                use(checkpoint)
            except CheckpointError as error:
                failures.append(error)
                _require_line(error, path, names_file=True)
        if failures:
            raise failures[0]

    return Target(f"last{SUFFIX}", damaged, read, CheckpointError)


def _record_of(content: bytes) -> dict[str, Any]:
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return json.loads(header["__metadata__"]["record"])


def _use_model(checkpoint) -> None:
    model, label_set = model_from(checkpoint)
    part = checkpoint.part("average/") or checkpoint.part("model/")
    assert digest(model.state_dict(), "") == digest(part, "")
    assert label_set.num_classes == model.config.num_classes == len(label_set.palette)
    json.dumps([to_record(model.config), label_set.to_dict()])


def _resume(checkpoint, config: TrainConfig, learner) -> None:
    """As a run does, whose last checkpoint lies at the same path."""
    paths = RunPaths(config, steps_per_epoch=2)
    paths.last, paths.checkpoint_dir = checkpoint.path, checkpoint.path.parent
    content = {"epoch_content": "2 steps of 3 from 6 images (names 8be20096)", "val_names": "8be20096"}
    try:
        assert checkpoint_to_resume(checkpoint, paths, config, CITYSCAPES, content) is not None
    except CheckpointError:
        raise
    except InputError:
        return  # other classes, other images: told apart from damage
    position = restore(checkpoint, learner)
    assert 0 <= position.epoch == len(position.history)
    restored = {name: value.contiguous() for name, value in state_tensors(learner).items()}
    for name, value in checkpoint.tensors.items():
        if not name.startswith("random/"):
            assert name in restored, f"{name} was not restored"
            assert restored[name].dtype == value.dtype, name
            assert digest({"": restored[name]}, "") == digest({"": value}, ""), f"{name} was restored otherwise"


def model_file() -> Target:
    """Any bytes that begin as a checkpoint may: recognised, imported or refused, by whatever way."""
    header = {"__metadata__": {"format": "deeplabv3", "version": "1"}, "model/a": {"dtype": "F32", "shape": [2]}}
    header["model/a"]["data_offsets"] = [0, 8]

    def damaged(rng: random.Random) -> bytes:
        text = of_json(header, rng).encode(errors="surrogatepass")
        # It begins as safetensors do: anything else is read by another process, whose tests are `test_hostile.py`.
        return len(text).to_bytes(8, "little") + b"{" + of_bytes(text[1:] + bytes(8), rng)

    return Target(f"any{SUFFIX}", damaged, load_model, CheckpointError)


def configuration() -> Target:
    """The YAML file behind `train --config`."""
    texts = [path.read_text() for path in sorted(RECIPES.glob("*.yaml"))] + [config_yaml(run_config(Path("run")))]

    def read(path: Path) -> None:
        config = parse("train", ["DATA", "RUN", "--config", str(path)])
        assert isinstance(config, TrainConfig)
        path.write_text(config_yaml(config))
        again = parse("train", ["DATA", "RUN", "--config", str(path)])
        assert config_yaml(again) == config_yaml(config)

    return Target("config.yaml", _of_texts(texts), read, InputError, names_file=False)


def label_set() -> Target:
    """The YAML file behind `--labels`."""

    def read(path: Path) -> None:
        labels = read_label_set(path)
        assert labels == type(labels).from_dict(json.loads(json.dumps(labels.to_dict())))
        assert len(labels.train_id_of_id) == len(labels.train_id_of_file) == len(labels.id_of_file) == 256
        assert labels.num_ids <= 257

    return Target("labels.yaml", _of_texts([LABELS]), read, DatasetError, names_file=False)


def _of_texts(texts: list[str]) -> Callable[[random.Random], bytes]:
    def damaged(rng: random.Random) -> bytes:
        text = rng.choice(texts)
        if rng.random() < 0.2:
            return of_bytes(text.encode(), rng)
        return of_text(text, rng).encode(errors="surrogatepass")

    return damaged


def _encoded(kind: str, pixels: npt.NDArray[Any], **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def label_png() -> Target:
    """A label PNG."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 34, (21, 17), dtype=np.uint8)
    contents = [
        _encoded("PNG", pixels),
        _encoded("PNG", pixels // 17, bits=4),
        _encoded("PNG", pixels, compress_level=0),
    ]

    def read(path: Path) -> None:
        label = read_label(path, CITYSCAPES)
        assert label.dtype == np.uint8
        assert set(np.unique(label)) <= {*range(19), IGNORE_INDEX}

    return Target("label.png", lambda random: of_bytes(random.choice(contents), random), read, DatasetError)


def image() -> Target:
    """An image of each format."""
    pixels = np.random.default_rng(1).integers(0, 256, (23, 19, 3), dtype=np.uint8)
    kinds = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
    contents = [_encoded(kind, pixels) for kind in kinds]
    contents += [_encoded("TIFF", pixels, compression="tiff_lzw"), _encoded("JPEG", pixels, progressive=True)]

    def read(path: Path) -> None:
        found = read_image(path)
        assert found.dtype == np.uint8
        assert found.shape == (*image_size(path), 3)

    return Target("image.png", lambda random: of_bytes(random.choice(contents), random), read, DatasetError)


TARGETS = (checkpoint_bytes, checkpoint_record, model_file, configuration, label_set, label_png, image)
BOUNDED = ("checkpoint_bytes", "checkpoint_record", "model_file")
"""Those whose memory is bounded by twice the size of the file, and what a model of that size takes."""


def _require_line(error: Exception, path: Path, *, names_file: bool) -> None:
    text = str(error)
    assert text.isprintable(), f"no printable line: {text!r}"
    assert len(text) < 2000, f"a line of {len(text)} characters: {text[:200]!r}"
    assert not names_file or str(path) in text, f"a line that does not name the file: {text!r}"


def outcome(target: Target, path: Path) -> str:
    """ "accepted" or "refused".

    Raises:
        Exception: Anything that should not have happened.
    """
    try:
        target.read(path)
    except target.error as error:
        _require_line(error, path, names_file=target.names_file)
        return "refused"
    return "accepted"
