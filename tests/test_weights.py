"""Weights of other projects from the command line: what is typed, what comes out, what a mistake looks like."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from deeplabv3.cli import main
from deeplabv3.model.checkpoint import read_checkpoint
from deeplabv3.model.zoo import ALIASES, PUBLISHED
from tests.conftest import REPOSITORY
from tests.model import hostile, peers
from tests.model.parity import D8, PLAIN

TRAIN = (
    *("--crop-size", "[32,48]", "--batch-size", "3", "--device", "cpu", "--report", "false"),
    *("--phases", '[{"epochs": 1, "learning_rate": 0.001}]'),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A small model as mmsegmentation saves it."""
    backbone = peers.Backbone(
        (2, 2, 2, 2), **D8, dilations=[*PLAIN, [(1, 1), (2, 1)], [(2, 1), (4, 1)]], bottleneck=False
    )
    theirs = peers.randomised(peers.MMSeg(backbone, (12, 24, 36), channels=8, aux_channels=4))
    path = tmp_path_factory.mktemp("theirs") / "deeplabv3_r18b-d8.pth"
    torch.save({"meta": {"epoch": 3}, "state_dict": theirs.state_dict()}, path)
    return path


@pytest.fixture
def image(streets):
    return next((streets / "leftImg8bit" / "val").rglob("*.png"))


def deeplabv3(*words):
    command = [sys.executable, "-m", "deeplabv3", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=300, check=False)


def test_imported_by_a_real_process_and_used(file, image, tmp_path, capsys):
    out = tmp_path / "ours.safetensors"
    result = deeplabv3("import", file, "--out", out)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (
        "mmseg: resnet18, 19 classes (cityscapes), D8, rates (12, 24, 36), align_corners False, by the file's name\n"
        f"written as {out}\n"
    )
    for model, folder in ((file, tmp_path / "theirs"), (out, tmp_path / "ours")):
        words = ["predict", image, "--model", model, "--out", folder, "--device", "cpu"]
        assert main([str(word) for word in words]) == 0
        assert capsys.readouterr().err == ""
    for path in (tmp_path / "theirs").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "ours" / path.relative_to(tmp_path / "theirs")).read_bytes()


def test_name_works_wherever_a_path_does(here, file, streets, image, tmp_path, monkeypatch, capsys):
    server = tmp_path / f"deeplabv3_tiny-d8-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    server.write_bytes(file.read_bytes())
    name = ALIASES["cityscapes-r18"]
    monkeypatch.setitem(PUBLISHED, name, replace(PUBLISHED[name], url=server.as_uri()))
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "cache"))
    for words in (
        ("predict", image, "--model", "cityscapes-r18", "--out", tmp_path / "pictures", "--device", "cpu"),
        ("evaluate", streets, "--model", "cityscapes-r18", "--device", "cpu"),
        ("report", streets, "--model", "cityscapes-r18", "--report-dir", tmp_path / "report", "--device", "cpu"),
        ("submit", streets, "--model", name, "--split", "val", "--out", tmp_path / "a.zip", "--device", "cpu"),
        ("train", streets, tmp_path / "run", "--weights", "cityscapes-r18", "--ignored-classes", "[train]", *TRAIN),
    ):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err
        server.unlink(missing_ok=True)  # it was fetched for the first of them and kept
    assert "the classifier for the 18 of cityscapes begins anew, all else is kept" in capsys.readouterr().err
    record = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.safetensors").record
    assert (record["model"]["num_classes"], record["model"]["output_stride"]) == (18, 8)


def test_models_are_listed_with_all_that_is_known(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line for line in text.splitlines()}
    for name, published in PUBLISHED.items():
        for value in (published.architecture, published.data_set, f"{published.miou:.2f}", str(published.megabytes)):
            assert value in rows[name], name
        assert f"{published.source}: {published.licence}" in text


def detector():
    names = ("backbone.body.conv1.weight", "rpn.head.conv.weight", "roi_heads.box_head.fc6.weight")
    return hostile.saved({name: torch.ones(1) for name in names})


OTHERS = hostile.mistakes() | {"detector": detector(), "program": hostile.programs("none")["os_system_protocol_2"]}


@pytest.mark.parametrize("name", OTHERS)
def test_file_of_another_kind_is_one_line_and_exit_code_2(here, image, tmp_path, capsys, name):
    path, out = tmp_path / f"{name}.pth", tmp_path / "out"
    path.write_bytes(OTHERS[name])
    verbs = (
        ("import", path, "--out", out / "o.safetensors"),
        ("predict", image, "--model", path, "--out", out),
    )
    for words in verbs:
        assert main([str(word) for word in words]) == 2
        stdout, err = capsys.readouterr()
        assert stdout == ""
        assert err.startswith(f"deeplabv3 {words[0]}: error: {path} ")
        assert err.count("\n") == 1
        assert "; " in err, "the next step"
        assert not out.exists()
