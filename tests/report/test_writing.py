import re
import shlex
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from deeplabv3.cli import parse
from deeplabv3.config import InferenceConfig, ModelConfig, ReportConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.images import read_label_values
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import OutputError
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.records import to_record
from deeplabv3.report.writing import write_report


@pytest.fixture
def predictions(streets, tmp_path):
    """The labels themselves, but for ever more of each frame's lowest rows."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number, sample in enumerate(find_samples(streets, "val"), start=1):
        label_ids = read_label_values(sample.label_path).copy()
        label_ids[-16 * number :] = 23
        Image.fromarray(label_ids).save(folder / f"{sample.name}.png")
    return folder


def test_predictions_of_others_have_a_page_without_training(streets, predictions, tmp_path):
    config = ReportConfig(data_dir=streets, predictions=predictions, report_dir=tmp_path / "r", num_worst=2)
    scores = write_report(config)
    html = (tmp_path / "r" / "index.html").read_text()
    assert 'id="training"' not in html
    frames = sorted(scores.frames, key=lambda frame: frame.miou)
    assert re.findall(r"<h3>(streets\w+)</h3>", html) == [frame.name for frame in frames[:2]]
    assert not (tmp_path / "r" / "losses.png").exists()


def test_report_is_not_overwritten(streets, predictions, tmp_path, monkeypatch):
    monkeypatch.setattr("deeplabv3.report.writing.evaluate", lambda config: pytest.fail("nothing is to be scored"))
    config = ReportConfig(data_dir=streets, predictions=predictions, report_dir=tmp_path)
    for name in ("index.html", "losses.png", "worst_3_x.png"):
        (tmp_path / name).touch()
        with pytest.raises(OutputError, match=f"{name} is there already; add --overwrite"):
            write_report(config)
        (tmp_path / name).unlink()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file; choose another one"):
        write_report(replace(config, report_dir=tmp_path / "file"))


def test_model_has_its_history_its_options_and_its_command(streets, tmp_path):
    model = ModelConfig(backbone="resnet18", width=16, aspp_channels=8)
    record = {
        "model": to_record(model),
        "labels": CITYSCAPES.to_dict(),
        "config": {**to_record(model), "seed": 0},
        "position": {
            "history": [
                {"epoch": 1, "step": 2, "learning_rate": 0.1, "train_loss": 2.0, "val_loss": 1.0, "miou": 0.125}
            ]
        },
    }
    tensors = {f"model/{name}": value for name, value in DeepLabV3(model).state_dict().items()}
    write_checkpoint(tmp_path / "it's.safetensors", tensors, record)
    config = ReportConfig(
        data_dir=streets,
        model=tmp_path / "it's.safetensors",
        inference=InferenceConfig(output_stride=32, scales=(0.5, 1.0), flip=True, device="cpu"),
        report_dir=tmp_path / "r",
        num_worst=1,
        overwrite=True,
    )
    write_report(config, lambda _: config.model.unlink())  # as a run that goes on replaces it: it is read once
    html = (tmp_path / "r" / "index.html").read_text()
    assert "best validation mIoU 12.50 % after epoch 1" in html
    assert '<div class="changed"><dt>backbone</dt><dd>resnet18</dd></div>' in html
    command = re.search(r"<code>(deeplabv3 report .*?)</code>", html)
    assert command
    words = shlex.split(command[1].replace("&quot;", '"').replace("&#x27;", "'"))
    assert parse("report", words[2:]) == config
    assert len(list((tmp_path / "r").glob("worst_*.png"))) == 1
    assert np.asarray(Image.open(tmp_path / "r" / "losses.png")).shape == (630, 1650, 4)
