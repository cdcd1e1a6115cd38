"""The running average of the weights: what is validated, kept and handed on."""

from pathlib import Path

import pytest
import torch
from regression import EVERYTHING, TWO_PHASES, Regression, schedule, weights
from torch import Tensor, nn

from ray_app.schedule import Phase
from ray_app.training.average import Average
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.snapshot import Snapshot
from ray_app.training.world import World

AVERAGED = TWO_PHASES.model_copy(update={"ema": 0.6})


def test_average_is_the_one_worked_out_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = Average(model, 0.25)
    for value in (2.0, 3.0, 5.0):
        model.weight.data.fill_(value)
        average.update()
    first = 2 / 11 * 1.0 + 9 / 11 * 2.0
    second = 3 / 12 * first + 9 / 12 * 3.0
    third = 0.25 * second + 0.75 * 5.0  # 4 / 13 is more than the decay
    assert average.values["weight"].item() == pytest.approx(third)
    with average.applied():
        assert model.weight.item() == pytest.approx(third)
    assert model.weight.item() == 5.0
    average.settle()
    assert model.weight.item() == pytest.approx(third)


def test_training_goes_on_from_the_weights_and_ends_with_their_average() -> None:
    seen: dict[float | None, list[dict[str, Tensor]]] = {}

    def trained(ema: float | None) -> dict[str, Tensor]:
        task = Regression()
        kept = seen.setdefault(ema, [])
        phase = Phase(name="full", epochs=2, learning_rate=0.05, groups=EVERYTHING)
        fit(task, schedule(phase, ema=ema), LoopSettings(checkpoint_every_steps=1), World.current(),
            lambda _, now: kept.append({name: value.clone() for name, value in now.model.items()}))  # fmt: skip
        return weights(task)

    raw, averaged = trained(None), trained(0.5)
    # Reported after each step; at the end of the phase the average has taken the place of the weights.
    steps = [now["head.weight"] for now in seen[None]]
    assert all(torch.equal(mine["head.weight"], one) for mine, one in zip(seen[0.5][:-1], steps, strict=False))
    expected = Regression().model.state_dict()["head.weight"].clone()
    for step, value in enumerate(steps, start=1):
        expected.lerp_(value, 1 - min(0.5, (1 + step) / (10 + step)))
    assert torch.equal(averaged["head.weight"], expected)
    assert not torch.equal(averaged["head.weight"], raw["head.weight"])


def test_what_is_validated_and_best_is_the_average() -> None:
    task = Regression()
    seen: list[dict[str, Tensor]] = []
    values = iter([-1.0, -2.0, -3.0])

    def validate() -> dict[str, tuple[float, float]]:
        seen.append(weights(task))
        return {"r": (next(values), 1.0)}

    task.validate = validate  # type: ignore[method-assign]
    averages: list[dict[str, Tensor]] = []
    phase = Phase(name="full", epochs=9, groups=EVERYTHING, patience=2)
    fit(task, schedule(phase, ema=0.9), LoopSettings(checkpoint_every_steps=1), World.current(),
        lambda _, now: averages.append({name: value.clone() for name, value in now.average.items()}))  # fmt: skip
    assert torch.equal(seen[0]["head.weight"], averages[5]["head.weight"])
    assert torch.equal(task.model.state_dict()["head.weight"], seen[0]["head.weight"])


def test_statistics_of_norm_layers_are_those_of_the_weights() -> None:
    def statistics(ema: float | None) -> Tensor:
        task = Regression()
        task.model.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))  # type: ignore[assignment]
        torch.nn.init.ones_(task.model.backbone[0].weight)
        fit(task, schedule(Phase(name="full", epochs=2), ema=ema), LoopSettings(), World.current(), lambda *_: None)
        return weights(task)["backbone.1.running_mean"]

    torch.manual_seed(0)
    with_average = statistics(0.9)
    torch.manual_seed(0)
    assert torch.equal(with_average, statistics(None))


@pytest.mark.parametrize("more", [{}, {"wise": (0.0, 0.5)}])
def test_resume_anywhere_gives_the_same_average(tmp_path: Path, more: dict[str, object]) -> None:
    saved: list[Path] = []

    def save(_: object, snapshot: Snapshot) -> None:
        saved.append(tmp_path / str(len(saved)))
        saved[-1].mkdir()
        snapshot.save(saved[-1])

    settings, toolbox = LoopSettings(seed=3, checkpoint_every_steps=4), AVERAGED.model_copy(update=more)
    whole = Regression(pretrained=True)
    progress = fit(whole, toolbox, settings, World.current(), save)
    assert len(saved) == 10
    for folder in saved:
        resumed = Regression(pretrained=True)
        again = fit(resumed, toolbox, settings, World.current(), lambda *_: None, Snapshot.load(folder))
        for name, value in weights(whole).items():
            assert torch.equal(value, weights(resumed)[name]), (folder.name, name)
        assert [record["phase"] for record in again.records] == [record["phase"] for record in progress.records]
