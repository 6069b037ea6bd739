"""The list, the table and the picture of a check."""

import io
import json

import pytest
from PIL import Image

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.findings import REASONS
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.report.balance import balance_png
from deeplabv3.report.defects import balance_table, defect_list, to_json
from tests.data.planting import DEFECTS
from tests.data.tree import Tree


def test_list_names_every_file_once_under_its_reason(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    for name in ("zero_bytes", "label_rgb", "many_unknown_ids"):
        DEFECTS[name](tree)
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES)
    text = defect_list(findings)
    assert text.startswith(f"3 defects in 3 files of {tmp_path} (6 train, 4 val frames)\n")
    for path, reason in tree.expected:
        assert text.count(f"  {path}: ") == 1
        assert text.count(f"\n{reason}: {REASONS[reason]} (1)\n") == 1
    assert len(json.dumps(to_json(findings))) > 100
    assert balance_table(findings).splitlines()[2].startswith("road ")


@pytest.mark.parametrize("splits", [("train",), ("train", "val", "more")])
@pytest.mark.parametrize("defects", [0, 1])
def test_balance_is_drawn_whatever_there_is(tmp_path, rng, splits, defects):
    """One split or several, and one in which no label can be used."""
    tree = Tree(tmp_path, rng)
    if defects:
        for path in tree.labels.values():
            path.write_bytes(b"")
    picture = balance_png(check_dataset(tmp_path, splits, CITYSCAPES))
    assert Image.open(io.BytesIO(picture)).size == (1500, 1066)


def test_balance_of_any_splits_is_drawn(tmp_path, rng):
    """Names that are no formulas, and more splits than there are kinds of marks."""
    Tree(tmp_path, rng)
    splits = ("a$b^$", "train", "val", *"123456")
    assert balance_png(check_dataset(tmp_path, splits, CITYSCAPES))


def test_name_that_cannot_be_printed_is_one_line(tmp_path, rng):
    tree = Tree(tmp_path, rng)
    path = tree.images[tree.take()]
    path.rename(path.with_name("a\nb\x1b[31m.png"))
    findings = check_dataset(tmp_path, ("train", "val"), CITYSCAPES)
    assert "\x1b" not in defect_list(findings)
    assert r"a\nb\x1b[31m.png" in defect_list(findings)
