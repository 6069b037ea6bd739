"""One image, three ways: the command, Python and HTTP give the same mask to the byte, or all refuse it."""

import itertools
import subprocess
import sys
from dataclasses import replace

import pytest

from deeplabv3.config import ServeConfig
from deeplabv3.errors import InputError
from deeplabv3.prediction.render import png_of
from deeplabv3.prediction.segmenter import DeepLabV3
from tests.data.corpus import corpus
from tests.serving.conftest import running


def compare(model: DeepLabV3, config, specimens, folder) -> dict[str, int]:
    """Send each specimen by all ways; how many were segmented and how many refused."""
    found = {"segmented": 0, "refused": 0}
    contents = {}
    with running(config, model) as served:
        for number, specimen in enumerate(specimens):
            content = specimen.content if isinstance(specimen.content, bytes) else specimen.content()
            if len(content) > config.max_body_bytes:
                continue
            path = folder / f"{number:05d}_{specimen.name}"
            path.write_bytes(content)
            try:
                expected = png_of(model.predict(path).label_ids)
            except InputError:
                expected = None
            reply = served.segment(content)
            if expected is None:
                assert reply.status in (413, 415, 422), (specimen.name, reply)
                found["refused"] += 1
                path.unlink()
            else:
                assert reply.body == expected, (specimen.name, reply.status)
                found["segmented"] += 1
                contents[path] = expected
    if contents:
        out = folder / "out"
        command = [sys.executable, "-m", "deeplabv3", "predict", *map(str, contents), "--model", str(config.model)]
        done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for path, expected in contents.items():
            assert (out / "labelIds" / f"{path.stem}.png").read_bytes() == expected, path.name
    return found


pytestmark = pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")  # of what makes the corpus


@pytest.fixture
def wide(config):
    """Limits as they are by default."""
    return replace(config, max_pixels=ServeConfig.max_pixels, max_body_bytes=ServeConfig.max_body_bytes)


def test_some_images(model, wide, tmp_path):
    found = compare(model, wide, itertools.islice(corpus(everyday=True), 0, None, 8), tmp_path)
    assert min(found.values()) >= 5


@pytest.mark.slow
def test_whole_corpus(model, wide, tmp_path):
    found = compare(model, wide, corpus(), tmp_path)
    print(found)
    assert found["segmented"] >= 1000
    assert found["refused"] >= 1000
