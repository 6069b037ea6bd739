"""An exported file is served as a checkpoint is."""

from dataclasses import replace

import pytest

from deeplabv3.config import ExportConfig, InferenceConfig
from deeplabv3.deployment.export import export
from deeplabv3.errors import InputError
from deeplabv3.prediction.segmenter import load
from deeplabv3.serving.server import serve
from tests.serving.conftest import picture, pixels_of, png, running


@pytest.fixture(scope="module")
def exported(model_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "nano.onnx"
    export(ExportConfig(model=model_path, out=path))
    return path


def test_mask_is_that_of_the_file(exported, config):
    model = load(exported)
    images = [picture(seed=seed) for seed in range(3)]
    with running(replace(config, model=exported), model) as served:
        for image in images:
            assert (pixels_of(served.segment(png(image)).body) == model.predict(image).label_ids).all()
        refused = served.segment(png(images[0]), "?output=probabilities&classes=road")
    assert (refused.status, refused.json["error"]) == (
        422,
        "this service's model gives labels and no probabilities; ask for another output",
    )


def test_refusal_of_a_small_image_names_no_file(model_path, config, tmp_path):
    """A `.pt2` file takes no image as small as its output stride, and says so by its own name."""
    path = tmp_path / "nano.pt2"
    export(ExportConfig(model=model_path, out=path))
    with running(replace(config, model=path), load(path)) as served:
        refused = served.segment(png(picture(height=5, width=7)))
    assert (refused.status, refused.json["error"]) == (
        422,
        "5x7 pixels are too few for this service's model; give a larger image",
    )


def test_what_it_cannot_do_is_told_at_the_start(exported, config):
    with pytest.raises(InputError, match="scales, flip and tile_size average probabilities and .* puts out labels"):
        serve(replace(config, model=exported, inference=InferenceConfig(flip=True)))
