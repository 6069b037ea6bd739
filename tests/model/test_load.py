"""Weights by name or path."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from deeplabv3.config import ImportConfig, ModelConfig
from deeplabv3.data.label_sets import PASCAL_VOC, label_set_of_names
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, InputError, OutputError
from deeplabv3.model import load, zoo
from deeplabv3.model.checkpoint import read_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.load import import_checkpoint, load_model, local_file
from deeplabv3.model.zoo import ALIASES, PUBLISHED, find_published, models_table
from tests.model import peers

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def theirs():
    """A small model of mmsegmentation's, as it was published: a file with configuration and classes."""
    dilations = [[(1, 1)], [(1, 1)], [(1, 1), (2, 1)], [(2, 1), (4, 1)]]
    backbone = peers.Backbone((2, 2, 2, 2), (1, 2, 1, 1), dilations, bottleneck=False, deep=True)
    return peers.randomised(peers.MMSeg(backbone, (12, 24, 36), channels=8, aux_channels=4, align_corners=True))


@pytest.fixture
def file(theirs, tmp_path):
    meta = {"config": "decode_head=dict(align_corners=True)", "CLASSES": CITYSCAPES.names, "mmseg_version": "0.10"}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, tmp_path / "published.pth")
    return tmp_path / "published.pth"


@pytest.fixture
def published(file, tmp_path, monkeypatch):
    """The file under a name of the list, at a server that is a folder."""
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    server = file.rename(tmp_path / f"deeplabv3_tiny-d8_cityscapes-{digits}.pth")
    entry = replace(PUBLISHED["deeplabv3_r18-d8_512x1024_80k_cityscapes"], name="tiny", url=server.as_uri())
    monkeypatch.setitem(PUBLISHED, "tiny", entry)
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "cache"))
    return server


def test_file_of_another_project_is_a_model(theirs, file):
    model, labels = load_model(file)
    pixels = peers.image(65, 97)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), peers.logits_of(theirs, pixels), rtol=1e-4, atol=1e-4)
    assert labels == CITYSCAPES
    assert not model.training


def test_name_is_downloaded_once_and_is_a_model(theirs, published, tmp_path):
    model, _ = load_model("tiny")
    published.unlink()
    again, _ = load_model("tiny")
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [published.name]


def damaged(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_download_that_is_damaged_is_refused(published, tmp_path):
    damaged(published)
    with pytest.raises(InputError, match="its SHA-256 is wrong"):
        load_model("tiny")
    assert not (tmp_path / "cache" / published.name).exists()


def test_cached_file_that_is_damaged_is_refused(published, tmp_path):
    load_model("tiny")
    damaged(tmp_path / "cache" / published.name)
    with pytest.raises(CheckpointError, match="is damaged: its SHA-256 is .*; delete it and fetch it again"):
        load_model("tiny")


def test_imported_checkpoint_is_the_same_model(file):
    out, imported, labels = import_checkpoint(ImportConfig(file=file))
    assert (out.name, imported.kind, labels) == ("published.safetensors", "mmseg", CITYSCAPES)
    model, again = load_model(file)[0], load_model(out)[0]
    pixels = peers.image(33, 49)
    with torch.no_grad():
        assert torch.equal(model(pixels), again(pixels))
    assert read_checkpoint(out).record["imported"]["file"] == "published.pth"


def test_imported_checkpoint_is_not_overwritten_unasked(file):
    import_checkpoint(ImportConfig(file=file))
    with pytest.raises(OutputError, match="is there already"):
        import_checkpoint(ImportConfig(file=file))
    out, _, _ = import_checkpoint(ImportConfig(file=file, overwrite=True))
    with pytest.raises(CheckpointError, match="is a checkpoint of deeplabv3 already"):
        import_checkpoint(ImportConfig(file=out))


def test_labels_of_an_import_must_fit(file, tmp_path):
    (tmp_path / "two.yaml").write_text(
        "classes: [{name: a, id: 1, color: [0, 0, 0]}, {name: b, id: 2, color: [1, 1, 1]}]"
    )
    with pytest.raises(InputError, match="has 2 classes and .* 19; give the file of its own classes"):
        import_checkpoint(ImportConfig(file=file, labels=tmp_path / "two.yaml"))


def test_checkpoint_of_a_name_lies_where_it_was_asked_for(published, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert import_checkpoint(ImportConfig(file=Path("tiny")))[0] == Path("tiny.safetensors")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [published.name]


def test_folder_of_a_run_may_be_called_as_what_it_began_with(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert local_file("tiny").name == published.name
    (tmp_path / "tiny").rmdir()
    (tmp_path / "tiny").write_bytes(b"a file of one's own")
    assert local_file("tiny") == Path("tiny")


def test_file_is_never_imported_over_itself(theirs, tmp_path):
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    content = (tmp_path / "theirs.safetensors").read_bytes()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="theirs.safetensors would replace itself; name another file with --out"):
            import_checkpoint(ImportConfig(file=tmp_path / "theirs.safetensors", overwrite=overwrite))
    assert (tmp_path / "theirs.safetensors").read_bytes() == content


def test_mistyped_path_is_not_asked_for_at_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "fetch", lambda repository: Path(f"{repository} was asked for"))
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match="there is no checkpoint run/best; give"):
        local_file("run/best")
    for name in ("somebody/best", "somebody/street-v1.2"):
        assert local_file(name) == Path(f"{name} was asked for")
    for name in ("somebody/best.pth", "somebody/best.PTH"):
        with pytest.raises(CheckpointError, match=f"there is no checkpoint {name}; give"):
            local_file(name)


def test_unknown_name_says_what_there_is(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint cityscapes-r1o1; .* such as cityscapes-r18, "):
        load_model("cityscapes-r1o1")
    with pytest.raises(CheckpointError, match="there is no checkpoint .*none.pth"):
        load_model(tmp_path / "none.pth")


def test_every_published_file_has_its_digits():
    for published in PUBLISHED.values():
        assert published.file.endswith(".pth")
        int(published.file.removesuffix(".pth")[-8:], 16)
        assert published.url.startswith("https://")
    assert len({published.url for published in PUBLISHED.values()}) == len(PUBLISHED) == 41


def test_aliases_lead_to_published_files():
    for alias, name in ALIASES.items():
        assert find_published(alias) is PUBLISHED[name]
        assert alias in models_table()


@pytest.mark.parametrize("name", ["cityscapes-r18", "cityscapes-v3plus-r101", "voc-r50", "voc-mobilenet"])
def test_size_is_that_of_the_parameters(name):
    plus, voc = "plus" in name, name.startswith("voc")
    mobile, small = "mobilenet" in name, "r18" in name
    options = {"aspp_projection": "1x1+3x3"} if voc else {"aspp_projection": "3x3", "stem": "deep"}
    config = ModelConfig(
        backbone="mobilenet_v3_large" if mobile else {"8": "resnet18", "0": "resnet50", "1": "resnet101"}[name[-1]],
        num_classes=21 if voc else 19,
        aspp_channels=256 if voc else 128 if small else 512,
        aspp_separable=plus,
        decoder="separable" if plus else "none",
        auxiliary_channels=10 if mobile else 64 if small else 256,
        **options,
    )
    with torch.device("meta"):
        state = DeepLabV3(config).state_dict()
    megabytes = sum(value.numel() * value.element_size() for value in state.values()) / 1e6
    assert find_published(name).megabytes == pytest.approx(megabytes, rel=0.02)


def test_figures_are_those_that_were_published():
    assert find_published("cityscapes-r101").miou == 80.20
    assert find_published("cityscapes-v3plus-r101").miou == 80.97
    assert zoo.MMSEG_URL in find_published("cityscapes-r101").url


def test_label_set_follows_the_number_of_classes():
    assert label_set_of_names(19) is CITYSCAPES
    assert label_set_of_names(21) is PASCAL_VOC
    assert label_set_of_names(3, ["a", "b", "c"]).names == ("a", "b", "c")
    assert label_set_of_names(3, ["a", "b"]).names == ("class 0", "class 1", "class 2")
    assert label_set_of_names(2, ["a", "a", "b"]).names == ("class 0", "class 1")
    assert label_set_of_names(2, ["road", "ignored"]).names == ("road", "ignored")
    assert label_set_of_names(19, [f"thing {index}" for index in range(19)]).names[0] == "thing 0"


def test_colours_of_voc_are_those_of_its_development_kit():
    assert PASCAL_VOC.palette[[1, 2, 15, 20]].tolist() == [[128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128]]


def test_classes_in_a_file_are_its_label_set(theirs, tmp_path):
    names = [f"thing {index}" for index in range(19)]
    torch.save({"meta": {"CLASSES": names}, "state_dict": theirs.state_dict()}, tmp_path / "own.pth")
    assert load_model(tmp_path / "own.pth")[1].names == tuple(names)


def test_classes_are_found_where_mmengine_puts_them(theirs, tmp_path):
    names = tuple(f"thing {index}" for index in range(19))
    meta = {"dataset_meta": {"classes": names, "palette": [[0, 0, 0]] * 19}, "cfg": "model=dict()"}
    torch.save({"meta": meta, "state_dict": theirs.state_dict()}, tmp_path / "own.pth")
    assert load_model(tmp_path / "own.pth")[1].names == names
