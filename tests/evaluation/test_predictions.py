"""Predictions that another program wrote."""

import os
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplabv3.config import EvaluateConfig, InferenceConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_labels
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.numbering import looks_like_train_ids
from deeplabv3.errors import DatasetError, InputError
from deeplabv3.evaluation.evaluate import evaluate, predictions_of
from deeplabv3.evaluation.predictions import files_of_frames
from tests.evaluation.oracle import official
from tests.evaluation.test_scores import OFFICIAL_KEYS, assert_equal


@pytest.fixture
def folder(streets, tmp_path, rng):
    """A prediction for each validation frame, in folders and with endings of its own."""
    for sample in find_samples(streets, "val"):
        label = read_labels(sample, CITYSCAPES).label_ids
        path = tmp_path / "p" / "somewhere" / f"{sample.name}_any.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(rng.random(label.shape) < 0.7, label, np.roll(label, 5, 0))).save(path)
    return tmp_path / "p"


@pytest.fixture
def config(streets, folder):
    return EvaluateConfig(data_dir=streets, predictions=folder, num_workers=0)


def files_in(folder):
    return sorted(folder.rglob("*.png"))


@pytest.mark.parametrize("workers", [0, 2])
def test_files_are_scored_as_the_official_script_does(config, workers):
    frames = []
    for sample, path in zip(find_samples(config.data_dir, "val"), files_in(config.predictions), strict=True):
        labelled = read_labels(sample, CITYSCAPES, instances=True)
        frames.append((labelled.label_ids, np.asarray(Image.open(path)), labelled.instance_ids))
    record, theirs = evaluate(replace(config, num_workers=workers)).to_json(), official(frames)
    assert_equal({key: record[key] for key in OFFICIAL_KEYS}, {key: theirs[key] for key in OFFICIAL_KEYS})


def test_own_predictions_score_as_the_model_does(config, tmp_path, train_config):
    from deeplabv3.training.loop import train

    train(replace(train_config, phases=train_config.phases[1:]))
    model = train_config.run_dir / "checkpoints/last.safetensors"
    by_model = evaluate(
        EvaluateConfig(
            data_dir=config.data_dir,
            model=model,
            inference=InferenceConfig(device="cpu"),
            results_dir=tmp_path / "r",
        )
    )
    by_files = evaluate(replace(config, predictions=tmp_path / "r" / "labelIds"))
    assert by_files.to_json() == by_model.to_json()


def test_missing_instance_ids_are_said_and_not_scored_as_0(config, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(config.data_dir, data)
    next(data.rglob("val/*/*_instanceIds.png")).unlink()
    scores = evaluate(replace(config, data_dir=data))
    assert (scores.class_iiou, scores.mean_category_iiou) == (None, None)
    assert scores.why_no_iiou == "1 of 3 frames have no instanceIds.png"
    assert scores.to_json()["averageScoreInstClasses"] is None


def spoilt():
    """A map with a fault of each kind, by what is said of it."""
    label = np.full((64, 96), 7, np.uint8)
    return {
        "mode RGB": np.zeros((64, 96, 3), np.uint8),
        "mode I;16": label.astype(np.uint16),
        "is 64x95 and its frame 64x96": label[:, 1:],
        "holds 34, 200, outside the label ids of cityscapes (0-33)": np.array([[34, 200]] * 32 * 96, np.uint8).reshape(
            64, 96
        ),
        "it looks like trainIds": np.array([[0, 255]] * 32 * 96, np.uint8).reshape(64, 96),
    }


@pytest.mark.parametrize("fault", spoilt())
def test_spoilt_file_is_named_with_its_reason(config, fault):
    path = files_in(config.predictions)[1]
    Image.fromarray(spoilt()[fault]).save(path)
    with pytest.raises(DatasetError) as caught:
        evaluate(config)
    assert "1 of 3 predictions" in str(caught.value)
    assert f"{path}" in str(caught.value)
    assert fault in str(caught.value)


def test_pipe_is_not_waited_for(config):
    path = files_in(config.predictions)[0]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DatasetError, match=f"{path} cannot be read: it is a device, pipe or socket; give a file"):
        evaluate(config)


def test_all_faults_are_listed_at_once(config):
    first, second, third = files_in(config.predictions)
    first.rename(first.with_suffix(".jpg"))
    shutil.copy(second, config.predictions / second.name.replace("_any", "_again"))
    third.write_bytes(third.read_bytes()[:-30])
    with pytest.raises(DatasetError) as caught:
        evaluate(config)
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("3 of 3 predictions in")
    assert "missing, there is no" in lines[0]
    assert "given 2 times, as" in lines[1]
    assert third.name in lines[2]


def test_nothing_is_written_where_a_prediction_is_at_fault(config, tmp_path):
    files_in(config.predictions)[0].unlink()
    with pytest.raises(DatasetError):
        evaluate(replace(config, out=tmp_path / "scores.json"))
    assert not (tmp_path / "scores.json").exists()


def test_images_are_not_needed(config, tmp_path):
    shutil.copytree(config.data_dir / "gtFine", tmp_path / "gtFine")
    assert evaluate(replace(config, data_dir=tmp_path)).to_json() == evaluate(config).to_json()


def test_report_without_images(config, tmp_path):
    from deeplabv3.config import ReportConfig
    from deeplabv3.report.writing import write_report

    shutil.copytree(config.data_dir / "gtFine", tmp_path / "gtFine")
    write_report(ReportConfig(data_dir=tmp_path, predictions=config.predictions, report_dir=tmp_path / "r"))
    assert (tmp_path / "r" / "index.html").exists()


def test_no_labels(config, tmp_path):
    with pytest.raises(DatasetError, match="0 labels in .*; expected are files like gtFine/val/<city>/"):
        evaluate(replace(config, data_dir=tmp_path))
    with pytest.raises(DatasetError, match=r"there is no folder .*/none; give the one that holds leftImg8bit/"):
        evaluate(replace(config, data_dir=tmp_path / "none"))


def test_labels_of_a_file_have_their_effect(config, tmp_path):
    rows = "\n".join(f"  - {{name: '{row.name}', id: {row.id}, color: [0, 0, 0]}}" for row in CITYSCAPES.evaluated[:2])
    ignored = [row.id for row in CITYSCAPES.classes if row.id not in (7, 8)]
    (tmp_path / "own.yaml").write_text(f"classes:\n{rows}\nignored_ids: {ignored}\n")
    scores = evaluate(replace(config, labels=tmp_path / "own.yaml"))
    assert list(scores.class_iou) == ["road", "sidewalk"]
    assert "own has no class whose instances have a known mean size" in scores.why_no_iiou


def test_image_without_a_label_is_said(config, tmp_path):
    shutil.copytree(config.data_dir, tmp_path / "d")
    find_samples(tmp_path / "d", "val")[0].label_path.unlink()
    with pytest.raises(DatasetError, match="has no label"):
        evaluate(replace(config, data_dir=tmp_path / "d"))


def test_four_bits_a_pixel_are_not_spread_out(config):
    path = files_in(config.predictions)[0]
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 96, 64, 4, 0, 0, 0, 0)
    idat = b"IDAT" + zlib.compress(b"\0" * 64 * 49)
    chunks = [
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) for body in (ihdr, idat, b"IEND")
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    with pytest.raises(DatasetError, match="has 4 bits a pixel; a label is a single-channel 8-bit PNG"):
        evaluate(config)


def test_missing_folder(config, tmp_path):
    with pytest.raises(DatasetError, match="there is no folder .*none; give the one that holds the predictions"):
        evaluate(replace(config, predictions=tmp_path / "none"))


def test_file_belongs_to_the_longest_name_that_it_begins_with():
    names = ["a_000001_00001", "a_000001_000010"]
    files = [Path("x/a_000001_000010_p.png"), Path("a_000001_00001.png"), Path("b.png"), Path("._a_000001_00001.png")]
    found, strange = files_of_frames(files, names)
    assert found == {names[0]: [files[1]], names[1]: [files[0]]}
    assert strange == [Path("b.png")]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([0, 1, 2, 8, 10, 13, 255], True),  # a street scene in trainIds
        ([7, 8, 11, 21, 23, 26], False),  # the same in label ids
        ([0, 7, 8, 11], False),  # label ids with pixels that were left unlabeled
        ([7, 8, 9, 11], False),  # somebody predicts parking
        ([255], True),
    ],
)
def test_train_ids_are_recognised(seen, expected):
    assert looks_like_train_ids(seen, CITYSCAPES) == expected


def test_maps_of_train_ids_only_are_noted(config, capsys):
    for path in files_in(config.predictions):
        Image.fromarray(np.array([[0, 1, 2, 10]] * 64 * 24, np.uint8).reshape(64, 96)).save(path)
    evaluate(config)
    assert "look like trainIds" in capsys.readouterr().err


def test_predictions_can_be_had_once_more(config):
    samples = find_samples(config.data_dir, "val")
    again, label_set = predictions_of(config, samples, range(1, len(samples)))
    assert label_set is CITYSCAPES
    for prediction, path in zip(again, files_in(config.predictions)[1:], strict=True):
        np.testing.assert_array_equal(prediction, np.asarray(Image.open(path)))


def test_prediction_of_a_longer_name_is_not_taken_for_a_frame(config, folder, tmp_path):
    """Sorted by name, it comes first."""
    samples = [
        replace(sample, name=name)
        for sample, name in zip(find_samples(config.data_dir, "val"), ["a_1", "a_10"], strict=False)
    ]
    for name, path in zip(("a_1_pred", "a_10_pred"), files_in(folder), strict=False):
        shutil.copy(path, tmp_path / f"{name}.png")
    again, _ = predictions_of(replace(config, predictions=tmp_path), samples, [0])
    np.testing.assert_array_equal(list(again), [np.asarray(Image.open(tmp_path / "a_1_pred.png"))])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing to score is given; give --model PATH or --predictions PATH"),
        ({"model": Path("m"), "predictions": Path("p")}, "--model m and --predictions p exclude each other"),
        ({"predictions": Path("p"), "results_dir": Path("r")}, "results_dir is 'r'; it needs --model"),
        ({"model": Path("m"), "labels": Path("l.yaml")}, "labels is 'l.yaml'; it is for --predictions"),
        ({"predictions": Path("p"), "inference": InferenceConfig(flip=True)}, "options of inference .* need --model"),
        ({"model": Path("m"), "num_workers": -1}, "num_workers is -1"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        EvaluateConfig(data_dir=Path("d"), **options)
