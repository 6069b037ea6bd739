import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.config import InferenceConfig, PredictConfig
from deeplabv3.data.images import read_image
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.prediction.clips import ClipWriter
from deeplabv3.prediction.pipeline import ROOM, overlapped
from deeplabv3.prediction.predictor import predict
from deeplabv3.prediction.sources import find_videos
from deeplabv3.prediction.video import with_all_classes
from deeplabv3.records import to_record

RATE = Fraction(12)


def mean_error(picture, expected):
    return np.abs(picture.astype(int) - expected).mean()


def write_clip(path, frames, rate=RATE):
    with ClipWriter(path, rate) as writer:
        for place, frame in enumerate(frames):
            writer.write(place, frame)
    return path


def decoded(path):
    """The frames, by PyAV's own way from yuv420p to RGB, and the rate."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        return [np.asarray(frame.to_image()) for frame in container.decode(stream)], stream.average_rate


@pytest.fixture
def scenes(streets):
    return [read_image(path) for path in sorted(streets.rglob("*_leftImg8bit.png"))]


@pytest.fixture
def config(tmp_path, tiny_config):
    torch.manual_seed(0)
    tensors = {f"model/{name}": value for name, value in DeepLabV3(tiny_config).state_dict().items()}
    record = {"model": to_record(tiny_config), "labels": CITYSCAPES.to_dict()}
    write_checkpoint(tmp_path / "net.safetensors", tensors, record)
    return PredictConfig(
        inputs=(str(tmp_path / "drive.mp4"),),
        model=tmp_path / "net.safetensors",
        out=tmp_path / "out",
        inference=InferenceConfig(device="cpu"),
    )


@pytest.fixture
def clip(tmp_path, scenes):
    pytest.importorskip("av")
    return write_clip(tmp_path / "drive.mp4", scenes)


def test_overlays_of_a_video_are_those_of_its_frames(config, clip, tmp_path):
    frames, _ = decoded(clip)
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number}.png")
    images = predict(replace(config, inputs=(str(tmp_path / "in"),), legend=False))
    assert predict(config) == [config.out / "drive_overlay.mp4"]

    overlays, rate = decoded(config.out / "drive_overlay.mp4")
    assert len(overlays) == len(frames) == len(images) == 9
    assert rate == RATE
    for picture, path in zip(overlays, images, strict=True):
        expected = with_all_classes(read_image(path), CITYSCAPES)
        expected = np.pad(expected, [(0, side % 2) for side in expected.shape[:2]] + [(0, 0)], constant_values=250)
        assert picture.shape == expected.shape
        assert mean_error(picture[:64, :96], expected[:64, :96]) < 6
        assert mean_error(picture[64:], expected[64:]) < 3


def test_odd_frames_get_a_line_of_background(tmp_path, scenes):
    pytest.importorskip("av")
    frames, _ = decoded(write_clip(tmp_path / "odd.mp4", [scenes[0][:63, :95]] * 2))
    assert frames[0].shape == (64, 96, 3)
    assert mean_error(frames[0][63], 250) < 12
    assert mean_error(frames[0][:, 95], 250) < 12


def test_damaged_video_is_written_as_far_as_it_goes(config, scenes, tmp_path):
    av = pytest.importorskip("av")
    whole = tmp_path / "whole.mp4"
    with av.open(str(whole), "w", options={"movflags": "faststart"}) as container:  # its index is at the front
        stream = container.add_stream("mjpeg", rate=12)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
        for scene in scenes:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "drive.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(DatasetError, match=r"drive.mp4 is damaged: it ends after [4-7] frames .*drive_overlay.mp4"):
        predict(config)
    assert 4 <= len(decoded(config.out / "drive_overlay.mp4")[0]) <= 7


@pytest.mark.parametrize("codec", ["mjpeg", "libx264"])
def test_matroska_that_was_cut_is_damaged(config, scenes, tmp_path, codec):
    """It announces no number of frames, but where it ends."""
    av = pytest.importorskip("av")
    whole = tmp_path / "drive.mkv"
    with av.open(str(whole), "w") as container:
        stream = container.add_stream(codec, rate=12)
        stream.height, stream.width = 64, 96
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for scene in scenes * 3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(scene, format="rgb24")))
        container.mux(stream.encode())
    config = replace(config, inputs=(str(whole),))
    (written,) = predict(config)
    assert len(decoded(written)[0]) == 27
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    with pytest.raises(DatasetError, match=r"is damaged: it ends after 1\d frames \(2.2 seconds are announced\)"):
        predict(replace(config, overwrite=True))


def test_trimmed_video_is_not_damaged(config, clip):
    """Its first frames are there and are not to be shown, as in what a phone or `ffmpeg -c copy` cuts."""
    av = pytest.importorskip("av")
    whole = clip.rename(clip.with_name("whole.mp4"))
    with av.open(str(whole)) as source, av.open(str(clip), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                shift = round(3 / RATE / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                target.mux(packet)
    with av.open(str(clip)) as trimmed:
        assert trimmed.streams.video[0].frames == 9
    (written,) = predict(config)
    assert len(decoded(written)[0]) == 6


def test_time_of_day_is_no_protocol(config, clip, monkeypatch):
    monkeypatch.chdir(clip.parent)
    clip.rename("2024-05-01T12:30:00.mp4")
    (written,) = predict(replace(config, inputs=("2024-05-01T12:30:00.mp4",)))
    assert len(decoded(written)[0]) == 9


def test_frames_that_cannot_be_encoded_are_told(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(OutputError, match="wide.mp4 cannot be written: H.264 cannot be made of frames of 16x17000"):
        write_clip(tmp_path / "wide.mp4", [np.zeros((16, 17000, 3), np.uint8)])
    assert not list(tmp_path.iterdir())


def test_results_are_no_inputs(config, clip):
    """A pattern in the folder of the results takes in none of them; one that is typed is meant."""
    here = replace(config, inputs=(str(clip.parent / "*.mp4"),), out=clip.parent)
    (written,) = predict(here)
    assert predict(replace(here, resume=True)) == [written]
    assert find_videos([str(written)], (clip.parent, "_overlay.mp4")) == ([written], [])


def test_file_that_is_no_video_costs_the_others_nothing(config, scenes, clip, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])  # its index is at the end
    write_clip(tmp_path / "short.mp4", scenes[:2])
    inputs = (str(tmp_path / "cut.mp4"), str(tmp_path / "short.mp4"))
    with pytest.raises(DatasetError, match=r"cut.mp4 is no video that can be read .*\(1 of 2 files cannot be used"):
        predict(replace(config, inputs=inputs))
    assert [path.name for path in config.out.iterdir()] == ["short_overlay.mp4"]


def test_colours_are_those_that_players_assume(tmp_path):
    """Of a frame that says nothing of its colours, they guess by its size."""
    av = pytest.importorskip("av")
    picture = np.full((720, 1280, 3), (220, 20, 60), np.uint8)
    with av.open(str(write_clip(tmp_path / "c.mp4", [picture]))) as container:
        frame = next(container.decode(video=0))
        assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)  # BT.709, of 16 to 235
        seen = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert mean_error(seen, picture) < 3


def test_videos_that_a_model_does_not_take_are_named(config, clip, scenes, tmp_path, monkeypatch):
    def refuse(*_):
        raise DatasetError("an image of 16x16 pixels is too small")

    monkeypatch.setattr("deeplabv3.prediction.predictor.predict_image", refuse)
    other = write_clip(tmp_path / "other.mp4", scenes[:1])
    with pytest.raises(
        DatasetError,
        match=r"/drive.mp4 cannot be segmented: .* small \(2 of 2 files cannot be used\)\n  .*other.mp4 cannot",
    ):
        predict(replace(config, inputs=(str(clip), str(other))))


def test_video_is_not_overwritten_but_gone_on_with(config, clip):
    (written,) = predict(config)
    before = written.stat().st_mtime_ns
    with pytest.raises(OutputError, match="drive_overlay.mp4 is there already"):
        predict(config)
    predict(replace(config, resume=True))
    assert written.stat().st_mtime_ns == before


def test_interrupted_video_leaves_nothing(config, clip, monkeypatch):
    seen = []

    def interrupted(_, image, __):
        seen.append(image)
        if len(seen) == ROOM + 3:  # what is full behind the network has let one through
            assert list(config.out.glob(".*.partial"))
            raise KeyboardInterrupt
        return image[..., 0]

    monkeypatch.setattr("deeplabv3.prediction.predictor.predict_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(replace(config, opacity=0))
    assert not any(config.out.iterdir())


def test_missing_extra_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "drive.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"pip install 'deeplabv3\[video\]'"):
        predict(config)


def test_too_large_frames_are_refused(config, clip):
    with pytest.raises(DatasetError, match="frames of 64x96 pixels; at most 6,000 are read"):
        predict(replace(config, max_pixels=6000))


def test_video_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="no video is found for .*none.mp4"):
        find_videos([str(tmp_path / "none.mp4")])


def test_pipeline_keeps_order_and_bounds_what_waits():
    started: list[int] = []
    written: list[int] = []
    most: list[int] = []

    def source():
        for number in range(50):
            started.append(number)
            yield number

    def sink(number):
        most.append(len(started) - len(written))
        written.append(number)

    overlapped(source(), lambda number: number, sink)
    assert written == list(range(50))
    assert max(most) <= 2 * ROOM + 3


@pytest.mark.parametrize("place", ["source", "work", "sink"])
def test_error_anywhere_ends_the_pipeline(place):
    def fail(where, number):
        if where == place and number == 3:
            raise OSError(place)
        return number

    threads = threading.active_count()
    written: list[int] = []
    with pytest.raises(OSError, match=place):
        overlapped(
            (fail("source", number) for number in range(1000)),
            lambda number: fail("work", number),
            lambda number: written.append(fail("sink", number)),
        )
    assert written == [0, 1, 2][: len(written)]
    assert place != "source" or len(written) == 3
    assert threading.active_count() == threads


def test_source_that_waits_for_more_is_released_by_an_error():
    more, threads = threading.Event(), threading.active_count()

    def source():
        yield 0
        more.wait(60)

    def fail(_):
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        overlapped(source(), lambda number: number, fail, more.set)
    assert threading.active_count() == threads


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(config, tmp_path):
    """Frames of 1.5 MB: a tenth of the longer video's more would be seen."""
    pytest.importorskip("av")
    peaks = []
    for length in (100, 400):
        frame = np.zeros((512, 1024, 3), np.uint8)
        clip = write_clip(tmp_path / f"{length}.mp4", (frame + place % 200 for place in range(length)))
        run = (
            "import resource, sys; from deeplabv3.cli import main; main(sys.argv[1:]); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        words = ["predict", str(clip), "--model", str(config.model), "--out", str(tmp_path / "out"), "--device", "cpu"]
        done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    print(f"{peaks[0]:.0f} MiB for 100 frames, {peaks[1]:.0f} MiB for 400")
    assert peaks[1] - peaks[0] < 0.1 * 300 * 1.5
