"""Train on classes of your own: python examples/train_own_classes.py DATA LABELS.yaml RUN.

DATA is in the layout of Cityscapes, LABELS.yaml names the classes (docs/data.md). Adjust the network and the phases.
"""

import sys
from pathlib import Path

import deeplabv3


def main(data: str, labels: str, run: str) -> None:
    """Train a small network from scratch and say what it reached."""
    config = deeplabv3.TrainConfig(
        data_dir=Path(data),
        run_dir=Path(run),
        labels=Path(labels),
        model=deeplabv3.ModelConfig(backbone="resnet18", width=32, aspp_channels=64),
        backbone_weights="none",  # "imagenet" fetches published ones, for width 64
        phases=(deeplabv3.Phase(steps=400, learning_rate=0.05),),
        batch_size=4,
        crop_size=(192, 256),
    )
    history = deeplabv3.train(config)
    print(f"{len(history)} epochs, validation mIoU {history[-1]['miou']:.3f}, in {run}/checkpoints/last.safetensors")


if __name__ == "__main__":  # processes that read data import this file again
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except deeplabv3.InputError as error:  # a defect of the data or the options, in one line
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
