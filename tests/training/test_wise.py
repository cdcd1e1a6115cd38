"""How far from the pretrained weights a run should end: validation says."""

import pytest
import torch
from regression import EVERYTHING, Regression, schedule, weights
from torch import Tensor

from ray_app.errors import TrainingError
from ray_app.schedule import Phase
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Progress
from ray_app.training.world import World

ALPHAS = (0.25, 0.5)


def tuned(task: Regression, wise: tuple[float, ...] = ALPHAS) -> Progress:
    phase = Phase(name="full", epochs=8, learning_rate=0.02, groups=EVERYTHING)
    return fit(task, schedule(phase, wise=wise), LoopSettings(), World.current(), lambda *_: None)


def assert_between(task: Regression, trained: dict[str, Tensor], alpha: float) -> None:
    found = weights(task)
    for name, origin in task.reference.items():
        torch.testing.assert_close(found[name], (1 - alpha) * origin + alpha * trained[name])
    assert torch.equal(found["head.weight"], trained["head.weight"])


def test_the_trained_weights_stay_where_they_are_best() -> None:
    plain, task = Regression(pretrained=True, dropout=0.0), Regression(pretrained=True, dropout=0.0)
    tuned(plain, ())
    progress = tuned(task)
    assert progress.records[-1]["phase"] == "wise"
    assert progress.records[-1]["alpha"] == 1.0
    assert all(torch.equal(value, weights(plain)[name]) for name, value in weights(task).items())
    assert progress.records[-1]["val/r"] == progress.records[-2]["val/r"]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_validation_may_prefer_to_go_back(alpha: float) -> None:
    """It asks for a backbone at a known point between where it began and where it came to."""
    plain, task = Regression(pretrained=True, dropout=0.0), Regression(pretrained=True, dropout=0.0)
    tuned(plain, ())
    trained = weights(plain)
    start = task.reference["backbone.weight"]
    wanted = start + alpha * (trained["backbone.weight"] - start)

    def validate() -> dict[str, tuple[float, float]]:
        return {"r": (-(task.model.backbone.weight - wanted).square().sum().item(), 1.0)}

    task.validate = validate  # type: ignore[method-assign]
    progress = tuned(task)
    assert progress.records[-1]["alpha"] == alpha
    assert_between(task, trained, alpha)
    assert progress.best == progress.records[-1]["val/r"]


def test_there_must_be_somewhere_to_go_back_to() -> None:
    with pytest.raises(TrainingError, match=r"schedule\.wise goes back toward pretrained weights"):
        tuned(Regression())
    task = Regression(pretrained=True)
    task.validate = lambda: {"r": (0.0, 0.0)}  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"how far schedule\.wise should go"):
        tuned(task)
    with pytest.raises(ValueError, match="'wise' is the name of a record"):
        schedule(Phase(name="wise", epochs=1))
