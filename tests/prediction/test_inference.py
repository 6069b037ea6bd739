"""Scales, mirror images and sliding windows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deeplabv3.config import InferenceConfig
from deeplabv3.errors import InputError
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.model.device import place
from deeplabv3.prediction.predictor import mean_probabilities, predict_batch, predict_image, tile_starts


@pytest.fixture
def model(tiny_config):
    torch.manual_seed(0)
    return DeepLabV3(tiny_config).eval()


@pytest.fixture
def image(rng):
    return torch.from_numpy(rng.integers(0, 256, (2, 3, 50, 70), dtype=np.uint8))


@torch.no_grad()
def softmax_of(model, image):
    return model(image).softmax(1)


def test_whole_frame_is_the_argmax_of_the_logits(model, image):
    with torch.no_grad():
        expected = model(image).argmax(1)
    assert torch.equal(predict_batch(model, image), expected.to(torch.uint8))


def test_whole_frame_is_the_argmax_of_a_placed_model_to_the_bit(tiny_config):
    """Channels-last weights make channels-last logits, for which interpolation has another kernel."""
    torch.manual_seed(1)
    model = place(DeepLabV3(tiny_config).eval(), torch.device("cpu"))
    model.classifier.weight.data.mul_(1e-6)  # classes so close to each other that the last bit decides
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 512, 768), dtype=np.uint8))
    with torch.no_grad():
        assert torch.equal(predict_batch(model, image), model(image).argmax(1).to(torch.uint8))


def test_flip_averages_with_the_mirror_image(model, image):
    expected = (softmax_of(model, image) + softmax_of(model, image.flip(-1)).flip(-1)) / 2
    with torch.no_grad():
        torch.testing.assert_close(mean_probabilities(model, image, InferenceConfig(flip=True)), expected)


def test_scales_average_probabilities_at_the_size_of_the_frame(model, image):
    larger = F.interpolate(image.float(), (75, 105), mode="bilinear", antialias=True)
    with torch.no_grad():
        logits = F.interpolate(model.grid_logits(larger), (50, 70), mode="bilinear")
        mean = mean_probabilities(model, image, InferenceConfig(scales=(1.0, 1.5)))
    torch.testing.assert_close(mean, (softmax_of(model, image) + logits.softmax(1)) / 2)


def test_probabilities_sum_to_1(model, image):
    with torch.no_grad():
        mean = mean_probabilities(model, image, InferenceConfig(scales="paper", flip=True))
    torch.testing.assert_close(mean.sum(1), torch.ones(2, 50, 70))


def test_scales_of_the_paper_have_a_name():
    assert InferenceConfig(scales="paper").scale_values == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


def test_mirrored_frame_is_the_mirrored_prediction_with_flip(model, image):
    config = InferenceConfig(flip=True)
    with torch.no_grad():
        one, other = mean_probabilities(model, image, config), mean_probabilities(model, image.flip(-1), config)
    torch.testing.assert_close(one, other.flip(-1))


@pytest.mark.parametrize(("tile", "overlap"), [((20, 30), None), ((20, 30), 0), ((33, 48), 25), ((17, 70), 16)])
def test_windows_average_where_they_overlap(model, image, tile, overlap):
    total, seen = torch.zeros(2, 19, 50, 70), torch.zeros(50, 70)
    for top in tile_starts(50, tile[0], tile[0] // 3 if overlap is None else overlap):
        for left in tile_starts(70, tile[1], tile[1] // 3 if overlap is None else overlap):
            window = (..., slice(top, top + tile[0]), slice(left, left + tile[1]))
            total[window] += softmax_of(model, image[window])
            seen[window[1:]] += 1
    assert seen.min() >= 1
    prediction = predict_batch(model, image, InferenceConfig(tile_size=tile, tile_overlap=overlap))
    best = (total / seen).topk(2, 1)
    clear = best.values[:, 0] - best.values[:, 1] > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(prediction[clear], best.indices[:, 0][clear].to(torch.uint8))


def test_window_larger_than_the_frame_is_the_frame(model, image):
    windows = predict_batch(model, image, InferenceConfig(tile_size=(500, 500)))
    assert torch.equal(windows, predict_batch(model, image))


@given(st.integers(1, 400), st.integers(1, 90), st.floats(0, 0.99))
def test_windows_cover_a_side_in_even_steps(side, tile, share):
    overlap = int(share * tile)
    starts = tile_starts(side, tile, overlap)
    assert starts[0] == 0
    assert max(starts) == max(0, side - tile)
    steps = np.diff(starts)
    assert all(0 < step <= tile - overlap for step in steps)
    assert all(step == tile - overlap for step in steps[:-1])


def test_published_window_is_the_default_overlap():
    assert tile_starts(1024, 769, 769 // 3) == [0, 255]
    assert tile_starts(2048, 769, 769 // 3) == [0, 513, 1026, 1279]


def test_every_option_reaches_an_image(model, image):
    picture = image[0].permute(1, 2, 0).numpy()
    plain = predict_image(model, picture)
    for config in (
        InferenceConfig(scales=(0.5,)),
        InferenceConfig(flip=True),
        InferenceConfig(tile_size=(20, 20)),
        InferenceConfig(precision="bfloat16"),
    ):
        assert (predict_image(model, picture, config) != plain).any(), config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": "papers"}, "scales is 'papers'; give \"paper\", or numbers above 0"),
        ({"scales": ()}, r"scales is \[\]; give"),
        ({"scales": (0.5, 0)}, r"scales is \[0.5, 0\]; give"),
        ({"tile_overlap": 3}, "tile_overlap is 3; it needs --tile-size too"),
        ({"tile_size": (0, 9)}, r"tile_size is \[0, 9\]; give height and width"),
        ({"tile_size": (64, 128), "tile_overlap": 64}, "tile_overlap is 64; give 0 to 63"),
        ({"precision": "half"}, "precision is 'half'; choose one of"),
        ({"output_stride": 4}, "output_stride is 4; choose 8, 16 or 32"),
    ],
)
def test_impossible_option_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        InferenceConfig(**options)
