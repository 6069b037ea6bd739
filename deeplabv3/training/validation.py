"""How good a run is: its network as it stands, and the moving average of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deeplabv3.config import InferenceConfig, TrainConfig
from deeplabv3.data.cityscapes import Sample
from deeplabv3.data.labels import LabelSet
from deeplabv3.evaluation.evaluate import score_model
from deeplabv3.evaluation.scores import Scores
from deeplabv3.training.endings import telling_of_memory, too_large_to_validate
from deeplabv3.training.learner import Learner


@dataclass(frozen=True)
class Validation:
    """What a validation came to.

    Attributes:
        scores: Of the network that checkpoints are used with: the average, if the run keeps one.
        unaveraged_miou: 0..1, of the weights themselves; NaN where no class occurs; None where there is no average.
    """

    scores: Scores
    unaveraged_miou: float | None

    @property
    def miou(self) -> float:
        """What runs are compared by, 0..1."""
        return self.scores.miou


def validate(learner: Learner, samples: Sequence[Sample], label_set: LabelSet, config: TrainConfig) -> Validation:
    """Score what a run has learnt on its validation frames. Its network is in evaluation mode afterwards.

    Raises:
        DatasetError: A frame cannot be read.
        DeviceMemoryError: Memory ran out.
    """
    with telling_of_memory(lambda: too_large_to_validate(config, learner.device)):
        scores = [
            score_model(
                model.eval(),
                samples,
                label_set,
                inference=InferenceConfig(precision=config.precision),
                batch_size=config.eval_batch_size,
                num_workers=config.num_workers,
                timeout_seconds=config.worker_timeout_seconds,
                with_loss=True,
            )
            for model in (learner.average, learner.model)
            if model is not None
        ]
    return Validation(scores[0], scores[1].miou if len(scores) > 1 else None)
