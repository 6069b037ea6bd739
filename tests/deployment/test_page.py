"""docs/deployment.md: its example does what it says."""

import re
import shutil

import numpy as np
from PIL import Image

from deeplabv3.prediction.segmenter import load
from tests.conftest import REPOSITORY


def test_exported_file_is_used_as_the_page_says(checkpoint, labels_onnx, tmp_path, monkeypatch):
    text = re.search(r"```python\n(.*?)```", (REPOSITORY / "docs/deployment.md").read_text(), re.DOTALL)
    assert text
    image = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "street.jpg", quality=100)
    shutil.copy(labels_onnx, tmp_path / "street.onnx")
    monkeypatch.chdir(tmp_path)
    exec(text[1], {})
    expected = load(checkpoint, device="cpu").predict(tmp_path / "street.jpg").color()
    np.testing.assert_array_equal(np.asarray(Image.open("mask.png")), expected)
