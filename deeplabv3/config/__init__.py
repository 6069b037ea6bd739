"""Every option of every command, as frozen dataclasses: the one source of flags, help, defaults, checks and records.

The command line is made from these classes (`cli.py`), a run's `config.yaml` and a checkpoint's record are written
from them by `records.py`.
"""

from deeplabv3.config.checking import CheckConfig
from deeplabv3.config.demonstration import DemoConfig, StreetsConfig
from deeplabv3.config.inference import (
    EvaluateConfig,
    InferenceConfig,
    PredictConfig,
    ReportConfig,
    SubmitConfig,
)
from deeplabv3.config.model import BACKBONES, NUM_BLOCKS, ModelConfig
from deeplabv3.config.training import ORIGINAL_PHASES, Phase, TrainConfig

__all__ = [
    "BACKBONES",
    "NUM_BLOCKS",
    "ORIGINAL_PHASES",
    "CheckConfig",
    "DemoConfig",
    "EvaluateConfig",
    "InferenceConfig",
    "ModelConfig",
    "Phase",
    "PredictConfig",
    "ReportConfig",
    "StreetsConfig",
    "SubmitConfig",
    "TrainConfig",
]
