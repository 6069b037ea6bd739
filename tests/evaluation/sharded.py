"""One of several processes scores splits of several sizes, and writes what it sees."""

import json
from pathlib import Path
from unittest import mock

import torch

from deeplabv3.config import EvaluateConfig, InferenceConfig
from deeplabv3.distributed import process_group, rank
from deeplabv3.evaluation.evaluate import evaluate
from deeplabv3.evaluation.frames import count_frame


def run(out: Path, model: str, folders: list[str]) -> None:
    torch.set_num_threads(1)
    seen = {}
    with process_group():
        for folder in map(Path, folders):
            for num_workers in (0, 2) if folder.name == "5" else (0,):
                config = EvaluateConfig(
                    data_dir=folder, model=model, inference=InferenceConfig(device="cpu"), num_workers=num_workers
                )
                with mock.patch("deeplabv3.evaluation.evaluate.count_frame", side_effect=count_frame) as counted:
                    scores = evaluate(config)
                names = [call.args[0].name for call in counted.call_args_list]
                seen[f"{folder.name} {num_workers}"] = {"names": names, "scores": scores.to_json()}
    (out / f"{rank()}.json").write_text(json.dumps(seen))
