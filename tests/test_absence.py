"""What is not there is told from what may not be looked at: Python itself does that up to 3.13 alone."""

import errno
import os
from pathlib import Path

import pytest

from deeplabv3.cli import main
from deeplabv3.files import is_file, is_folder, is_there


@pytest.mark.parametrize("name", ["none", "file/none", "no\0name"])
def test_what_is_nowhere_is_not_there(tmp_path, name):
    (tmp_path / "file").touch()
    assert not any(look(tmp_path / name) for look in (is_there, is_file, is_folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_what_is_there_is_a_file_a_folder_or_neither(tmp_path):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    kinds = [(is_there(path), is_file(path), is_folder(path)) for path in (tmp_path, *sorted(tmp_path.iterdir()))]
    assert kinds == [(True, False, True), (True, True, False), (True, False, False)]


@pytest.mark.parametrize(
    "line",
    [
        "check closed",
        "check closed/data",
        "pack closed packed",
        "unpack closed/packed data",
        "train closed run",
        "train streets run --config closed/recipe.yaml",
        "train streets run --batch-size 2 --backbone-weights closed/resnet50.pth",
        "evaluate closed --model model.safetensors",
        "evaluate streets --predictions closed/predictions",
        "evaluate streets --model closed/model.safetensors",
        "evaluate city --model model.safetensors",
        "evaluate labels --model model.safetensors",
        "predict closed/street.jpg --model model.safetensors",
        "predict closed/drive.mp4 --model model.safetensors",
        "predict street.jpg --model closed/model.onnx",
        "submit streets --split val --check closed/submission.zip",
    ],
)
def test_what_may_not_be_looked_at_is_not_called_absent(line, streets, tmp_path, monkeypatch, capsys):
    def look(path, whole=Path.stat, **options):
        if path.as_posix().startswith(("closed", "city/leftImg8bit/val/a", "labels/gtFine/val/a")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path, **options)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "streets").symlink_to(streets)
    for name in ("city/leftImg8bit/val/{}/{}_leftImg8bit.png", "city/gtFine/val/{}/{}_gtFine_labelIds.png"):
        for city in "ab":
            path = tmp_path / name.format(city, city)
            path.parent.mkdir(parents=True)
            path.touch()
    (tmp_path / "labels").symlink_to("city")
    (tmp_path / "street.jpg").touch()
    monkeypatch.setattr(Path, "stat", look)
    assert main(line.split()) == 2
    assert "Permission denied" in capsys.readouterr().err
