import io
import shutil
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplabv3 import distributed
from deeplabv3.config import InferenceConfig, SubmitConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_labels
from deeplabv3.data.images import read_image
from deeplabv3.data.labels import CITYSCAPES, LabelSet
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.evaluation import submission
from deeplabv3.evaluation.submission import MAX_MEMBER_BYTES, check_submission, submit
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import load_model
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.records import to_record


@pytest.fixture
def config(streets, tmp_path, tiny_config):
    """A test split, which has images and no labels."""
    shutil.copytree(streets / "leftImg8bit" / "val", tmp_path / "data" / "leftImg8bit" / "test")
    tensors = {f"model/{name}": value for name, value in DeepLabV3(tiny_config).state_dict().items()}
    record = {"model": to_record(tiny_config), "labels": CITYSCAPES.to_dict()}
    write_checkpoint(tmp_path / "net.safetensors", tensors, record)
    return SubmitConfig(
        data_dir=tmp_path / "data",
        model=tmp_path / "net.safetensors",
        out=tmp_path / "s.zip",
        inference=InferenceConfig(device="cpu"),
    )


def png(values):
    content = io.BytesIO()
    Image.fromarray(values).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def maps(streets):
    """Sound members of a zip file by their names: the labels themselves."""
    return {
        f"{sample.name}_x.png": png(read_labels(sample, CITYSCAPES).label_ids)
        for sample in find_samples(streets, "val")
    }


def faults(config, members):
    """What the check says of a zip file of these members."""
    path = config.out.with_name("theirs.zip")
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in members:
            archive.writestr(name, content)
    with pytest.raises(DatasetError) as caught:
        check_submission(replace(config, model=None, inference=InferenceConfig(), check=path))
    return str(caught.value).splitlines()[1:]


def test_submission_holds_each_frame_and_passes_the_check(config):
    assert submit(config) == 3
    assert check_submission(replace(config, model=None, inference=InferenceConfig(), check=config.out)) == 3
    model, labels = load_model(config.model)
    with zipfile.ZipFile(config.out) as archive:
        for path in sorted((config.data_dir / "leftImg8bit" / "test").rglob("*.png")):
            name = path.name.replace("_leftImg8bit", "_labelIds")
            written = np.asarray(Image.open(io.BytesIO(archive.read(name))))
            np.testing.assert_array_equal(written, labels.id_of_train_id[predict_image(model, read_image(path))])
            assert written.dtype == np.uint8


def test_same_model_writes_the_same_bytes(config):
    submit(config)
    submit(replace(config, out=config.out.with_name("again.zip")))
    assert config.out.read_bytes() == config.out.with_name("again.zip").read_bytes()
    with zipfile.ZipFile(config.out) as archive:  # or the clock would tell them apart, two seconds later
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_folders_and_other_files_do_not_matter(config, maps):
    members = [(f"some/folder/{name}", content) for name, content in maps.items()]
    path = config.out.with_name("theirs.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in [*members, ("readme.txt", b"hello"), (f"__MACOSX/._{next(iter(maps))}", b"junk")]:
            archive.writestr(name, content)
    assert check_submission(replace(config, model=None, inference=InferenceConfig(), check=path)) == 3


def spoilt(maps):
    """A fault by what the check says of it: the content of a member."""
    label = np.asarray(Image.open(io.BytesIO(next(iter(maps.values())))))
    to_train_ids = CITYSCAPES.train_id_of_id
    return {
        "is 64x95 and its frame 64x96": png(label[:, 1:]),
        "has mode RGB": png(np.zeros((64, 96, 3), np.uint8)),
        "has mode I;16": png(label.astype(np.uint16)),
        "holds 77, outside the label ids": png(np.where(label == 7, 77, label).astype(np.uint8)),
        "looks like trainIds": png(to_train_ids[label]),
        "holds trainIds": png(np.where(to_train_ids[label] == 255, 0, to_train_ids[label])),
        "cannot be read": png(label)[:100],
    }


def test_every_fault_is_listed(config, maps):
    (first, *_), contents = maps, spoilt(maps)
    for reason, content in contents.items():
        (line,) = faults(config, [*{**maps, first: content}.items()])
        assert reason in line
        assert first in line


def test_missing_duplicate_and_strange_files_are_listed(config, maps):
    twice, lost, kept = maps
    members = [(name, maps[name]) for name in (twice, kept)] + [(f"again/{twice}", maps[twice]), ("z.png", b"")]
    missing, duplicate, strange = faults(config, members)
    assert f"{lost.removesuffix('_x.png')}: missing" in missing
    assert f"given 2 times, as again/{twice}, {twice}" in duplicate
    assert "z.png: belongs to no frame" in strange


def test_one_name_twice_is_a_duplicate(config, maps):
    (line,) = faults(config, [*maps.items(), next(iter(maps.items()))])
    assert "given 2 times" in line


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_member_is_listed(config, maps, kind):
    path = config.out
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in maps.items():
            archive.writestr(name, content)
    content = bytearray(path.read_bytes())
    content[80:90] = bytes(10)  # within the first PNG
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="has 1 fault.*\n.*cannot be unpacked: "):
        check_submission(replace(config, model=None, inference=InferenceConfig(), check=path))


def test_huge_member_is_not_unpacked(config, maps):
    path = config.out
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in maps.items():
            archive.writestr(name, content + bytes(MAX_MEMBER_BYTES))
    for info in (lying := zipfile.ZipFile(path)).infolist():  # the directory may claim less
        assert info.file_size > MAX_MEMBER_BYTES
    lying.close()
    with pytest.raises(DatasetError, match="has 3 faults(.*\n.*bytes unpacked; a label map has less){3}"):
        check_submission(replace(config, model=None, inference=InferenceConfig(), check=path))


def test_member_is_never_read_beyond_the_limit(config, maps, monkeypatch):
    """Whatever its directory claims: what is asked for is what is unpacked."""
    real, asked = zipfile.ZipExtFile.read, []

    def read(file, n=-1):
        asked.append(n)
        return real(file, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    faults(config, [*list(maps.items())[1:], ("z.png", b"")])
    assert asked == [MAX_MEMBER_BYTES + 1] * (len(maps) - 1)


def test_submission_that_would_be_refused_is_not_written(config, monkeypatch):
    monkeypatch.setattr(submission, "png_of", lambda values: png(values[:, :-1]))
    with pytest.raises(DatasetError, match="would be refused, so it is not written:(\n  .*64x95.*){3}"):
        submit(config)
    assert not list(config.out.parent.glob("*s.zip*"))


def odd_zip(changes):
    """An empty member in whose entry of the directory bytes are changed."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ab", b"")
    content = bytearray(file.getvalue())
    for place, value in changes.items():
        start = content.index(b"PK\x01\x02") + place
        content[start : start + len(value)] = value
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file",
        b"PK\x03\x04",
        odd_zip({6: b"\x63\x00"}),  # a version that no reader knows
        odd_zip({8: b"\x00\x08", 46: b"\xff\xfe"}),  # a name that says it is UTF-8
    ],
    ids=["empty", "text", "start", "version", "name"],
)
def test_file_that_is_no_zip(config, content):
    config.out.write_bytes(content)
    with pytest.raises(DatasetError, match="is not a sound zip file"):
        check_submission(replace(config, model=None, inference=InferenceConfig(), check=config.out))


def test_submission_is_not_overwritten_unasked(config):
    config.out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="is there already"):
        submit(config)
    assert config.out.read_bytes() == b"mine"
    assert submit(replace(config, overwrite=True)) == 3


@pytest.mark.parametrize("share", [0, 0.5])
def test_broken_image_leaves_no_file(config, share):
    """One of which the header can be read fails in the middle of the writing."""
    path = max((config.data_dir / "leftImg8bit").rglob("*.png"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DatasetError):
        submit(config)
    assert [path.name for path in config.out.parent.iterdir() if "zip" in path.name] == []


def test_several_processes_are_refused(config, monkeypatch):
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    with pytest.raises(InputError, match="started in 2 processes; it runs in one"):
        submit(config)


def test_model_of_other_classes_is_refused(config, tiny_config):
    rows = [{"name": f"thing {index}", "id": index, "color": [0, 0, 0]} for index in range(19)]
    tensors = {f"model/{name}": value for name, value in DeepLabV3(tiny_config).state_dict().items()}
    labels = LabelSet.from_dict({"name": "own", "classes": rows}).to_dict()
    write_checkpoint(config.model, tensors, {"model": to_record(tiny_config), "labels": labels})
    with pytest.raises(InputError, match="was trained on own, whose id 0 is 'thing 0'; the server takes"):
        submit(config)


def test_frames_of_one_name_are_refused(config):
    image = next((config.data_dir / "leftImg8bit").rglob("*.png"))
    (image.parent.parent / "other").mkdir()
    shutil.copy(image, image.parent.parent / "other")
    with pytest.raises(DatasetError, match="are frames of one name, so their predictions cannot be told apart"):
        submit(config)


def test_options_of_inference_are_not_for_a_check(config):
    with pytest.raises(InputError, match="need --model; a check changes nothing"):
        replace(config, model=None, check=config.out, inference=InferenceConfig(flip=True))


def test_nothing_to_do_is_said(config):
    with pytest.raises(InputError, match="nothing to do is given; give --model PATH or --check PATH"):
        SubmitConfig(data_dir=config.data_dir)
