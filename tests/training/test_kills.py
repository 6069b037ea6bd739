"""A run that is killed or stopped at any moment goes on in another process as if nothing had happened."""

import json
import random
import re
import shutil
import signal

import pytest

from deeplabv3.config import TrainConfig
from deeplabv3.model.checkpoint import digest, read_checkpoint
from deeplabv3.training.state import RunPaths
from tests.training.conftest import final_state, timeless

EVERYTHING = """
backbone: resnet18
width: 16
aspp_channels: 8
auxiliary_channels: 8
dropout: 0.1
backbone_weights: none
phases: [{epochs: 2, learning_rate: 0.05}, {epochs: 1, learning_rate: 0.01, frozen_batch_norm: true}]
batch_size: 2
accumulation: 2
crop_size: [32, 48]
photometric_distortion: true
precision: float16
average_decay: 0.9
save_checkpoint_index: 2
device: cpu
"""
"""Three epochs of three steps with everything that a checkpoint holds: the scale, the average, momentum, statistics."""

DURING = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130,)}
"""Exit codes; SIGTERM ends a process that is not training as it ends any other, and shells call that 143 too."""

STOPPED = re.compile(r"stopped in epoch (\d) of 3, batch (\d) of 3; saved in ")
"""What is said of a run that was saved because of a signal."""


class Run:
    """A run's folder and the processes that work on it, one after the other; the seconds are those of a whole run."""

    def __init__(self, ranks, data, folder, page):
        self.ranks, self.folder, self.page, self.seconds = ranks, folder, page, 0.0
        folder.mkdir()
        (folder / "all.yaml").write_text(f"{EVERYTHING}report: {page}\n")
        self.config = TrainConfig(data_dir=data, run_dir=folder / "run")
        self.paths = RunPaths(self.config, steps_per_epoch=3)

    def go_on(self, num_workers=0, signal_after=None):
        """Train on from what there is, perhaps not to the end; how that ended."""
        words = ["train", str(self.config.data_dir), str(self.config.run_dir)]
        words += ["--config", str(self.folder / "all.yaml"), "--num-workers", str(num_workers)]
        if self.paths.config.exists():
            words.append("--resume")
        return self.ranks(1, "command", self.folder, None, words, signal_after=signal_after)

    def left(self):
        """All that the finished run leaves behind, less what depends on the clock."""
        log = [json.loads(line) for line in self.paths.log.read_text().splitlines()]
        kept = [digest(read_checkpoint(self.paths.kept(epoch)).tensors, "") for epoch in (2, 3)]
        options = self.paths.config.read_text().splitlines()[1:]  # the first line has the folder's name
        return final_state(self.config), timeless(log), kept, options, self.paths.losses.read_text()

    def names(self):
        """Its files, hidden ones too."""
        return sorted(str(path.relative_to(self.folder)) for path in self.config.run_dir.rglob("*"))


@pytest.fixture(scope="module")
def whole(ranks, streets, tmp_path_factory, request):
    """A run that nothing interrupted; a page at its end takes as long as all training before."""
    run = Run(ranks, streets, tmp_path_factory.mktemp("whole") / "run", page=request.param)
    ended = run.go_on()
    assert ended["codes"] == [0], ended["err"]
    run.seconds = ended["seconds"]
    return run


def survives(ranks, whole, folder, seed, number, most, stops):
    """Interrupt a run up to `most` times at random moments and finish it; how often it was interrupted.

    What was saved because of a signal is noted in `stops`.
    """
    chance = random.Random(seed)
    run = Run(ranks, whole.config.data_dir, folder, whole.page)
    interrupted = 0
    while interrupted < most:
        moment = chance.uniform(0, whole.seconds)
        ended = run.go_on(chance.choice([0, 0, 1, 2]), (moment, number))
        assert ended["seconds"] < moment + 30, ended
        if ended["codes"] == [0]:  # it was done before: the machine may have less to do than when it was measured
            whole.seconds = min(whole.seconds, ended["seconds"]) if not interrupted else whole.seconds
            break
        assert ended["codes"][0] in DURING[number], ended
        interrupted += 1
        saved = STOPPED.search(ended["err"][0])
        assert bool(saved) == (ended["codes"] == [143]) or number == signal.SIGINT
        if saved:
            stops.append(number)
            position = read_checkpoint(run.paths.last).record["position"]
            assert (position["epoch"] + 1, position["batch"]) == (int(saved[1]), int(saved[2]))
        printed = re.findall(r"^epoch (\d)/3: ", ended["out"][0], re.MULTILINE)  # an epoch that is saved
        assert not printed or read_checkpoint(run.paths.last).record["position"]["epoch"] >= int(printed[-1])
    ended = run.go_on()
    assert ended["codes"] == [0], ended["err"]
    assert run.left() == whole.left(), f"seed {seed}"
    assert run.names() == whole.names()
    shutil.rmtree(folder)
    return interrupted


def interrupt(ranks, whole, folder, number, times):
    """So many interruptions, ten to a run at most."""
    count, seed = 0, 0
    stops: list[int] = []
    saved = 0 if number == signal.SIGKILL else -(-times // 5)  # the others come before or after training
    while count < times or len(stops) < saved:
        count += survives(ranks, whole, folder / str(seed), seed, number, min(10, max(1, times - count)), stops)
        seed += 1
        assert seed <= 3 * times, f"{count} came before the run was done, and {len(stops)} saved it"
    print(f"{count} interruptions, {len(stops)} of them saved")


@pytest.mark.parametrize("whole", ["false"], indirect=True)
@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 20), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_interrupted_run_is_uninterrupted(ranks, whole, tmp_path, number, times):
    interrupt(ranks, whole, tmp_path, number, times)


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["true"], indirect=True)
@pytest.mark.parametrize(("number", "times"), [(signal.SIGKILL, 300), (signal.SIGTERM, 50), (signal.SIGINT, 50)])
def test_often_interrupted_run_is_uninterrupted(ranks, whole, tmp_path, number, times):
    interrupt(ranks, whole, tmp_path, number, times)
