"""Several processes train as one does, and end together when one of them fails."""

import functools
import json
import os
import signal
import subprocess
import time

import pytest

from deeplabv3.config import InferenceConfig
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.streets import write_streets
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.model.device import place
from deeplabv3.model.load import load_model
from tests.conftest import REPOSITORY, torchrun_command
from tests.training.conftest import CPU, timeless

TINY = [
    *("--backbone", "resnet18", "--width", "16", "--aspp-channels", "8", "--auxiliary-channels", "8"),
    *("--backbone-weights", "none", "--dropout", "0.1", "--phases", "[{epochs: 2, learning_rate: 0.05}]"),
    *("--crop-size", "[32, 48]", "--batch-size", "2", "--save-checkpoint-index", "9", "--device", "cpu"),
]

ENDED = "deeplabv3 train: error: another process has ended; its own message says why\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four training and three validation scenes: two steps an epoch, and unequal shares of the validation."""
    root = tmp_path_factory.mktemp("data") / "streets"
    write_streets(root, num_train=4, num_val=3, height=64, width=96, seed=1)
    return root


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three training and two validation scenes."""
    root = tmp_path_factory.mktemp("few") / "streets"
    write_streets(root, num_train=3, num_val=2, height=64, width=96, seed=1)
    return root


class Run:
    """A run's folder, and what became of the processes that worked on it."""

    def __init__(self, ranks, data, folder):
        self.ranks, self.data, self.folder, self.dir = ranks, data, folder, folder / "run"
        self.last = self.dir / "checkpoints" / "last.safetensors"

    def __call__(self, processes, *more, fault=None):
        words = ["train", str(self.data), str(self.dir), *TINY, "--report", "false", *map(str, more)]
        return self.ranks(processes, "command", self.folder, fault, words)

    def resume(self, processes, *more):
        ended = self(processes, "--resume", *more)
        assert ended["codes"] == [0] * processes, ended["err"]
        return ended

    def state(self):
        """All that it comes to, less what depends on the clock."""
        state = []
        for path in (self.last, self.last.with_name("best.safetensors")):
            checkpoint = read_checkpoint(path)
            position = checkpoint.record["position"]
            state.append((digest(checkpoint.tensors, ""), {**position, "history": timeless(position["history"])}))
        return state


@pytest.fixture
def run(ranks, data, tmp_path):
    return Run(ranks, data, tmp_path)


@pytest.fixture(scope="module")
def whole(ranks, data, tmp_path_factory):
    """A run that nothing interrupted, by so many processes."""

    @functools.cache
    def by(processes, *more, data=data):
        run = Run(ranks, data, tmp_path_factory.mktemp("whole"))
        ended = run(processes, *more)
        assert ended["codes"] == [0] * processes, ended["err"]
        return run

    return by


# E4: as many processes as there are, the same training.


# E3: one fails.


def fault(place, rank, which, action="kill"):
    return {"place": place, "rank": rank, "which": which, "action": action}


KILLS = [
    *[("forward", rank, step) for step in (1, 2, 3, 4) for rank in (0, 1)],
    *[("backward", rank, step) for step in (1, 2, 3, 4) for rank in (0, 1)],
    *[("update", rank, step) for step in (1, 2, 3, 4) for rank in (0, 1)],
    *[("save", rank, save) for save in (1, 2, 3, 4) for rank in (0, 1)],  # before and behind the validation of an epoch
    *[("evaluation", 0, frame) for frame in (1, 2, 3, 4)],  # the first has two frames in each epoch
    *[("evaluation", 1, frame) for frame in (1, 2)],
    *[("set up", rank, 1) for rank in (0, 1)],
    *[("end", rank, 1) for rank in (0, 1)],
    *[("read", rank, 1) for rank in (0, 1)],
]
EVERYDAY = {("forward", 0, 4), ("backward", 1, 3), ("save", 0, 2), ("evaluation", 1, 2)}


@pytest.mark.parametrize(
    ("place", "rank", "which"),
    [pytest.param(*kill, marks=[] if kill in EVERYDAY else pytest.mark.slow) for kill in KILLS],
)
def test_killed_process_ends_all_and_the_run_goes_on(run, whole, place, rank, which):
    ended = run(2, fault=fault(place, rank, which))
    assert ended["codes"][rank] == -signal.SIGKILL
    assert ended["codes"][1 - rank] == 1
    assert ended["seconds"] < 30
    assert ended["err"] == [ENDED if rank else "", ""]
    if run.last.exists():
        read_checkpoint(run.last)
    run(2, *(["--resume"] if (run.dir / "config.yaml").exists() else []))
    assert run.state() == whole(2).state()


@pytest.mark.parametrize("place", ["forward", "evaluation"])
@pytest.mark.parametrize("rank", [0, 1])
def test_short_memory_is_told_by_who_meets_it(run, place, rank):
    """It is met in the middle of a step, where the others are not asked."""
    ended = run(2, fault=fault(place, rank, 1, "memory"))
    assert ended["codes"] == ([2, 1] if rank == 0 else [1, 2])
    told, other = ended["err"][rank], ended["err"][1 - rank]
    what = "batch_size 2 with crops of 32x48; " if place == "forward" else "a validation of 1 whole frames at once; "
    assert told.startswith(f"deeplabv3 train: error: the memory of cpu is too small for {what}")
    assert told.count("\n") == 1
    assert other == (ENDED if rank else "")


@pytest.mark.parametrize("rank", [0, 1])
def test_defect_of_the_program_in_one_process(run, rank):
    """A traceback where it is, and an end everywhere."""
    ended = run(2, fault=fault("update", rank, 2, "defect"))
    assert ended["codes"] == [1, 1]
    assert ended["err"][rank].endswith("ValueError: a defect of the program\n")
    assert ended["err"][1 - rank] == (ENDED if rank else "")


@pytest.mark.parametrize("split", ["train", "val"])
def test_frame_that_breaks_for_one_process_ends_the_run_saved(run, whole, split):
    sample = find_samples(run.data, split)[1]  # of the validation, that of the second process
    ended = run(2, fault={**fault("frame", -1, 0, "none"), "broken": str(sample.image_path)})
    assert ended["codes"] == [2, 2], ended["err"]
    assert ended["err"][0].count("\n") == 1
    assert f"{sample.image_path.name} cannot be read" in ended["err"][0]
    assert "; the run is saved at epoch 1 of 2, batch" in ended["err"][0]
    assert ended["err"][1] == ""
    run.resume(2)
    assert run.state() == whole(2).state()


def test_failed_save_ends_all_with_one_message(run, whole):
    ended = run(2, fault=fault("save", 0, 3, "full"))
    assert ended["codes"] == [2, 2]
    assert f"{run.last} cannot be written: No space left on device" in ended["err"][0]
    assert [text.count("\n") for text in ended["err"]] == [1, 0]
    assert len(read_checkpoint(run.last).record["position"]["history"]) == 1
    run.resume(2)
    assert run.state() == whole(2).state()


def test_option_that_does_not_fit_is_told_once(run):
    ended = run(2, "--batch-size", "3")
    message = "batch_size is 3 and is split over 2 processes with accumulation 1; give a multiple of 2"
    assert ended["codes"] == [2, 2]
    assert ended["err"] == [f"deeplabv3 train: error: {message}\n", ""]
    assert not run.dir.exists()


# A5: signals.


@pytest.mark.parametrize(
    ("place", "rank", "which", "action", "where"),
    [
        ("forward", 0, 1, "interrupt", "epoch 1 of 2, batch 1 of 2"),
        ("update", 1, 3, "term", "epoch 2 of 2, batch 1 of 2"),
        ("evaluation", 1, 1, "term", "epoch 2 of 2, batch 0 of 2"),  # it waits for the end of the validation
    ],
)
def test_signal_to_one_process_stops_all_at_one_step(run, whole, place, rank, which, action, where):
    ended = run(2, fault=fault(place, rank, which, action))
    code = 143 if action == "term" else 130
    assert ended["codes"] == [code, code]
    assert f"stopped in {where}; saved in {run.last}; go on with the same command and --resume\n" in ended["err"][0]
    assert ended["err"][1] == ""
    run.resume(2)
    assert run.state() == whole(2).state()


def test_second_interrupt_ends_all(run):
    ended = run(2, fault=fault("forward", 1, 1, "interrupt twice"))
    assert ended["codes"] == [1, 130]


def test_three_processes_go_on_to_the_bit(run, whole, few):
    """Of three numbers, sums depend on the order; it must not depend on where a run began. One has no validation."""
    run.data, batch = few, ("--batch-size", "3")
    assert run(3, *batch, fault=fault("update", 2, 1, "term"))["codes"] == [143] * 3
    run.resume(3, *batch)
    assert run.state() == whole(3, *batch, data=few).state()


# E5: another number of processes.


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_run_goes_on_in_another_number_of_processes(run, whole, before, after):
    """Without dropout, which draws other masks, they differ in the last digits alone."""
    assert run(before, "--dropout", "0", fault=fault("update", 0, 3, "term"))["codes"] == [143] * before
    assert read_checkpoint(run.last).record["num_processes"] == before
    ended = run.resume(after, "--dropout", "0")
    saved = "1 process" if before == 1 else "2 processes"
    assert ended["err"][0].startswith(f"note: {run.last} was saved by {saved} and goes on in {after}: on the same")
    assert ended["err"][0].count("\n") == 1
    ours, theirs = (each.state()[0][1]["history"] for each in (run, whole(before, "--dropout", "0")))
    assert ours[0] == theirs[0]
    assert ours[1]["step"] == theirs[1]["step"] == 4
    assert ours[1]["train_loss"] == pytest.approx(theirs[1]["train_loss"], rel=1e-4)


# The whole of it, as torchrun starts it.


def torchrun(tmp_path, *words):
    command = torchrun_command(2)
    return subprocess.Popen(
        [*command, "-m", "tests.training.faults", str(tmp_path), "null", *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def codes(folder):
    return [int((folder / f"{rank}.code").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("torchrun")
    process = torchrun(folder, "train", data, folder / "run", *TINY)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    return folder, out, err


def test_torchrun_prints_and_writes_once(finished):
    folder, out, err = finished
    assert codes(folder) == [0, 0]
    assert err == ""
    first, second, *paths = out.splitlines()
    assert first.startswith("epoch 1/2: training loss")
    assert second.startswith("epoch 2/2: training loss")
    assert [line.partition(str(folder))[0] for line in paths] == [
        "best checkpoint ",
        "last checkpoint ",
        "losses ",
        "report ",
    ]
    names = {path.name for path in (folder / "run").iterdir()}
    assert names == {"config.yaml", "log.jsonl", "losses.csv", "losses.png", "checkpoints", "report"}
    assert {path.stem for path in (folder / "run" / "checkpoints").iterdir()} == {"best", "last", "epoch_2"}
    assert len((folder / "run" / "log.jsonl").read_text().splitlines()) == 2


def test_torchrun_scores_are_those_of_one_process(finished, data):
    folder, *_ = finished
    entry = json.loads((folder / "run" / "log.jsonl").read_text().splitlines()[-1])
    model, label_set = load_model(folder / "run" / "checkpoints" / "last.safetensors")
    scores = score_model(
        place(model, CPU),
        find_samples(data, "val"),
        label_set,
        inference=InferenceConfig(precision="float32"),
        with_loss=True,
    )
    assert entry["miou"] == scores.miou
    assert entry["val_loss"] == scores.loss


def test_torchrun_run_is_that_of_any_processes(finished, whole):
    state = read_checkpoint(finished[0] / "run" / "checkpoints" / "last.safetensors")
    assert digest(state.tensors, "") == whole(2).state()[0][0]


def test_sigterm_to_torchrun_stops_all_saved(run):
    """It sends what it receives to each process."""
    more = ("--phases", "[{epochs: 500, learning_rate: 0.05}]", "--report", "false")
    process = torchrun(run.folder, "train", run.data, run.dir, *TINY, *more)
    while not (run.dir / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert codes(run.folder) == [143, 143], err
    assert err.count("deeplabv3 train: ") == 1
    assert f"saved in {run.last}; go on with the same command and --resume" in err
    epochs = len((run.dir / "log.jsonl").read_text().splitlines())
    assert len(read_checkpoint(run.last).record["position"]["history"]) == epochs
