"""Checkpoints whose digest fits although their content is not what train would write, to reach what is behind it."""

import json
import lzma
from functools import cache
from pathlib import Path

import safetensors.torch

from deeplabv3.model.checkpoint import FORMAT, VERSION, digest

WRITTEN = Path(__file__).parent / "written"


def forged(tensors, record):
    """The bytes of a checkpoint of any tensors and any record, which may be text that is no JSON."""
    text = record if isinstance(record, str) else json.dumps(record)
    metadata = {"format": FORMAT, "version": VERSION, "record": text, "sha256": digest(tensors, text)}
    return safetensors.torch.save(tensors, metadata)


@cache
def written(name):
    """The bytes of a checkpoint that an earlier state of this repository wrote."""
    return lzma.decompress((WRITTEN / f"{name}.safetensors.xz").read_bytes())
