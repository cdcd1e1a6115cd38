"""How rates and momentum move over a phase."""

from pathlib import Path

import pytest
import torch
from regression import Regression, schedule
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from ray_app.schedule import Phase
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.pace import momentum, rate_factor
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World


def test_rate_rises_over_the_warm_up_and_falls_with_the_cosine() -> None:
    phase = Phase(name="x", epochs=1, warmup=0.5, decay="cosine")
    expected = [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
    assert [round(rate_factor(phase, step, 8), 3) for step in range(8)] == expected


@pytest.mark.parametrize("warmup", [None, 0.1, 0.5])
def test_one_cycle_is_that_of_torch(warmup: float | None) -> None:
    phase = Phase(name="x", epochs=1, decay="one_cycle", warmup=warmup, optimizer="sgd")
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), momentum=0.9)
    theirs = OneCycleLR(optimizer, max_lr=1.0, total_steps=40, pct_start=0.3 if warmup is None else warmup)
    for step in range(40):
        assert rate_factor(phase, step, 40) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        assert momentum(phase, step, 40) == pytest.approx(optimizer.param_groups[0]["momentum"], rel=1e-9)
        optimizer.step()
        if step < 39:
            theirs.step()
    assert rate_factor(phase.model_copy(update={"warmup": 0.0}), 0, 40) == 1.0
    assert momentum(phase.model_copy(update={"optimizer": "adamw"}), 0, 40) is None


def test_the_rate_is_halved_on_a_plateau(tmp_path: Path) -> None:
    """Half of patience without a better metric, again after as long; a better one gives it time."""

    def rates(start: Snapshot | None = None, from_epoch: int = 0) -> list[float | str]:
        task = Regression()
        values = iter([1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 9.0][from_epoch:])
        task.validate = lambda: {"r": (next(values), 1.0)}  # type: ignore[method-assign]
        phase = Phase(name="full", epochs=50, learning_rate=0.1, decay="plateau", patience=4)
        progress = fit(task, schedule(phase), LoopSettings(), World.current(), keep, start)
        return [record["train/learning_rate"] for record in progress.records]

    def keep(record: dict[str, float | str], snapshot: Snapshot) -> None:
        if record["epoch"] == 6:
            snapshot.save(tmp_path)

    whole = rates()
    assert whole == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025])
    assert rates(Snapshot.load(tmp_path), 6) == whole
    with pytest.raises(ValueError, match="plateau goes by patience"):
        Phase(name="full", epochs=5, decay="plateau")
