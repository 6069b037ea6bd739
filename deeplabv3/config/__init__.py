"""Every option of every command, as frozen dataclasses: the one source of flags, help, defaults, checks and records.

The command line is made from these classes (`cli.py`), a run's `config.yaml` and a checkpoint's record are written
from them by `records.py`.
"""

from deeplabv3.config.checking import CheckConfig
from deeplabv3.config.demonstration import DemoConfig, StreetsConfig
from deeplabv3.config.export import EXPORT_SUFFIXES, ExportConfig
from deeplabv3.config.inference import (
    EvaluateConfig,
    ImportConfig,
    InferenceConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
    SubmitConfig,
)
from deeplabv3.config.losses import LossConfig
from deeplabv3.config.model import BACKBONES, CONVS_OF_BLOCK, NUM_BLOCKS, RESNETS, ModelConfig
from deeplabv3.config.packing import PackConfig, UnpackConfig
from deeplabv3.config.serving import ServeConfig
from deeplabv3.config.training import ORIGINAL_PHASES, Phase, TrainConfig

__all__ = [
    "BACKBONES",
    "CONVS_OF_BLOCK",
    "EXPORT_SUFFIXES",
    "NUM_BLOCKS",
    "ORIGINAL_PHASES",
    "RESNETS",
    "CheckConfig",
    "DemoConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ImportConfig",
    "InferenceConfig",
    "LossConfig",
    "ModelConfig",
    "ModelsConfig",
    "PackConfig",
    "Phase",
    "PredictConfig",
    "ReportConfig",
    "ServeConfig",
    "StreetsConfig",
    "SubmitConfig",
    "TrainConfig",
    "UnpackConfig",
]
