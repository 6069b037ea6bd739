"""The demonstration: synthetic streets, a small network trained on them, its scores and its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from deeplabv3.config import DemoConfig, EvaluateConfig, InferenceConfig, ModelConfig, Phase, PredictConfig, TrainConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.streets import write_streets
from deeplabv3.errors import OutputError
from deeplabv3.evaluation.evaluate import evaluate
from deeplabv3.model.device import choose_device
from deeplabv3.prediction.predictor import predict
from deeplabv3.progress import Progress
from deeplabv3.report.page import PAGE
from deeplabv3.report.tables import score_table
from deeplabv3.training.loop import train
from deeplabv3.training.state import RunPaths

NUM_TRAIN, NUM_VAL = 320, 40
NUM_PICTURES = 4


def demo(config: DemoConfig) -> None:
    """Draw streets, train on some, score the others, and show what the network sees.

    It takes a few minutes on two cores. The score is made by the code that scores real data, over scenes that
    training has not seen.

    Raises:
        OutputError: The folder holds something already, or cannot be written.
    """
    if config.out.exists() and (not config.out.is_dir() or any(config.out.iterdir())):
        raise OutputError(f"{config.out} is there already; remove it, or choose another folder with --out")
    choose_device(config.device)  # a mistake there is found before anything is drawn
    streets, run, pictures = (config.out / name for name in ("streets", "run", "pictures"))

    print(f"1. Streets: {NUM_TRAIN} synthetic scenes to learn from and {NUM_VAL} others to be scored on")
    with Progress("drawing", NUM_TRAIN + NUM_VAL) as progress:
        write_streets(streets, num_train=NUM_TRAIN, num_val=NUM_VAL, progress=lambda *_: progress.advance())

    print("2. Training: a narrow ResNet-18 from scratch")
    training = train_config(config, streets, run)
    train(training)
    paths = RunPaths(training)

    print(f"3. Scores on the {NUM_VAL} scenes that it has not seen")
    inference = InferenceConfig(device=config.device)
    scores = evaluate(
        EvaluateConfig(data_dir=streets, model=paths.last, inference=inference, out=config.out / "scores.json")
    )

    images = tuple(str(sample.image_path) for sample in find_samples(streets, "val")[:NUM_PICTURES])
    overlays = predict(PredictConfig(inputs=images, model=paths.last, out=pictures, inference=inference))

    print(f"\n{score_table(scores)}\n\nLook at:")
    for path in (paths.report_dir / PAGE, *overlays, paths.plot):
        print(f"  {path}")
    print(f"Go on with: {sys.executable} -m deeplabv3 predict YOUR_IMAGES --model {paths.last}")


def train_config(config: DemoConfig, streets: Path, run: Path) -> TrainConfig:
    """A network and a schedule for minutes instead of days."""
    return TrainConfig(
        data_dir=streets,
        run_dir=run,
        model=ModelConfig(backbone="resnet18", width=32, aspp_channels=64),
        backbone_weights="none",
        phases=(Phase(epochs=18, learning_rate=0.1),),
        batch_size=4,
        crop_size=(192, 256),
        scale_range=(0.75, 1.1),
        eval_interval=6,
        save_checkpoint_index=18,
        device=config.device,
        precision="auto",
    )
