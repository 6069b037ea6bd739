import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.config import InferenceConfig, PredictConfig
from deeplabv3.data.labels import CITYSCAPES, IGNORE_INDEX
from deeplabv3.errors import DatasetError, InputError, OutputError
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.prediction import predictor
from deeplabv3.prediction.predictor import predict, predict_image
from deeplabv3.prediction.render import class_shares, colorize, overlay, with_entries, with_legend
from deeplabv3.prediction.sources import find_images, result_stems
from deeplabv3.records import to_record


def stored(path):
    with Image.open(path) as image:
        return image.mode, np.asarray(image)


@pytest.fixture
def folder(tmp_path, rng):
    """Images of several sizes and formats in a tree."""
    for name, size in {"b.png": (20, 30), "a.jpg": (33, 17), "deep/c_leftImg8bit.png": (1, 1)}.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "notes.txt").touch()
    return tmp_path / "in"


@pytest.fixture
def config(tmp_path, folder, tiny_config):
    torch.manual_seed(0)
    tensors = {f"model/{name}": value for name, value in DeepLabV3(tiny_config).state_dict().items()}
    record = {"model": to_record(tiny_config), "labels": CITYSCAPES.to_dict()}
    write_checkpoint(tmp_path / "net.safetensors", tensors, record)
    return PredictConfig(
        inputs=(str(folder),),
        model=tmp_path / "net.safetensors",
        out=tmp_path / "out",
        inference=InferenceConfig(device="cpu"),
    )


def test_files_folders_and_patterns_are_found_once(folder):
    found = find_images([str(folder / "b.png"), str(folder), str(folder / "*.jpg")])
    assert [path.name for path in found] == ["b.png", "a.jpg", "c_leftImg8bit.png"]
    assert [path.name for path in find_images([str(folder / "**" / "*.png")])] == ["b.png", "c_leftImg8bit.png"]


def test_photos_of_a_data_set_are_found_and_not_its_labels(streets):
    found = find_images([str(streets)])
    assert len(found) == 9
    assert all(path.name.endswith("_leftImg8bit.png") for path in found)


def test_folder_of_videos_alone_says_how_they_are_meant(tmp_path):
    (tmp_path / "a.mov").touch()
    with pytest.raises(InputError, match=f"no image is found for .*, or '{tmp_path}/\\*.mov' for its videos$"):
        find_images([str(tmp_path)])


def test_names_in_any_letters_of_europe_are_drawn():
    """As boxes, all letters would look alike."""
    picture = np.zeros((40, 400, 3), np.uint8)
    drawn = [with_entries(picture, [((0, 0, 0), text)]) for text in ("\u00df\u00f6", "\u00f6\u00df", "\u0159\u017e")]
    assert all((one != other).any() for one, other in pairwise(drawn))


def test_folder_that_may_not_be_read_is_told(folder, monkeypatch):
    def walk(top, onerror, **_):
        onerror(PermissionError(13, "Permission denied", f"{top}/closed"))

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(InputError, match="closed cannot be looked into: Permission denied; give yourself the right"):
        find_images([str(folder)])


def test_links_are_followed_and_hidden_folders_left_out(folder, tmp_path):
    for place in ("else", "in/.hidden"):
        (tmp_path / place).mkdir()
        shutil.copy(folder / "b.png", tmp_path / place / "d.png")
    (folder / "link").symlink_to(tmp_path / "else")
    (tmp_path / "else" / "round").symlink_to(folder)
    wanted = ["a.jpg", "b.png", "deep/c_leftImg8bit.png", "link/d.png"]
    assert [path.relative_to(folder).as_posix() for path in find_images([str(folder)])] == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "there is no file or folder '{}/nothing'; give"),
        ("nothing/*.png", "no image is found for '{}/nothing/*.png'; give"),
        ("", "no image is found for '{}/'; give"),
    ],
)
def test_input_that_names_nothing(tmp_path, text, message):
    with pytest.raises(InputError, match=re.escape(message.format(tmp_path))):
        find_images([f"{tmp_path}/{text}"])


def test_results_are_named_after_their_image(tmp_path):
    paths = [tmp_path / name for name in ("a/x.png", "b/x.png", "b/y_leftImg8bit.png")]
    assert result_stems(paths) == ["a_x", "b_x", "y"]
    with pytest.raises(InputError, match="would both be written as a_x.png"):
        result_stems([tmp_path / "a/x.png", tmp_path / "a/x.jpg"])


def test_every_frame_keeps_its_size(config):
    predict(config)
    for name, size in {"b": (20, 30), "a": (33, 17), "c": (1, 1)}.items():
        for kind in ("labelIds", "color"):
            assert stored(config.out / kind / f"{name}.png")[1].shape[:2] == size


def test_overlay_without_legend_has_the_frames_size(config):
    predict(replace(config, legend=False))
    assert stored(config.out / "overlay" / "a.png")[1].shape == (33, 17, 3)


def test_label_ids_and_colours_agree(config, folder):
    predict(config)
    mode, ids = stored(config.out / "labelIds" / "b.png")
    _, color = stored(config.out / "color" / "b.png")
    assert mode == "L"
    palette = {row.id: row.color for row in CITYSCAPES.evaluated}
    np.testing.assert_array_equal(color, [[palette[value] for value in row] for row in ids.tolist()])


def test_half_done_folder_is_gone_on_with(config):
    predict(config)
    kept, lost = config.out / "overlay" / "a.png", config.out / "color" / "b.png"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert len(predict(replace(config, resume=True))) == 3
    assert lost.is_file()
    assert kept.stat().st_mtime_ns == before
    with pytest.raises(InputError, match="--overwrite and --resume exclude each other"):
        replace(config, resume=True, overwrite=True)


def test_nothing_is_overwritten_unasked(config):
    predict(config)
    with pytest.raises(OutputError, match="is there already; add --overwrite"):
        predict(config)
    predict(replace(config, overwrite=True))


def test_inputs_are_not_replaced(config, folder):
    """Results of `in/color/b.png` under `in` would lie where it lies itself."""
    photo = folder / "color" / "b.png"
    photo.parent.mkdir()
    content = shutil.copy(folder / "b.png", photo).read_bytes()
    asked = replace(config, inputs=(str(photo),), out=photo.parent / ".." / ".." / "in")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="color/b.png is to be predicted, and would be replaced; choose another"):
            predict(replace(asked, overwrite=overwrite))
    assert photo.read_bytes() == content


def test_name_may_be_as_long_as_a_file_system_takes(config, folder):
    longest = folder / f"{251 * 'n'}.png"
    shutil.copy(folder / "b.png", longest)
    assert [path.name for path in predict(replace(config, inputs=(str(longest),)))] == [longest.name]
    (folder / "deep" / longest.name).touch()
    with pytest.raises(InputError, match="would have a name of 258 bytes, and a file takes 255 at most; rename it"):
        predict(replace(config, inputs=(str(longest), str(folder / "deep" / longest.name))))


def test_broken_image_is_named_and_the_others_are_written(config, folder):
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"b.png .*\(1 of 3 files cannot be used; the others are written\)"):
        predict(config)
    assert {path.stem for path in (config.out / "labelIds").iterdir()} == {"a", "c"}


def test_image_that_a_model_does_not_take_is_named_and_the_others_are_written(config, monkeypatch):
    """As an exported file with a least side."""
    real = predictor.predict_image

    def needs_two_pixels(model, image, inference):
        if image.shape[0] < 2:
            raise DatasetError("an image of 1x1 pixels is too small")
        return real(model, image, inference)

    monkeypatch.setattr(predictor, "predict_image", needs_two_pixels)
    with pytest.raises(
        DatasetError, match=r"c_leftImg8bit.png cannot be segmented: .* too small \(1 of 3 files cannot"
    ):
        predict(config)
    assert {path.stem for path in (config.out / "labelIds").iterdir()} == {"a", "b"}


def test_image_above_the_cap_is_named_with_the_flag(config, folder):
    Image.new("L", (400, 300)).save(folder / "b.png")
    with pytest.raises(
        DatasetError, match=r"b.png .* 120,000 pixels .* at most 119,999 .*raise --max-pixels \(1 of 3 files"
    ):
        predict(replace(config, max_pixels=119_999))
    assert len(predict(replace(config, max_pixels=120_000, overwrite=True))) == 3


@pytest.mark.parametrize("value", [0, -1, 178_956_971])
def test_cap_that_is_none_is_refused(config, value):
    with pytest.raises(InputError, match=f"max_pixels is {value}; give 1 to 178956970"):
        replace(config, max_pixels=value)


def test_results_are_no_inputs(config, folder):
    config = replace(config, out=folder, overwrite=True)
    for inputs in ((str(folder),), (str(folder),), (str(folder / "**" / "*.*g"),)):
        assert len(predict(replace(config, inputs=inputs))) == 3


def test_one_file_by_two_paths_is_one_input(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert len(find_images(["b.png", str(folder / "b.png")])) == 1


def test_prediction_is_the_most_likely_class(tiny_config, rng):
    torch.manual_seed(0)
    model = DeepLabV3(tiny_config).eval()
    image = rng.integers(0, 256, (19, 23, 3), dtype=np.uint8)
    with torch.inference_mode():
        logits = model(torch.from_numpy(image).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(predict_image(model, image), logits[0].argmax(0).numpy())


def test_colours_are_the_official_palette():
    prediction = np.array([[0, 18, IGNORE_INDEX]], np.uint8)
    assert colorize(prediction, CITYSCAPES).tolist() == [[[128, 64, 128], [119, 11, 32], [0, 0, 0]]]


@pytest.mark.parametrize(("opacity", "expected"), [(0.0, 100), (0.5, 150), (1.0, 200)])
def test_opacity(opacity, expected):
    image, color = np.full((2, 2, 3), 100, np.uint8), np.full((2, 2, 3), 200, np.uint8)
    assert (overlay(image, color, opacity) == expected).all()


def test_legend_leaves_the_picture_alone(rng):
    picture = rng.integers(0, 256, (40, 300, 3), dtype=np.uint8)
    prediction = rng.integers(0, 19, (40, 300), dtype=np.uint8)
    page = with_legend(picture, prediction, CITYSCAPES)
    np.testing.assert_array_equal(page[:40, :300], picture)
    for train_id in range(19):
        assert (page[40:] == CITYSCAPES.palette[train_id]).all(-1).any()


def test_shares_add_up_and_leave_out_ignored_pixels():
    shares = class_shares(np.array([3, 3, 3, 1, IGNORE_INDEX], np.uint8), CITYSCAPES)
    assert shares == {3: 0.75, 1: 0.25}
    assert list(shares) == [3, 1]
