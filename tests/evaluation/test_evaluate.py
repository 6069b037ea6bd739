import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3.cli import main
from deeplabv3.config import EvaluateConfig, InferenceConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_frame, read_sample
from deeplabv3.data.images import read_label_values
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import CheckpointError, DatasetError, OutputError
from deeplabv3.evaluation.confusion import count_pixels
from deeplabv3.evaluation.evaluate import evaluate, score_model
from deeplabv3.evaluation.scores import Scores
from deeplabv3.model.load import load_model
from deeplabv3.prediction.predictor import predict_image
from deeplabv3.report.tables import score_table
from deeplabv3.training.loop import train
from tests.conftest import write_frame


@pytest.fixture
def config(train_config, tmp_path):
    """A network of one epoch, to be scored."""
    train(replace(train_config, phases=train_config.phases[1:]))
    return EvaluateConfig(
        data_dir=train_config.data_dir,
        model=train_config.run_dir / "checkpoints/last.safetensors",
        inference=InferenceConfig(device="cpu"),
    )


def test_scores_are_those_of_predicting_frame_by_frame(config):
    scores = evaluate(config)
    model, labels = load_model(config.model)
    frames = [read_frame(sample, labels, instances=False) for sample in find_samples(config.data_dir, "val")]
    counts = sum(
        count_pixels(frame.label_ids, labels.id_of_train_id[predict_image(model, frame.image)], 34) for frame in frames
    )
    np.testing.assert_array_equal(scores.counts, counts)
    assert [frame.name for frame in scores.frames] == [frame.name for frame in frames]


def test_scores_do_not_depend_on_the_batch_size(config):
    np.testing.assert_array_equal(evaluate(config).counts, evaluate(replace(config, batch_size=2)).counts)


def test_loss_is_the_mean_over_all_counted_pixels(config):
    model, labels = load_model(config.model)
    losses = []
    for sample in find_samples(config.data_dir, "val"):
        image, label = read_sample(sample, labels)
        logits = model(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0].detach().double().log_softmax(0)
        for train_id in range(19):
            losses.append(-logits[train_id][torch.from_numpy(label == train_id)])
    samples = find_samples(config.data_dir, "val")
    scores = score_model(model, samples, labels, with_loss=True)
    assert scores.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)


def test_another_output_stride_has_its_effect(config):
    assert (
        evaluate(config).counts != evaluate(replace(config, inference=InferenceConfig(output_stride=8))).counts
    ).any()


@pytest.mark.parametrize(
    "options",
    [{"scales": (0.5,)}, {"flip": True}, {"tile_size": (32, 32)}, {"precision": "bfloat16"}],
    ids=["scales", "flip", "tile_size", "precision"],
)
def test_option_of_inference_has_its_effect(config, options):
    inference = InferenceConfig(device="cpu", **options)
    assert (evaluate(config).counts != evaluate(replace(config, inference=inference)).counts).any()


def test_labels_and_instance_ids_must_fit_before_anything_is_scored(config, tmp_path):
    shutil.copytree(config.data_dir, tmp_path / "d")
    path = find_samples(tmp_path / "d", "val")[2].instance_path
    Image.new("I;16", (5, 4)).save(path)
    with pytest.raises(DatasetError, match="instanceIds.png is 4x5 and its label 64x96"):
        evaluate(replace(config, data_dir=tmp_path / "d", model=tmp_path / "none"))
    Image.new("RGB", (96, 64)).save(path)
    with pytest.raises(DatasetError, match="has mode RGB; instance ids are a single-channel 16-bit PNG"):
        evaluate(replace(config, data_dir=tmp_path / "d"))


def test_frames_of_one_name_are_told_apart_by_their_folders(config, tmp_path):
    shutil.copytree(config.data_dir, tmp_path / "d")
    for kind in ("leftImg8bit", "gtFine"):
        city = next((tmp_path / "d" / kind / "val").iterdir())
        shutil.copytree(city, city.parent / "other")
    assert len(evaluate(replace(config, data_dir=tmp_path / "d")).to_json()["perImageScores"]) == 6
    with pytest.raises(DatasetError, match="are frames of one name"):
        evaluate(EvaluateConfig(data_dir=tmp_path / "d", predictions=tmp_path))


def test_scores_as_json(config, tmp_path):
    scores = evaluate(replace(config, out=tmp_path / "new" / "scores.json"))
    record = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert record["averageScoreClasses"] == scores.miou
    assert np.array(record["confMatrix"]).sum() == scores.counts.sum() == 3 * 64 * 96


def test_predictions_are_written_on_request(config, tmp_path):
    evaluate(replace(config, results_dir=tmp_path / "p"))
    sample = find_samples(config.data_dir, "val")[0]
    model, _ = load_model(config.model)
    written = read_label_values(tmp_path / "p" / "labelIds" / f"{sample.name}.png")
    expected = CITYSCAPES.id_of_train_id[predict_image(model, read_sample(sample, CITYSCAPES)[0])]
    np.testing.assert_array_equal(written, expected)
    assert len(list((tmp_path / "p" / "overlay").iterdir())) == 3


def test_results_are_not_overwritten_unasked(config, tmp_path):
    for changed in ({"out": tmp_path / "s.json"}, {"results_dir": tmp_path / "p"}):
        evaluate(replace(config, **changed))
        with pytest.raises(OutputError, match="is there already; add --overwrite"):
            evaluate(replace(config, **changed))
        evaluate(replace(config, overwrite=True, **changed))


def test_folder_is_looked_at_before_frames_are_scored(config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; choose another one"):
        evaluate(replace(config, out=tmp_path / "file" / "scores.json", model=tmp_path / "none"))


def test_disk_that_fails_does_not_cost_the_scores(config, tmp_path, capsys):
    (tmp_path / "scores.json").mkdir()
    seen: list[Scores] = []
    with pytest.raises(OutputError, match="is there and is no file"):
        evaluate(replace(config, out=tmp_path / "scores.json", overwrite=True), seen.append)
    assert len(seen) == 1
    words = [str(config.data_dir), "--model", str(config.model), "--device", "cpu", "--overwrite"]
    assert main(["evaluate", *words, "--out", str(tmp_path / "scores.json")]) == 2
    assert "mIoU" in capsys.readouterr().out
    (tmp_path / "page" / "index.html").mkdir(parents=True)
    assert main(["report", *words, "--report-dir", str(tmp_path / "page")]) == 2
    assert "mIoU" in capsys.readouterr().out


def test_table_for_people(config):
    table = score_table(evaluate(config))
    assert "mIoU" in table
    assert all(name in table for name in CITYSCAPES.names)


def test_missing_checkpoint(config, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        evaluate(replace(config, model=tmp_path / "none.safetensors"))


def test_broken_frame_is_named(config, tmp_path, rng):
    path = write_frame(tmp_path, "a_000000_000000", rng.integers(0, 9, (8, 8, 3), dtype=np.uint8), None, "val")
    label = tmp_path / "gtFine/val/a/a_000000_000000_gtFine_labelIds.png"
    label.parent.mkdir(parents=True)
    label.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DatasetError, match="a_000000_000000_gtFine_labelIds.png"):
        evaluate(replace(config, data_dir=tmp_path))
