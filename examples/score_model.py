"""Score a model on the validation split: python examples/score_model.py DATA MODEL [SCORES.json].

MODEL is a checkpoint, an exported file, another project's file or a published name (docs/weights.md).
"""

import math
import sys
from pathlib import Path

import deeplabv3


def main(data: str, model: str, out: str | None = None) -> None:
    """Print the IoU of each class, the worst first, and the mean."""
    config = deeplabv3.EvaluateConfig(
        data_dir=Path(data),
        model=Path(model),
        inference=deeplabv3.InferenceConfig(),  # flip=True averages with the mirrored frame
        out=Path(out) if out else None,
    )
    scores = deeplabv3.evaluate(config)
    # NaN: a class that is in no label and no prediction
    scored = {name: iou for name, iou in scores.class_iou.items() if not math.isnan(iou)}
    for name, iou in sorted(scored.items(), key=lambda item: item[1]):
        print(f"{name:15} {iou:.4f}")
    print(f"{'mIoU':15} {scores.miou:.4f}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except deeplabv3.InputError as error:  # a file or an option that cannot be used, in one line
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
