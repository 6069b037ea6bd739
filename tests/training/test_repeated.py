"""The same seed is the same run, today and after a refactoring."""

import os
from dataclasses import replace

import numpy as np
import PIL
import pytest
import torch

from deeplabv3.config import Phase
from deeplabv3.data import loading
from deeplabv3.data.cityscapes import find_samples
from deeplabv3.data.frames import read_sample
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.data.loading import train_batches
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.training.loop import train
from deeplabv3.training.schedule import learning_rate
from deeplabv3.training.step import train_step
from tests.conftest import GOLDEN_DIR, PHASES, make_config
from tests.training.conftest import final_state, learner_of, undivided


def golden_run(streets, folder, dtype):
    """Losses of a hundred steps."""
    # Resizing may differ by 1 in 255 elsewhere.
    config = replace(make_config(streets, folder), scale_range=(1.0, 1.0))
    torch.manual_seed(0)
    model = DeepLabV3(replace(config.model, dropout=0.0)).to(dtype).train()
    generator = np.random.default_rng(0)
    with torch.no_grad():  # initial values that no release of torch can change
        for parameter in model.parameters():
            if parameter.ndim == 4:
                scale = (2 / parameter[0].numel()) ** 0.5
                parameter.copy_(torch.from_numpy(generator.standard_normal(parameter.shape) * scale))
    learner = learner_of(model, config)
    losses = []
    for step, batch in enumerate(train_batches(find_samples(streets, "train"), CITYSCAPES, config, range(50))):
        rate = learning_rate(step, PHASES, 2) or 0.005
        losses.append(train_step(learner, undivided(batch), rate, step, config).value())
    return losses


@pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="Pillow 12 draws a sky that differs by 2 in 255"
)
@pytest.mark.parametrize(("dtype", "tolerances"), [(torch.float64, {20: 1e-12, 100: 1e-9}), (torch.float32, {4: 1e-4})])
def test_golden_losses(streets, tmp_path, dtype, tolerances):
    """A refactoring moves no digit.

    They are of an AMD EPYC. Another kind of processor rounds otherwise, and each step enlarges that: an Intel Xeon
    differs by 1e-13 in 20 steps of float64 and by 2e-11 in 100, by 7e-7 in 4 of float32 and 6e-3 in 20.
    """
    losses = golden_run(streets, tmp_path, dtype)
    path = GOLDEN_DIR / f"losses_{str(dtype).removeprefix('torch.')}.txt"
    if os.environ.get("GOLDEN_ACCEPT"):
        path.write_text("".join(f"{step} {loss!r}\n" for step, loss in enumerate(losses)))
    expected = np.loadtxt(path)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    for steps, tolerance in tolerances.items():
        np.testing.assert_allclose(losses[:steps], expected[:steps, 1], rtol=tolerance, atol=0)


@pytest.mark.slow
def test_two_hundred_steps_are_the_same_twice(train_config, tmp_path):
    phases = (Phase(steps=200, learning_rate=0.01),)
    config = replace(train_config, phases=phases, eval_interval=50, save_checkpoint_index=50, average_decay=0.9)
    runs = [replace(config, run_dir=tmp_path / name, num_workers=workers) for name, workers in (("a", 0), ("b", 2))]
    for run in runs:
        train(run)
    assert final_state(runs[0]) == final_state(runs[1])


def test_step_90_000_is_reached_without_what_was_before(streets, train_config, monkeypatch):
    """Of 2,975 frames, with 8 a step: only the frames of that step are read for it."""
    read = []

    def noted(sample, *arguments):
        read.append(sample.name)
        return read_sample(sample, *arguments)

    monkeypatch.setattr(loading, "read_sample", noted)
    samples = [replace(sample, name=f"{copy}_{sample.name}") for copy in range(496) for sample in find(streets)][:2975]
    config = replace(train_config, batch_size=8)
    epoch, first = divmod(90_000, 2975 // 8)
    late = next(train_batches(samples, CITYSCAPES, config, range(epoch, 400), first))
    assert sorted(read) == sorted(late.names)
    every = train_batches(samples, CITYSCAPES, config, range(epoch, epoch + 1))
    assert [next(every).names for _ in range(first + 1)][-1] == late.names


def find(streets):
    return find_samples(streets, "train")
