"""Print the share of a class in each image: python examples/predict_folder.py FOLDER MODEL CLASS.

MODEL is a checkpoint or a file exported with --output probabilities; FOLDER holds images alone; pictures/ gets theirs.
"""

import sys
from pathlib import Path

import deeplabv3


def main(folder: str, model_name: str, class_name: str) -> None:
    """Look for one class in every image."""
    if not Path(folder).is_dir():
        raise deeplabv3.InputError(f"there is no folder {folder}; give one with images")
    model = deeplabv3.load(model_name)
    if class_name not in model.label_set.names:
        raise deeplabv3.InputError(f"no class is {class_name!r}; give one of {', '.join(model.label_set.names)}")
    train_id = model.label_set.names.index(class_name)
    for path in sorted(Path(folder).iterdir()):
        prediction = model.predict(path, probabilities=True)
        found = prediction.train_ids == train_id  # bool (H, W)
        if found.any():
            assert prediction.probabilities is not None  # float32 (K, H, W)
            sure = prediction.probabilities[train_id][found].mean()
            print(f"{path.name}: {found.mean():.1%} {class_name}, mean probability {sure:.2f}")
        else:
            print(f"{path.name}: no {class_name}")
        prediction.save("pictures", path.stem)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except deeplabv3.InputError as error:  # a file or an option that cannot be used, in one line
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
