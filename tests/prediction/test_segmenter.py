"""The model in Python: load, predict, keep."""

import io
import json
import logging
from importlib import import_module

import numpy as np
import pytest
import torch
from PIL import Image

import deeplabv3
from deeplabv3.config import InferenceConfig, ModelConfig
from deeplabv3.data.images import read_label_values
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.model import hub
from deeplabv3.model.checkpoint import load_weights, read_checkpoint
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.prediction.segmenter import DeepLabV3, load


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return DeepLabV3(tiny_config, CITYSCAPES)


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)


def test_saved_model_is_loaded_by_its_path(model, image, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors", device="cpu")
    np.testing.assert_array_equal(loaded.predict(image).train_ids, model.predict(image).train_ids)
    assert loaded.label_set == CITYSCAPES
    assert isinstance(loaded, deeplabv3.DeepLabV3)


def test_another_stride_has_its_effect(model, image, tmp_path):
    model.save(tmp_path / "m.safetensors")
    finer = DeepLabV3.from_pretrained(tmp_path / "m.safetensors", output_stride=8)
    assert (finer.predict(image).train_ids != model.predict(image).train_ids).any()


def test_prediction_is_that_of_predict_image(model, image):
    prediction = model.predict(image, inference=InferenceConfig(flip=True))
    np.testing.assert_array_equal(prediction.train_ids, predict_image(model, image, InferenceConfig(flip=True)))
    assert prediction.probabilities is None
    assert sum(prediction.shares.values()) == pytest.approx(1)


def test_prediction_keeps_its_image(model, image):
    """A camera's buffer holds the next one by then."""
    before, buffer = image.copy(), image.copy()
    prediction = model.predict(buffer)
    buffer[:] = 0
    np.testing.assert_array_equal(prediction.image, before)
    assert prediction == prediction
    assert prediction != model.predict(before)


def test_probabilities_on_request(model, image):
    prediction = model.predict(image, probabilities=True)
    assert prediction.probabilities.shape == (19, 40, 56)
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(prediction.probabilities.argmax(0), prediction.train_ids)


def test_probabilities_are_of_the_precision_and_the_pass_of_the_label(model, image):
    half, whole = (
        model.predict(image, inference=InferenceConfig(precision=precision), probabilities=True).probabilities
        for precision in ("bfloat16", "float32")
    )
    assert 0 < np.abs(half - whole).max() < 0.1
    looks = []
    features = model.backbone.features

    def counted(pixels):
        looks.append(pixels)
        return features(pixels)

    model.backbone.features = counted
    for inference, num_looks in ((InferenceConfig(), 1), (InferenceConfig(flip=True), 2)):
        looks.clear()
        prediction = model.predict(image, inference=inference, probabilities=True)
        assert len(looks) == num_looks
        np.testing.assert_array_equal(prediction.train_ids, model.predict(image, inference=inference).train_ids)
        np.testing.assert_array_equal(prediction.train_ids, prediction.probabilities.argmax(0))


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        (
            InferenceConfig(output_stride=8),
            r"output_stride is 8 and the network runs at 16; call set_output_stride\(8\)",
        ),
        (InferenceConfig(device="mps"), "device is 'mps'; this machine has cpu"),
    ],
)
def test_what_the_network_is_not_ready_for_is_refused(model, image, inference, message):
    with pytest.raises(InputError, match=message):
        model.predict(image, inference=inference)
    model.predict(image, inference=InferenceConfig(output_stride=16, device="cpu"))


def test_loading_leaves_random_numbers_as_they_were(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    before = torch.get_rng_state()
    assert type(load(tmp_path / "m.safetensors", device="cpu")) is DeepLabV3
    assert torch.equal(torch.get_rng_state(), before)


def test_image_of_pillows_that_cannot_be_used(model, image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    for broken in (Image.open(io.BytesIO(file.getvalue()[:-2000])), Image.new("RGB", (0, 4)), Image.new("F", (4, 4))):
        with pytest.raises(InputError, match="^the image (cannot be read|is not a sound image|has mode|: )"):
            model.predict(broken)


def test_image_may_be_a_path_or_an_image(model, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "i.png")
    expected = model.predict(image).train_ids
    for given in (tmp_path / "i.png", str(tmp_path / "i.png"), Image.fromarray(image)):
        np.testing.assert_array_equal(model.predict(given).train_ids, expected)


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_other_arrays_are_refused(model, wrong):
    with pytest.raises(InputError, match=r"was given; uint8 \(H, W, 3\) is needed"):
        model.predict(wrong)


def test_prediction_can_be_shown_and_kept(model, image, tmp_path):
    prediction = model.predict(image)
    np.testing.assert_array_equal(prediction.overlay(0), image)
    np.testing.assert_array_equal(prediction.overlay(1), prediction.color())
    assert prediction.overlay(legend=True).shape[0] > 40
    label_ids, _, _ = prediction.save(tmp_path, "street")
    np.testing.assert_array_equal(read_label_values(label_ids), prediction.label_ids)
    with pytest.raises(InputError, match="opacity is 2"):
        prediction.overlay(2)


def test_label_set_must_fit():
    with pytest.raises(InputError, match="the label set has 19 classes and the network 3"):
        DeepLabV3(ModelConfig(backbone="resnet18", width=16, num_classes=3), CITYSCAPES)


SCORES = {
    "classScores": {"road": 0.9, "train": None},
    "averageScoreClasses": 0.9,
    "perImageScores": {"a": {}, "b": {}},
}


def test_repository_holds_a_checkpoint_and_a_card(model, tmp_path):
    model.save_pretrained(tmp_path / "r", scores=json.loads(json.dumps(SCORES)), licence="apache-2.0")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["README.md", "model.safetensors"]
    card = (tmp_path / "r" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: deeplabv3\n")
    assert "license: apache-2.0" in card
    assert "| road | 90.00 |" in card
    assert "train |" not in card
    assert "over 2 frames" in card
    load_weights(model, read_checkpoint(tmp_path / "r" / "model.safetensors"))


class FakeHub:
    """What is used of huggingface_hub, on a folder."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, repository, *, private, exist_ok):
        assert (private, exist_ok) == (True, True)
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        target = self.root / repo_id
        target.mkdir(parents=True)
        for path in folder_path.iterdir():
            (target / path.name).write_bytes(path.read_bytes())

    def hf_hub_download(self, repository, name):
        path = self.root / repository / name
        if not path.exists():
            raise OSError("404\nnot found")
        return str(path)


def test_pushed_model_comes_back(model, image, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_library", lambda: FakeHub(tmp_path))
    assert model.push_to_hub("me/streets", private=True) == "https://hub/me/streets"
    assert 'deeplabv3.load("me/streets")' in (tmp_path / "me" / "streets" / "README.md").read_text()
    again = DeepLabV3.from_pretrained("me/streets")
    np.testing.assert_array_equal(again.predict(image).train_ids, model.predict(image).train_ids)
    with pytest.raises(
        CheckpointError,
        match="there is no file me/nothing, and model.safetensors of me/nothing cannot be had from the Hub .404",
    ):
        load("me/nothing")
    with pytest.raises(InputError, match="repository is 'streets'; give OWNER/NAME"):
        model.push_to_hub("streets")


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(hub, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    message = r"there is no file me/streets, and the Hugging Face Hub needs an extra: pip install 'deeplabv3\[hub\]'"
    with pytest.raises(InputError, match=message):
        hub.fetch("me/streets")


def test_retries_of_the_hub_are_not_shown():
    pytest.importorskip("huggingface_hub")
    hub._library()
    # The library sets its loggers up when the first of them is asked for.
    theirs = import_module("huggingface_hub.utils.logging").get_logger("huggingface_hub.utils._http")
    assert not theirs.isEnabledFor(logging.WARNING)
