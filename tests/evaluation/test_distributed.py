"""Several processes, as torchrun starts them, score as one does."""

import functools
import json
import os
import shutil
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from deeplabv3 import distributed, exits
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.streets import write_streets
from deeplabv3.errors import ProcessError, UnreachableError
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.records import to_record
from tests.conftest import REPOSITORY, torchrun_command

SIZES = (1, 2, 3, 5, 7)


@pytest.fixture
def command(ranks, tmp_path):
    """Run a command in two processes; their exit codes and all that they print."""

    def run(*words):
        (tmp_path / "told").mkdir()
        ended = ranks(2, "command", tmp_path / "told", None, [str(word) for word in words])
        return ended["codes"], "".join(ended["out"]), "".join(ended["err"])

    return run


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


@pytest.fixture(scope="module")
def scored(ranks, folders):
    """What each of a number of processes saw."""

    @functools.cache
    def by(processes):
        out = folders / f"by {processes}"
        out.mkdir()
        data = [str(folders / str(size)) for size in SIZES]
        ended = ranks(processes, "evaluate", out, str(folders / "net.safetensors"), data)
        assert ended["codes"] == [0] * processes, ended["err"]
        return [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]

    return by


@pytest.mark.parametrize("processes", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_scores_are_those_of_one_process(scored, processes):
    for process in scored(processes):
        for split, expected in scored(1)[0].items():
            assert process[split]["scores"] == expected["scores"], split


@pytest.mark.parametrize("processes", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_each_frame_is_scored_once(scored, folders, processes):
    for size in SIZES:
        names = [name for share in scored(processes) for name in share[f"{size} 0"]["names"]]
        assert sorted(names) == [sample.name for sample in find_samples(folders / str(size), "val")]


def test_matrix_sums_to_all_pixels(scored):
    by_one = scored(1)[0]
    for size in SIZES:
        assert np.sum(by_one[f"{size} 0"]["scores"]["confMatrix"]) == size * 64 * 96
    assert by_one["5 0"] == by_one["5 2"]


def test_command_behind_torchrun_prints_one_table(folders, tmp_path):
    words = ["-m", "deeplabv3", "evaluate", folders / "3", "--model", folders / "net.safetensors"]
    words = [*torchrun_command(2), *words, "--out", tmp_path / "scores.json"]
    result = subprocess.run([str(word) for word in words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mIoU") == 1
    assert json.loads((tmp_path / "scores.json").read_text())["perImageScores"].keys() == {
        sample.name for sample in find_samples(folders / "3", "val")
    }


def test_faults_of_all_processes_are_listed_once(command, folders, tmp_path):
    label_ids = np.full((64, 96), 7, np.uint8)
    samples = find_samples(folders / "3", "val")
    for sample, map_ in zip(samples, (label_ids[1:], label_ids[2:], label_ids), strict=True):
        Image.fromarray(map_).save(tmp_path / f"{sample.name}.png")
    codes, printed, told = command("evaluate", folders / "3", "--predictions", tmp_path)
    assert 0 not in codes
    assert "IoU" not in printed
    for sample, size in zip(samples, ("is 63x96", "is 62x96"), strict=False):
        assert told.count(f"{sample.name}.png {size}") == 1


def test_broken_frame_ends_all_processes_with_one_message(command, folders, tmp_path):
    shutil.copytree(folders / "3", tmp_path / "d")
    find_samples(tmp_path / "d", "val")[1].image_path.write_bytes(b"broken")
    codes, _, told = command("evaluate", tmp_path / "d", "--model", folders / "net.safetensors")
    assert 0 not in codes
    assert told.count("cannot be read") == 1
    assert "Connection closed" not in told


def test_what_is_not_shared_runs_in_one_process(command, folders):
    _, _, told = command("submit", folders / "3", "--model", folders / "net.safetensors")
    assert told.count("was started in 2 processes; it runs in one, so leave torchrun out") == 1


def test_files_to_predict_are_dealt_out(command, folders, tmp_path):
    words = ["predict", folders / "3" / "leftImg8bit", "--model", folders / "net.safetensors"]
    codes, printed, told = command(*words, "--out", tmp_path / "pictures", "--device", "cpu")
    assert codes == [0, 0], told
    assert printed.count("images: label ids") == 1
    assert len(list((tmp_path / "pictures" / "overlay").iterdir())) == len(
        list((folders / "3" / "leftImg8bit").rglob("*.png"))
    )


TORCHRUN = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize("missing", TORCHRUN)
@pytest.mark.parametrize("value", [None, ""])
def test_half_an_environment_is_a_single_process(monkeypatch, missing, value):
    for name, number in TORCHRUN.items():
        monkeypatch.setenv(name, number if name != "RANK" else "1")
    if value is None:
        monkeypatch.delenv(missing)
    else:
        monkeypatch.setenv(missing, value)
    assert (distributed.rank(), distributed.num_processes()) == (0, 1)


def test_shares_are_dealt_out_whole(monkeypatch):
    for name, number in TORCHRUN.items():
        monkeypatch.setenv(name, number)
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


def test_processes_that_do_not_find_each_other_are_one_line(monkeypatch):
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    refused = RuntimeError("[enforce fail at device.cc:84] rv != -1.\nUnable to find address for: eth9")
    monkeypatch.setattr(torch.distributed, "init_process_group", Mock(side_effect=refused))
    match = r"cannot reach each other \(.*Unable to find address for: eth9\); .*set GLOO_SOCKET_IFNAME$"
    with pytest.raises(UnreachableError, match=match) as error, distributed.process_group():
        pass
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rank", [0, 1])
def test_process_that_alone_cannot_join_says_so(monkeypatch, capsys, rank):
    monkeypatch.setattr(exits, "is_first", lambda: rank == 0)
    for error, is_told in ((UnreachableError("no eth9"), True), (ProcessError("another"), rank == 0)):
        assert exits.guarded("deeplabv3 train", Mock(side_effect=error)) == 1
        assert capsys.readouterr().err == f"deeplabv3 train: error: {error}\n" * is_told


def test_program_leaves_without_the_interpreters_end():
    """What is to be done at the exit is done, what was printed is there, and nothing is torn down."""
    code = (
        "import atexit, sys\n"
        "from deeplabv3.distributed import leave\n"
        "class Torn:\n"
        "    def __del__(self): print('torn down', file=sys.__stderr__)\n"
        "torn = Torn()\n"
        "atexit.register(print, 'tidied up')\n"
        "print('told', end=' ')\n"
        "leave(3)\n"
    )
    several = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for more in ({}, several):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **more}
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "told tidied up\n", "")
