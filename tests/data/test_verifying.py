"""The check of a packed data set: what it reads, what it remembers, what it says of each file."""

import pytest

from deeplabv3.data.checking import check_dataset
from deeplabv3.data.labels import CITYSCAPES
from tests.data.packs import damage, pack


@pytest.fixture
def out(streets, tmp_path):
    """A packed data set that a test may change."""
    for split in ("train", "val"):
        pack(streets, tmp_path / "packed", split)
    return tmp_path / "packed"


def check(out, **options):
    return check_dataset(out, ("train", "val"), CITYSCAPES, **options)


def test_every_frame_is_told_of_as_it_is_read(out):
    told: list[tuple[int, int]] = []
    check(out, progress=lambda *numbers: told.append(numbers))
    assert told == [(number, 9) for number in range(1, 10)]


def test_memory_is_believed_where_it_may_be(out):
    assert [check(out, remembered=True).num_read for _ in range(2)] == [9, 0]
    assert check(out).num_read == 9


def test_damage_is_never_remembered_as_sound(out):
    damage(out / "val" / "images.bin")
    for _ in range(2):
        findings = check(out, remembered=True)
        assert [finding.reason for finding in findings.findings] == ["checksum"]
    assert findings.num_read == 3  # the other split is as it was


def test_what_is_packed_counts_as_what_is_not(streets, out):
    packed, plain = check(out), check_dataset(streets, ("train", "val"), CITYSCAPES)
    assert packed.splits == plain.splits
    assert sorted(packed.label_values.values()) == sorted(plain.label_values.values())
    assert (packed.findings, plain.findings) == ((), ())


@pytest.mark.parametrize(("name", "is_image"), [("images.bin", True), ("labels.bin", False)])
def test_damaged_content_is_that_of_its_file(out, name, is_image):
    damage(out / "train" / name, 0)
    (finding,) = check(out).findings
    assert finding.text == "its packed content does not fit its checksum; pack it again with --overwrite"
    assert ("leftImg8bit" in finding.path.name) == is_image
