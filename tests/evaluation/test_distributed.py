"""Several processes, as torchrun starts them, score as one does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3 import distributed
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.streets import write_streets
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.records import to_record
from tests.conftest import REPOSITORY

SIZES = (1, 2, 3, 5, 7)


def torchrun(processes, *words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run(
        [*command, *map(str, words)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A checkpoint, and validation splits of every size."""
    from deeplabv3.config import ModelConfig

    root = tmp_path_factory.mktemp("sharded")
    config = ModelConfig(backbone="resnet18", width=16, aspp_channels=8)
    torch.manual_seed(0)
    tensors = {f"model/{name}": value for name, value in DeepLabV3(config).state_dict().items()}
    write_checkpoint(root / "net.safetensors", tensors, {"model": to_record(config), "labels": CITYSCAPES.to_dict()})
    for size in SIZES:
        write_streets(root / str(size), num_train=0, num_val=size, height=64, width=96, seed=size)
    return root


def scored(folders, processes):
    """What each process saw."""
    out = folders / f"by {processes}"
    out.mkdir()
    data = [folders / str(size) for size in SIZES]
    result = torchrun(processes, "-m", "tests.evaluation.sharded", folders / "net.safetensors", out, *data)
    assert result.returncode == 0, result.stderr
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def by_one(folders):
    return scored(folders, 1)[0]


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_scores_are_those_of_one_process(folders, by_one, processes):
    for process in scored(folders, processes):
        for split, expected in by_one.items():
            assert process[split]["scores"] == expected["scores"], split


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_each_frame_is_scored_once(folders, processes):
    out = folders / f"by {processes}"
    shares = [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]
    for size in SIZES:
        names = [name for share in shares for name in share[f"{size} 0"]["names"]]
        assert sorted(names) == [sample.name for sample in find_samples(folders / str(size), "val")]


def test_matrix_sums_to_all_pixels(by_one):
    for size in SIZES:
        assert np.sum(by_one[f"{size} 0"]["scores"]["confMatrix"]) == size * 64 * 96
    assert by_one["5 0"] == by_one["5 2"]


def test_command_prints_one_table(folders, tmp_path):
    words = ["-m", "deeplabv3", "evaluate", folders / "3", "--model", folders / "net.safetensors"]
    result = torchrun(2, *words, "--out", tmp_path / "scores.json")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mIoU") == 1
    assert json.loads((tmp_path / "scores.json").read_text())["perImageScores"].keys() == {
        sample.name for sample in find_samples(folders / "3", "val")
    }


def test_faults_of_all_processes_are_listed_once(folders, tmp_path):
    label_ids = np.full((64, 96), 7, np.uint8)
    samples = find_samples(folders / "3", "val")
    for sample, map_ in zip(samples, (label_ids[1:], label_ids[2:], label_ids), strict=True):
        Image.fromarray(map_).save(tmp_path / f"{sample.name}.png")
    result = torchrun(2, "-m", "deeplabv3", "evaluate", folders / "3", "--predictions", tmp_path)
    assert result.returncode != 0
    assert "IoU" not in result.stdout
    for sample, size in zip(samples, ("is 63x96", "is 62x96"), strict=False):
        assert result.stderr.count(f"{sample.name}.png {size}") == 1


def test_shares_are_dealt_out_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(distributed.share_of(range(7)))
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]


def test_single_process_needs_no_group():
    counts = np.eye(3, dtype=np.int64)
    with distributed.process_group():
        assert distributed.sum_over_processes(counts) is counts
        assert distributed.gather(["a"]) == ["a"]
    assert not torch.distributed.is_initialized()
