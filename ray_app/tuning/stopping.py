"""Who ends trials early: Ray Tune's schedulers, told of earlier trials; and the budget of all trials together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.tune import Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ray_app.tuning.search import Search
from ray_app.tuning.trials import Trial, Trials, result_of


class _InLastPhase:
    """Judges trials in their last phase alone, however cheap or slow the ones before are; never ends a planned one."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See `TrialScheduler`."""
        if not result["is_judged"]:
            return str(TrialScheduler.CONTINUE)
        decision = str(super().on_trial_result(tune_controller, trial, result))  # type: ignore[misc]
        return str(TrialScheduler.CONTINUE) if result["is_planned"] else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """See `TrialScheduler`: one that failed, or never came to its last phase, sets no mark for others."""
        if result.get("is_judged"):
            super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]


class _Halving(_InLastPhase, ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) on epochs that span the phases."""


class _HyperBand(_Halving):
    """Successive halving in several brackets, of which each begins a rung later: good starters are not all there is.

    Together with TPE this is the idea of BOHB (Falkner et al. 2018, arXiv 1807.01774), whose own package had its last
    release in 2018. A trial has its bracket by its number, so that a search that goes on is the one that was begun.
    """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """See `TrialScheduler`; the bracket is drawn here, as often as HyperBand has trials in it."""
        super().on_trial_add(tune_controller, trial)
        latest, rate = len(self._brackets) - 1, self._reduction_factor
        sizes = [(latest + 1) / (latest - late + 1) * rate ** (latest - late) for late in range(latest + 1)]
        rng = np.random.default_rng(trial.config["number"])
        self._trial_info[trial.trial_id] = self._brackets[rng.choice(latest + 1, p=np.array(sizes) / sum(sizes))]


class _Median(_InLastPhase, MedianStoppingRule):  # type: ignore[misc]
    """Ends what is behind the median of the others' means."""


class _Past:
    """Stands for a trial of an earlier session, of which a scheduler wants to know the name alone."""

    def __init__(self, number: int) -> None:
        self.trial_id, self.config = f"past_{number}", {"number": number}


def build_scheduler(search: Search, past: Sequence[Trial]) -> TrialScheduler:
    """The configured scheduler, which knows of the trials that are over what it would know had it seen them."""
    tune = search.tune
    judged_by = {"metric": "score", "mode": "max", "time_attr": "epochs", "grace_period": tune.grace_epochs}
    if tune.scheduler == "none" or tune.search == "pbt":
        return FIFOScheduler()
    if tune.scheduler == "median":
        # A trial that yields would begin anew: trials do not save themselves.
        scheduler = _Median(min_time_slice=math.inf, **judged_by)
    else:
        longest = max(search.space.max_epochs, tune.grace_epochs)
        rungs = 1 + int(math.log(longest / tune.grace_epochs, tune.reduction_factor) + 1e-9)
        kind, brackets = (_HyperBand, rungs) if tune.scheduler == "hyperband" else (_Halving, 1)
        scheduler = kind(
            max_t=longest,
            brackets=brackets,
            reduction_factor=tune.reduction_factor,
            # One that enters at a high rung is not entered into the lower ones afterwards.
            stop_last_trials=False,
            **judged_by,
        )
    for trial in past:
        tell_past(scheduler, search, trial)
    return scheduler


def tell_past(scheduler: TrialScheduler, search: Search, trial: Trial) -> None:
    """Replay the epochs of a trial that is over."""
    past, (_, schedule) = _Past(trial.number), search.space.resolve(trial.candidate)
    scheduler.on_trial_add(None, past)
    for number in range(1, len(trial.records) + 1):
        seen = trial.after(trial.records[:number], schedule, search.metric)
        scheduler.on_trial_result(None, past, result_of(seen, schedule, search.metric))


class Budget(Stopper):  # type: ignore[misc]
    """Ends the search when all trials together have trained `max_epochs`."""

    def __init__(self, trials: Trials, max_epochs: int) -> None:
        self._trials, self._max_epochs = trials, max_epochs

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in `tuner._Unpickled`

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial for its own sake."""
        return False

    def stop_all(self) -> bool:
        """See above."""
        return self._trials.spent() >= self._max_epochs
