"""The sweep of learning rates: what it suggests, and that it leaves no trace."""

import pytest
import torch
from regression import EVERYTHING, HEAD_ONLY, Regression, losses, schedule, weights

from ray_app.errors import TrainingError
from ray_app.schedule import ParamGroup, Phase
from ray_app.training.loop import LoopSettings, fit
from ray_app.training.rate_finder import DIVERGED, Sweep, sweep_rates
from ray_app.training.world import World

FULL = Phase(name="full", epochs=5, learning_rate=0.3, groups=EVERYTHING)


def test_suggestions_are_those_of_a_known_curve() -> None:
    rates = [10.0**power for power in range(-6, 1)]
    sweep = Sweep(rates, [8.0, 8.0, 7.0, 3.0, 2.0, 1.0, 5.0])
    assert sweep.lowest == pytest.approx(1e-2)
    assert sweep.steepest == pytest.approx(1e-4)  # from 8 to 3 around it; the rise at the end is none
    assert Sweep([1e-6, 1e-5], [1.0, 2.0]).steepest == 1e-6


def test_the_suggested_rate_learns_and_the_sweep_leaves_no_trace() -> None:
    task = Regression(pretrained=True, dropout=0.0)
    before = weights(task)
    sweep = sweep_rates(task, FULL.model_copy(update={"groups": HEAD_ONLY}), LoopSettings(), World.current())
    assert all(torch.equal(value, weights(task)[name]) for name, value in before.items())
    assert all(parameter.requires_grad for parameter in task.model.parameters())
    assert sweep.rates == sorted(sweep.rates)
    assert sweep.losses[-1] <= DIVERGED * min(sweep.losses)

    sweep = sweep_rates(task, FULL, LoopSettings(), World.current())
    assert 1e-2 < sweep.lowest <= 0.1
    assert 1e-2 < sweep.steepest <= 1.0
    phase = FULL.model_copy(update={"learning_rate": sweep.steepest})
    found = losses(fit(task, schedule(phase), LoopSettings(), World.current(), lambda *_: None))
    assert found[-1] < found[0] / 2


def test_rates_of_groups_keep_their_proportion() -> None:
    """A frozen backbone stays so at any rate: its losses are those of the head alone."""
    frozen = (ParamGroup(match="^backbone", rate="frozen"), *EVERYTHING)
    slow = (ParamGroup(match="^backbone", rate=1e-12), *EVERYTHING)
    one, other = (
        sweep_rates(Regression(dropout=0.0), phase, LoopSettings(), World.current(), clip_norm=None)
        for phase in (FULL.model_copy(update={"groups": groups}) for groups in (frozen, slow))
    )
    assert one.losses == pytest.approx(other.losses, rel=1e-4)


def test_a_loss_that_is_never_finite_is_told() -> None:
    task = Regression()
    task.poison_at = 0
    with pytest.raises(TrainingError, match=r"phase 'full': the loss is not finite at the first step"):
        sweep_rates(task, FULL, LoopSettings(), World.current())
