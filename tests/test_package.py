"""The wheel and the source distribution hold the whole product, and the wheel runs outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from deeplabv3 import __version__
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow
BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, 'build_' + sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Both, made of a copy of what is in the repository."""
    folder = tmp_path_factory.mktemp("built")
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / "source" / name)
    for kind in ("wheel", "sdist"):
        command = [sys.executable, "-c", BUILD, kind, str(folder)]
        subprocess.run(command, cwd=folder / "source", capture_output=True, check=True)
    return folder


def files_of_the_package():
    folder = REPOSITORY / "deeplabv3"
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(REPOSITORY).as_posix() for path in paths}


def test_every_file_of_the_package_is_in_both(built):
    with zipfile.ZipFile(built / f"deeplabv3-{__version__}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
    assert {name for name in names if not name.startswith("deeplabv3-")} == files_of_the_package()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    with tarfile.open(built / f"deeplabv3-{__version__}.tar.gz") as source:
        members = {member.name.partition("/")[2]: member.size for member in source}
    assert files_of_the_package() | {"LICENSE", "README.md", "pyproject.toml"} <= set(members)
    assert max(members.values()) < 500_000
    assert not any(name.startswith("tests/") for name in members)  # half of them would be a broken suite


def test_wheel_runs_outside_the_checkout(built, tmp_path):
    """In an environment with the wheel alone; what it depends on is borrowed."""
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel], check=True)
    (borrowed,) = (path for path in map(Path, sys.path) if (path / "torch").is_dir())
    own = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (own / "borrowed.pth").write_text(f"{borrowed}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = tmp_path / "venv/bin/deeplabv3"
    where = run(python, "-c", "import deeplabv3; print(deeplabv3.__file__)").strip()
    assert Path(where).is_relative_to(own)
    assert run(command, "--version") == f"deeplabv3 {__version__}\n"
    run(command, "streets", "DATA", "--num-train", "4", "--num-val", "2", "--height", "64", "--width", "96")
    tiny = ["--width", "16", "--aspp-channels", "8", "--phases", "[{steps: 2, learning_rate: 0.01}]"]
    tiny += ["--batch-size", "2", "--crop-size", "[32, 48]", "--device", "cpu"]
    run(command, "train", "DATA", "RUN", "--config", "quick", *tiny)
    assert "mIoU" in run(command, "evaluate", "DATA", "--model", "RUN/checkpoints/last.safetensors")
