"""Packing as tests do it."""

from deeplabv3.config import CheckConfig
from deeplabv3.data.cityscapes import find_labelled
from deeplabv3.data.frames import label_set_of
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.packing import pack_split
from deeplabv3.report.defects import checked


def pack(data_dir, out, split="train", label_set=CITYSCAPES, **options):
    samples = find_labelled(data_dir, split)
    return pack_split(data_dir, out, split, samples, label_set, num_workers=0, **options)


def reasons(data_dir, remembered=False):
    findings = checked(CheckConfig(data_dir=data_dir), label_set_of(data_dir, None), remembered=remembered)
    return [(finding.reason, finding.path.name) for finding in findings.findings]


def damage(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
