"""A run through torch's compiler, which takes minutes."""

import shutil
from dataclasses import replace

import pytest

from deeplabv3.config import Phase
from deeplabv3.training.loop import train

PHASES = (
    Phase(steps=3, learning_rate=0.05),
    Phase(steps=1, learning_rate=0.01, output_stride=8, frozen_batch_norm=True),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_run_has_the_same_losses(train_config, tmp_path, recompute):
    """In both phases, although dropout, which draws other numbers there, is left out."""
    model = replace(train_config.model, dropout=0.0, auxiliary_channels=4)
    config = replace(train_config, model=model, phases=PHASES, eval_interval=2)
    plain = train(config)
    compiled = train(replace(config, run_dir=tmp_path / "compiled", compile=True, recompute=recompute))
    for name in ("train_loss", "val_loss"):
        assert compiled[-1][name] == pytest.approx(plain[-1][name], rel=1e-4)
    assert compiled[0]["train_loss"] == pytest.approx(plain[0]["train_loss"], rel=1e-4)
