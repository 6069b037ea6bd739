"""Videos from standard input and from cameras, read by real processes."""

import fcntl
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.prediction import clips
from deeplabv3.prediction.clips import ClipWriter, Live, open_clip
from deeplabv3.prediction.predictor import predict
from deeplabv3.prediction.sources import find_videos
from deeplabv3.prediction.video import signals_to
from tests.prediction.test_video import clip, config, decoded, mean_error, scenes, write_clip  # noqa: F401  # fixtures

av = pytest.importorskip("av")

CAMERA = """
import sys
from deeplabv3.cli import main
from deeplabv3.prediction import clips
clips._address = lambda camera: (f"testsrc=size=96x64:rate=10,realtime,setpts=PTS*{camera}", "lavfi")
sys.exit(main(sys.argv[1:]))
"""
"""The command with a camera that sends a test picture ten times a second, seen through FFmpeg like a real one."""


def words(config, source, *more):  # noqa: F811
    options = ["--model", str(config.model), "--out", str(config.out), "--device", "cpu", "--legend", "false"]
    return ["predict", source, *options, *more]


@pytest.fixture
def predict_stream(config, tmp_path, monkeypatch):  # noqa: F811
    """A function that predicts bytes that come on standard input."""

    def run(content, **changes):
        (tmp_path / "content").write_bytes(content)
        with (tmp_path / "content").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            return predict(replace(config, inputs=("-",), legend=False, opacity=0, **changes))

    return run


def images(pictures, kind):
    stream = io.BytesIO()
    for picture in pictures:
        Image.fromarray(picture).save(stream, kind, quality=95)
    return stream.getvalue()


def remuxed(path, kind):
    stream = io.BytesIO()
    with av.open(str(path)) as source, av.open(stream, "w", format=kind) as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM", "BMP", "WebP", "mpegts", "matroska"])
def test_stream_on_standard_input_is_a_video(predict_stream, scenes, clip, kind):  # noqa: F811
    is_video = kind in ("mpegts", "matroska")
    (overlay,) = predict_stream(remuxed(clip, kind) if is_video else images(scenes, kind))
    assert overlay.name == "stdin_overlay.mp4"
    frames, rate = decoded(overlay)
    assert len(frames) == 9
    assert float(rate) == pytest.approx(12 if is_video else 25, rel=0.01)  # Matroska counts in milliseconds
    for frame, scene in zip(frames, scenes, strict=True):
        assert mean_error(frame, scene) < 8


@pytest.mark.parametrize("content", [b"", b"no picture" * 1000])
def test_what_is_no_stream_is_refused(predict_stream, content, tmp_path):
    with pytest.raises(DatasetError, match="standard input holds no video that can be read .* send PNG, JPEG or PPM"):
        predict_stream(content)
    assert not (tmp_path / "out").exists()


def test_recording_is_not_gone_on_with(predict_stream, scenes):  # noqa: F811
    (recording,) = predict_stream(images(scenes[:3], "PNG"))
    before = recording.read_bytes()
    with pytest.raises(OutputError, match="stdin_overlay.mp4 is there already; add --overwrite"):
        predict_stream(images(scenes, "PNG"), resume=True)
    assert recording.read_bytes() == before


def test_file_that_cannot_be_read_from_front_to_back_is_refused(predict_stream, rng, tmp_path):
    with ClipWriter(tmp_path / "noise.mp4", Fraction(10)) as writer:
        for place in range(20):
            writer.write(place, rng.integers(0, 256, (128, 256, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match="stdin holds no frame that can be read .* send PNG, JPEG or PPM"):
        predict_stream((tmp_path / "noise.mp4").read_bytes())
    assert not (tmp_path / "out").exists()


def test_stop_within_a_stream_is_no_damage(scenes, tmp_path, monkeypatch):  # noqa: F811
    """Though Matroska says how long it would have been."""
    write_clip(tmp_path / "long.mp4", scenes * 30)
    with av.open(str(tmp_path / "long.mp4")) as source, av.open(str(tmp_path / "long.mkv"), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    stopped = threading.Event()
    with (tmp_path / "long.mkv").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        with open_clip(Live("stdin"), 2**20, stopped) as clip:
            for place, _ in clip.frames():
                if place == 5:
                    stopped.set()
            assert 5 < clip.num_read
            assert clip.damage is None


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_images_before_a_damaged_one_are_kept(predict_stream, config, scenes, kind):  # noqa: F811
    whole, damaged = images(scenes[:3], kind), bytearray(images(scenes[3:4], kind))
    damaged[len(damaged) // 2 :] = bytes(9)
    if kind == "BMP":  # has no checksums; its size is what an image is known by
        damaged = bytearray(images([scenes[3][:60]], kind))
    with pytest.raises(DatasetError, match="stdin is damaged: it ends after 3 frames"):
        predict_stream(whole + damaged + images(scenes[4:], kind))
    assert len(decoded(config.out / "stdin_overlay.mp4")[0]) == 3


def test_stream_that_breaks_is_kept_as_far_as_it_goes(predict_stream, config, scenes):  # noqa: F811
    message = r"stdin is damaged: it ends after 5 frames \(the next one has another size\)"
    with pytest.raises(DatasetError, match=message):
        predict_stream(images([*scenes[:5], scenes[5][:60]], "PNG"))
    assert len(decoded(config.out / "stdin_overlay.mp4")[0]) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stop_ends_a_stream_that_is_silent_and_keeps_it(config, scenes, number):  # noqa: F811
    command = [sys.executable, "-m", "deeplabv3", *words(config, "-")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(images(scenes, "PNG"))
        process.stdin.flush()
        wait_until(lambda: num_waiting(process.stdin) == 0)
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert len(decoded(config.out / "stdin_overlay.mp4")[0]) == 9


def num_playable(path):
    """Frames up to the first that cannot be read."""
    number = 0
    with suppress(av.FFmpegError), av.open(str(path)) as container:
        for _ in container.decode(video=0):
            number += 1
    return number


def test_killed_recording_can_be_played(config, scenes):  # noqa: F811
    recording = config.out / "stdin_overlay.mp4"
    command = [sys.executable, "-m", "deeplabv3", *words(config, "-", "--opacity", "0")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(images(scenes * 30, "PNG"))
        process.stdin.flush()
        wait_until(lambda: num_playable(recording) >= 75)
        process.kill()
    frames, _ = decoded(recording)
    assert 75 <= len(frames) <= 9 * 30
    for frame, scene in zip(frames, scenes * 30, strict=False):
        assert mean_error(frame, scene) < 8
    assert list(config.out.iterdir()) == [recording]
    again = subprocess.run(command, input=images(scenes, "PNG"), capture_output=True, check=False)
    assert (again.returncode, num_playable(recording)) == (2, len(frames))
    assert b"stdin_overlay.mp4 is there already" in again.stderr


def test_recording_is_kept_where_the_disk_is_full(config, rng):  # noqa: F811
    pictures = [rng.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(100)]
    command = ["bash", "-c", f"ulimit -f 150; exec {sys.executable} -m deeplabv3 {shlex.join(words(config, '-'))}"]
    done = subprocess.run(command, input=images(pictures, "PNG"), capture_output=True, check=False)
    assert done.returncode == 2
    assert re.search(
        r"/stdin_overlay.mp4 cannot be written: File too large; .*; what was written until then is kept",
        done.stderr.decode(),
    )
    assert num_playable(config.out / "stdin_overlay.mp4") >= 25


def num_waiting(pipe):
    """Bytes that nobody has read yet."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_camera_is_recorded_until_it_is_stopped(config):  # noqa: F811
    command = [sys.executable, "-c", CAMERA, *words(config, "1")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_until(lambda: any(config.out.glob("*.mp4")))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    frames, _ = decoded(config.out / "camera1_overlay.mp4")
    assert len(frames) >= 2


EVERY_SECOND = r"testsrc=size=96x64:rate=10:duration=1,select=not(mod(n\,2))"


def test_frames_that_a_camera_left_out_leave_time(monkeypatch):
    """Every second one comes: the places between stay free."""
    monkeypatch.setattr(clips, "_address", lambda _: (EVERY_SECOND, "lavfi"))
    with open_clip(Live("camera0", 0), 10**6) as source:
        assert [place for place, _ in source.frames()] == [0, 2, 4, 6, 8]
        assert source.damage is None


def test_places_of_a_camera_are_times_of_the_video(tmp_path):
    with ClipWriter(tmp_path / "a.mp4", Fraction(10)) as writer:
        for place in (0, 2, 3, 7):
            writer.write(place, np.zeros((64, 96, 3), np.uint8))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert [float(frame.time) for frame in container.decode(video=0)] == pytest.approx([0, 0.2, 0.3, 0.7])


def test_camera_that_is_not_there_is_told(monkeypatch):
    with pytest.raises(DatasetError, match=r"camera987 cannot be used \(/dev/video987: No such file or directory\)"):
        with open_clip(Live("camera987", 987), 10**6):
            pass
    monkeypatch.setattr(clips, "_address", lambda _: ("0", "none"))
    with pytest.raises(InputError, match="this PyAV reads no cameras"):
        with open_clip(Live("camera0", 0), 10**6):
            pass


def test_what_is_typed_is_live_or_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert find_videos(["-", "0", "07", "-", "a.png", "1x"]) == (
        [Live("stdin"), Live("camera0", 0), Live("camera7", 7)],
        ["a.png", "1x"],
    )
    (tmp_path / "0").mkdir()
    assert find_videos(["0"]) == ([], ["0"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(InputError, match="nothing is sent to standard input; send images or a video, as in"):
        find_videos(["-"])


@contextmanager
def handled(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append("before"))
    try:
        yield seen
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_signal_does_what_it_did_before(number):
    with handled(number) as seen:
        with signals_to(lambda: seen.append("stop")):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
    assert seen == ["stop", "before", "before"]


def test_signals_stay_where_they_are_in_other_threads():
    seen = []

    def block():
        with signals_to(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
