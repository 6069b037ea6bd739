"""DeepLab V3 for street scenes: train it, score it by the official rules, look at what it sees.

    import deeplabv3

    history = deeplabv3.train(deeplabv3.TrainConfig(data_dir=Path("cityscapes"), run_dir=Path("runs/first")))
    model = deeplabv3.load("runs/first/checkpoints/best.safetensors")  # or "cityscapes-r101", or another project's file
    prediction = model.predict("street.jpg")  # prediction.train_ids: uint8 (H, W)
    prediction.save("pictures", "street")

The names below are loaded when they are first used, so that `import deeplabv3` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeplabv3.config import EvaluateConfig as EvaluateConfig
    from deeplabv3.config import ExportConfig as ExportConfig
    from deeplabv3.config import ImportConfig as ImportConfig
    from deeplabv3.config import InferenceConfig as InferenceConfig
    from deeplabv3.config import LossConfig as LossConfig
    from deeplabv3.config import ModelConfig as ModelConfig
    from deeplabv3.config import Phase as Phase
    from deeplabv3.config import PredictConfig as PredictConfig
    from deeplabv3.config import ReportConfig as ReportConfig
    from deeplabv3.config import SubmitConfig as SubmitConfig
    from deeplabv3.config import TrainConfig as TrainConfig
    from deeplabv3.data.images import read_image as read_image
    from deeplabv3.data.labels import CITYSCAPES as CITYSCAPES
    from deeplabv3.data.labels import IGNORE_INDEX as IGNORE_INDEX
    from deeplabv3.data.labels import LabelSet as LabelSet
    from deeplabv3.data.labels import read_label_set as read_label_set
    from deeplabv3.data.streets import write_streets as write_streets
    from deeplabv3.deployment.export import export as export
    from deeplabv3.errors import CheckpointError as CheckpointError
    from deeplabv3.errors import DatasetError as DatasetError
    from deeplabv3.errors import DeepLabError as DeepLabError
    from deeplabv3.errors import DeviceMemoryError as DeviceMemoryError
    from deeplabv3.errors import InputError as InputError
    from deeplabv3.errors import NonFiniteError as NonFiniteError
    from deeplabv3.errors import OutputError as OutputError
    from deeplabv3.errors import ProcessError as ProcessError
    from deeplabv3.evaluation.evaluate import evaluate as evaluate
    from deeplabv3.evaluation.scores import Scores as Scores
    from deeplabv3.evaluation.submission import check_submission as check_submission
    from deeplabv3.evaluation.submission import submit as submit
    from deeplabv3.model.load import load_model as load_model
    from deeplabv3.prediction.predictor import predict as predict
    from deeplabv3.prediction.predictor import predict_image as predict_image
    from deeplabv3.prediction.segmenter import DeepLabV3 as DeepLabV3
    from deeplabv3.prediction.segmenter import Exported as Exported
    from deeplabv3.prediction.segmenter import Prediction as Prediction
    from deeplabv3.prediction.segmenter import load as load
    from deeplabv3.report.writing import write_report as write_report
    from deeplabv3.training.loop import train as train
    from deeplabv3.training.stopping import Stopped as Stopped

__version__ = "0.1.0"

_ROOMS = {
    "CITYSCAPES": "data.labels",
    "CheckpointError": "errors",
    "DatasetError": "errors",
    "DeepLabError": "errors",
    "DeepLabV3": "prediction.segmenter",
    "DeviceMemoryError": "errors",
    "EvaluateConfig": "config",
    "ExportConfig": "config",
    "Exported": "prediction.segmenter",
    "IGNORE_INDEX": "data.labels",
    "ImportConfig": "config",
    "InferenceConfig": "config",
    "InputError": "errors",
    "LabelSet": "data.labels",
    "LossConfig": "config",
    "ModelConfig": "config",
    "NonFiniteError": "errors",
    "OutputError": "errors",
    "Phase": "config",
    "PredictConfig": "config",
    "Prediction": "prediction.segmenter",
    "ProcessError": "errors",
    "ReportConfig": "config",
    "Scores": "evaluation.scores",
    "Stopped": "training.stopping",
    "SubmitConfig": "config",
    "TrainConfig": "config",
    "check_submission": "evaluation.submission",
    "evaluate": "evaluation.evaluate",
    "export": "deployment.export",
    "load": "prediction.segmenter",
    "load_model": "model.load",
    "predict": "prediction.predictor",
    "predict_image": "prediction.predictor",
    "read_image": "data.images",
    "read_label_set": "data.labels",
    "submit": "evaluation.submission",
    "train": "training.loop",
    "write_report": "report.writing",
    "write_streets": "data.streets",
}

__all__ = list(_ROOMS)


def __getattr__(name: str) -> Any:
    """Load a public name from its room."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'deeplabv3' has no attribute {name!r}")
    return getattr(import_module(f"deeplabv3.{_ROOMS[name]}"), name)
