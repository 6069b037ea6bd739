"""Every command and every Python snippet of README.md and docs/ is run, page by page, in the order of the page.

What is learned, drawn and scored is made tiny by options behind what the page says. Left out is what says that it needs
a network, an accelerator, a camera or CamVid, and what another test runs.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from deeplabv3.data.streets import write_streets
from tests.conftest import REPOSITORY, free_port
from tests.pages import PAGES, Command, blocks, commands

NETWORK = (
    "--backbone resnet18 --backbone-weights none --width 16 --aspp-channels 8 --crop-size '[32, 48]' --batch-size 3 "
    "--device cpu --eval-interval 5"
)
TINY = {
    "streets": "--num-train 6 --num-val 3 --height 64 --width 96",
    "train": f"{NETWORK} --phases '[{{epochs: 20, learning_rate: 0.05}}]'",
}
ELSEWHERE = (
    "make ",  # what runs the tests
    "python3 -m venv",  # the environment that the tests run in
    "deeplabv3 demo",  # tests/test_demo.py
    ".venv/bin/python -m deeplabv3 demo",
    "python main.py",  # tests/test_main.py
    "deeplabv3 evaluate DATA --model deeplabv3plus_r101.pth",  # tests/model/test_importers.py, like the next
    "deeplabv3 import",
    "tensorboard ",  # tests/training/test_events.py reads what it would show
    "deeplabv3 train DATA RUN [",  # the form of a command
    "deeplabv3 evaluate CAMVID",  # what the training before it, which is marked, would leave
)
SHIM = '#!/bin/sh\nexec {python} {module} "$@"\n'
PROGRAMS = {"deeplabv3": "-m deeplabv3", "torchrun": "-m torch.distributed.run", "python": ""}


def to_run(page: Path) -> list[Command]:
    return [command for command in commands(page) if not command.marked and not command.text.startswith(ELSEWHERE)]


class Reader:
    """Someone who types what a page says, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, module in PROGRAMS.items():
            path = folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(SHIM.format(python=sys.executable, module=module))
            path.chmod(0o755)
        paths = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        self.port = free_port()

    def start(self, text: str) -> subprocess.Popen[str]:
        """Begin a command; `exec` makes a signal reach the program itself."""
        words = ["bash", "-c", text if "|" in text else f"exec {text}"]
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, text: str) -> str:
        process = self.start(text.replace("127.0.0.1:8000", f"127.0.0.1:{self.port}"))
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{text}\n{output}"
        return output

    def stop_early(self, text: str, sign: Path) -> None:
        """Ctrl-C once there is a file."""
        process = self.start(text)
        while not sign.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT, output
        assert "go on with the same command and --resume" in output

    def serve(self, text: str) -> subprocess.Popen[str]:
        process = self.start(f"{text} --port {self.port}")
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return process
            except OSError:
                assert process.poll() is None, process.communicate()[0]
                time.sleep(0.1)
        raise AssertionError("the service does not answer")


def follow(reader: Reader, page: Path) -> int:
    """Type the commands of a page; a command that comes again with --resume is interrupted the first time."""
    lines = to_run(page)
    services = []
    for number, command in enumerate(lines):
        verb = command.words[0] if command.words else ""
        text = " ".join(filter(None, (command.text, TINY.get(verb))))
        resumed = any(later.text == f"{command.text} --resume" for later in lines[number:])
        if verb == "serve":
            services.append(reader.serve(text))
        elif resumed:
            reader.stop_early(text, reader.folder / "RUN" / "log.jsonl")
        else:
            reader.type(text)
    for service in services:
        service.send_signal(signal.SIGINT)
        assert service.wait(timeout=30) == 0
        service.communicate()
    return len(lines)


@pytest.fixture
def reader(tmp_path) -> Reader:
    """A folder with a picture and the label set of the first steps."""
    reader = Reader(tmp_path)
    write_streets(tmp_path / "photos", num_train=1, num_val=1, height=64, width=96, seed=5)
    photo = next((tmp_path / "photos").glob("leftImg8bit/train/*/*.png"))
    reader.type(f'python -c \'from PIL import Image; Image.open("{photo}").save("street.jpg")\'')
    (label_set,) = blocks(REPOSITORY / "docs/getting-started.md", "yaml")
    (tmp_path / "ground.yaml").write_text(label_set)
    return reader


@pytest.fixture
def equipped(reader) -> Reader:
    """The same with a data set, a run, a checkpoint M, predictions, clips, frames and a video."""
    root = reader.folder
    write_streets(root / "DATA", num_train=6, num_val=3, num_test=2, height=64, width=96, seed=1)
    reader.type(f"deeplabv3 train DATA RUN --config quick {TINY['train'].replace('20', '5')}")
    shutil.copy(root / "RUN/checkpoints/best.safetensors", root / "M")
    for name in ("FOLDER", "clips", "frames"):
        (root / name).mkdir()
    for path in root.glob("DATA/gtFine/val/*/*_labelIds.png"):
        shutil.copy(path, root / "FOLDER")
    shutil.copy(root / "street.jpg", root / "clips/walk.jpg")
    for path in root.glob("DATA/leftImg8bit/train/*/*.png"):
        shutil.copy(path, root / "frames")
    return reader


@pytest.mark.slow
def test_first_steps_can_be_followed(reader):
    assert follow(reader, REPOSITORY / "docs/getting-started.md") >= 12
    assert (reader.folder / "street.png").read_bytes() == (reader.folder / "PICTURES/labelIds/street.png").read_bytes()
    for code in blocks(REPOSITORY / "docs/getting-started.md", "python"):
        reader.type(f"python - <<'END'\n{code}END")


OTHERS = [page for page in PAGES if page.name != "getting-started.md" and to_run(page)]


@pytest.mark.slow
@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.name)
def test_commands_of_a_page_run(equipped, page):
    if page.name == "video.md":
        equipped.type("cat frames/*.png | deeplabv3 predict - --model M --out made")
        (equipped.folder / "made/stdin_overlay.mp4").rename(equipped.folder / "drive.mp4")
    follow(equipped, page)


def test_what_is_left_out_is_there():
    texts = [command.text + " " for page in PAGES for command in commands(page)]
    for beginning in ELSEWHERE:
        assert any(text.startswith(beginning) for text in texts), beginning


SNIPPETS = [(page, code) for page in PAGES for code in blocks(page, "python") if page.name != "getting-started.md"]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "code"), SNIPPETS, ids=lambda value: getattr(value, "name", "code"))
def test_python_of_a_page_runs(equipped, page, code):
    """Published names become the checkpoint; what needs a login is left out."""
    code = re.sub(r'"(cityscapes-r101|run/checkpoints/best.safetensors)"(?=\))', '"M"', code)
    lines = [line for line in code.splitlines() if "push_to_hub" not in line]
    if "onnxruntime" in code:
        equipped.type("deeplabv3 export M street.onnx")
    equipped.type("python - <<'END'\n" + "\n".join(lines) + "\nEND")
