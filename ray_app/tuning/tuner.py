"""Ray Tune around the trials: `build_tuner` makes a Tuner that anyone may `.fit()`; what comes out are the trials."""

from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune import Callback, TuneConfig, Tuner
from ray.tune.search import Searcher

from ray_app.tuning.distributed import run_distributed_trial
from ray_app.tuning.proposals import propose
from ray_app.tuning.room import Room
from ray_app.tuning.search import Search
from ray_app.tuning.stopping import Budget, build_scheduler
from ray_app.tuning.trials import Trial, Trials
from ray_app.tuning.worker import run_trial


class _Unpickled:
    """Ray Tune pickles what it is given beside its results; ours is in `Trials`, and knows the keys of the storage."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Proposals(_Unpickled, Searcher):  # type: ignore[misc]
    """Trials that an earlier session left open, then new ones, each written before it starts."""

    def __init__(self, search: Search, trials: Trials) -> None:
        super().__init__()
        self._search, self._trials = search, trials
        self._open = [trial.number for trial in trials.all() if trial.state == "open"]

    def next(self) -> Trial | None:
        """The next trial; None where the search is over."""
        if self._open:
            return self._trials.by_number[self._open[0]]
        tune, done = self._search.tune, self._trials.all()
        if len(done) >= tune.num_trials or (tune.max_epochs and self._trials.spent() >= tune.max_epochs):
            return None
        candidate = propose(self._search.space, tune, done)
        if candidate is None:
            return None
        key = self._search.space.key(candidate)
        values, is_planned = dict(candidate.values), candidate.is_planned
        return Trial(number=len(done), strategy=candidate.strategy, values=values, key=key, is_planned=is_planned)

    def _is_waiting(self) -> bool:
        is_open = any(trial.state == "open" for trial in self._trials.all())
        return self._search.tune.search == "pbt" and is_open

    def suggest(self, trial_id: str) -> dict[str, int] | str | None:
        """See `Searcher`: the trial's number; the rest stands in its file."""
        trial = self.next()
        if trial is None:
            # A population waits for parents, which are still trained.
            return None if self._is_waiting() else str(self.FINISHED)
        self._open = self._open[1:]
        self._trials.keep(trial)
        return {"number": trial.number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See `Searcher`: `Trials` knows already."""

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """See `Searcher`: nothing is left to be set."""
        return True

    def save(self, checkpoint_path: str) -> None:
        """See `Searcher`: nothing is left to be saved."""


class _Keeper(_Unpickled, Callback):  # type: ignore[misc]
    """Keeps what trials report, and tells of each that is over."""

    def __init__(self, trials: Trials, tell: Callable[[Trial], None]) -> None:
        self._trials, self._tell = trials, tell

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        """See `Callback`."""
        if "trial" in result:
            now = Trial.model_validate_json(result["trial"])
            if now.state == "failed":  # what it had done until then counts
                failure = {"state": now.state, "error": now.error, "score": None}
                now = self._trials.by_number[now.number].model_copy(update=failure)
            self._trials.update(now.model_copy(update={"seconds": result["time_total_s"]}))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`: also of a trial that was ended early."""
        now = self._trials.by_number[trial.config["number"]]
        self._over(now.model_copy(update={"state": "stopped"}) if now.state == "open" else now)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """See `Callback`: the process is lost, since a fault of the training is reported."""
        now = self._trials.by_number[trial.config["number"]]
        reason = "the process of the trial was lost, perhaps for want of memory"
        self._over(now.model_copy(update={"state": "failed", "error": reason, "score": None}))

    def _over(self, trial: Trial) -> None:
        self._trials.keep(trial)
        self._tell(trial)


def is_over(search: Search, trials: Trials) -> bool:
    """Whether nothing is left to be tried."""
    return Proposals(search, trials).next() is None


def build_tuner(search: Search, trials: Trials, room: Room, folder: str, tell: Callable[[Trial], None]) -> Tuner:
    """A tuner that goes on with `search`, and updates `trials`.

    Args:
        search: what to search.
        trials: those of `search` until now.
        room: what a trial takes of the cluster.
        folder: for Ray Tune's own files, of which nothing is needed afterwards.
        tell: called with each trial that is over.
    """
    budget, train = search.tune, search.config.train
    is_packed = train.num_workers == 1
    trainable = tune.with_parameters(run_trial if is_packed else run_distributed_trial, search=search)
    return Tuner(
        tune.with_resources(trainable, room.resources),
        tune_config=TuneConfig(
            search_alg=Proposals(search, trials),
            scheduler=build_scheduler(search, trials.over()),
            num_samples=-1,
            max_concurrent_trials=room.at_once,
            time_budget_s=budget.time_budget_s,
            reuse_actors=is_packed,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name=search.key,
            storage_path=folder,
            callbacks=[_Keeper(trials, tell)],
            stop=Budget(trials, budget.max_epochs) if budget.max_epochs else None,
            failure_config=tune.FailureConfig(max_failures=train.max_failures),
            verbose=0,
        ),
    )
