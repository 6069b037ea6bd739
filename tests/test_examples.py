"""The scripts of examples/ run as they are typed, on the tiny data set."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
TINY = {  # what a copy would adjust
    "width=32, aspp_channels=64": "width=16, aspp_channels=8",
    "steps=400": "steps=4",
    "batch_size=4": "batch_size=2",
    "crop_size=(192, 256)": "crop_size=(32, 48)",
}
LABELS = """
name: ground
classes:
  - {name: road, id: 7, color: [128, 64, 128]}
  - {name: car, id: 26, color: [0, 0, 142]}
"""


def run(folder, name, *words, code=0):
    """What it prints, or its errors where it ends with another code than 0."""
    text = (REPOSITORY / "examples" / name).read_text()
    for ours, tiny in TINY.items() if name.startswith("train") else ():
        assert ours in text
        text = text.replace(ours, tiny)
    (folder / name).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, name, *map(str, words)]
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == code, result.stderr
    return result.stderr if code else result.stdout


@pytest.mark.slow
def test_examples_train_score_and_predict(streets, tmp_path):
    ignored = sorted(set(range(34)) - {7, 26})
    (tmp_path / "ground.yaml").write_text(f"{LABELS}ignored_ids: {ignored}\n")
    assert "validation mIoU" in run(tmp_path, "train_own_classes.py", streets, "ground.yaml", "RUN")
    assert "mIoU" in run(tmp_path, "score_model.py", streets, "RUN/checkpoints/last.safetensors", "scores.json")
    images = next((streets / "leftImg8bit/val").iterdir())
    said = run(tmp_path, "predict_folder.py", images, "RUN/checkpoints/last.safetensors", "road")
    assert len(said.splitlines()) == len(list((tmp_path / "pictures/overlay").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("score_model.py", ["none", "m"], "error: there is no folder none; "),
        ("predict_folder.py", [".", "m", "road"], "error: there is no checkpoint m; "),
        ("predict_folder.py", ["none", "m", "road"], "error: there is no folder none; give one with images"),
        ("train_own_classes.py", ["none", "none.yaml", "RUN"], "error: label set none.yaml cannot be read"),
    ],
)
def test_mistake_in_an_example_is_one_line(tmp_path, name, words, said):
    error = run(tmp_path, name, *words, code=2)
    assert error.startswith(said)
    assert error.count("\n") == 1
    assert f"python examples/{name}" in run(tmp_path, name, code=1)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path):
    assert len(path.read_text().splitlines()) < 40
