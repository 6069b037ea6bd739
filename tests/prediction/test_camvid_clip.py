"""Real frames in their order: a clip in, a clip of overlays out, which a browser plays."""

import base64
import io
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplabv3.data.images import read_image
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.prediction.predictor import predict
from deeplabv3.prediction.video import with_all_classes
from tests.prediction.test_video import config, mean_error, write_clip  # noqa: F401  # a fixture

pytest.importorskip("av", reason="PyAV is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
FRAMES = Path(__file__).resolve().parents[3] / "shared/camvid/leftImg8bit/val"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
    pytest.mark.skipif(not FRAMES.is_dir(), reason="there are no frames of CamVid beside the checkout"),
]
RATE = 10
SEEN = """async ([times]) => {
    const video = document.querySelector("video"), canvas = document.createElement("canvas"), pictures = [];
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    for (const time of times) {
        await new Promise(done => { video.onseeked = done; video.currentTime = time; });
        canvas.getContext("2d").drawImage(video, 0, 0);
        pictures.push(canvas.toDataURL().split(",")[1]);
    }
    return [video.duration, pictures];
}"""
"""Pictures of a video at some seconds, as PNGs."""


def seen_in_a_browser(path, times):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        content = base64.b64encode(path.read_bytes()).decode()
        page.set_content(f'<video muted preload="auto" src="data:video/mp4;base64,{content}"></video>')
        page.wait_for_function("document.querySelector('video').readyState >= 3")
        duration, pictures = page.evaluate(SEEN, [times])
        browser.close()
    return duration, [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in pictures]


def test_clip_of_real_frames_is_played_with_its_legend(config, tmp_path):  # noqa: F811
    paths = sorted(FRAMES.rglob("*.jpg"))[:40]
    frames = [read_image(path) for path in paths]
    write_clip(tmp_path / "drive.mp4", frames, Fraction(RATE))
    (overlay,) = predict(replace(config, opacity=0.2))
    duration, pictures = seen_in_a_browser(overlay, [(place + 0.5) / RATE for place in range(len(frames))])
    assert round(duration * RATE) == len(frames) == 40
    legend = with_all_classes(frames[0], CITYSCAPES)[frames[0].shape[0] :]
    for number, (picture, frame) in enumerate(zip(pictures, frames, strict=True)):
        height, width = frame.shape[:2]
        assert picture.shape == (height + len(legend), width, 3)
        assert mean_error(picture[height:], legend) < 6
        errors = [mean_error(picture[:height], other) for other in frames]
        assert int(np.argmin(errors)) == number, "a frame is not in its place"
