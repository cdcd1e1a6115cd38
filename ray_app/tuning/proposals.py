"""What to try next, given what was tried: a function of the trials before and a seed, so that it needs no state."""

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ray_app.errors import ConfigError, UserError
from ray_app.tune_config import Distribution, Strategy, TuneConfig, Value
from ray_app.tuning.population import born
from ray_app.tuning.space import Candidate, Space
from ray_app.tuning.trials import Trial, best_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna import Trial as Asked
    from optuna.distributions import BaseDistribution

STRATEGY = "strategy"
STEPS = (("learning_rate", 0.3), ("rate", 0.1), ("layer_decay", 0.8), ("weight_decay", None))
"""What is tried of the last phase first: factors on what is configured, or the middle of the range. Slower, slower
still below the head (Howard and Ruder 2018, arXiv 1801.06146), and with a head that is held. Low rates look bad until
late, so that no search that ends trials early would find them."""
ATTEMPTS = 50
"""Proposals that are the same training as an earlier trial, after which the space counts as exhausted."""
RANDOM_AT_FIRST = 10
"""Trials at random before TPE has something to learn from; fewer in short searches."""


def propose(space: Space, tune: TuneConfig, trials: Sequence[Trial]) -> Candidate | None:
    """The next candidate after `trials`, which is none of theirs; None when there is no other.

    Raises:
        UserError: Optuna is not installed, and the search needs it.
    """
    if tune.search in ("tpe", "random"):
        _optuna()  # whoever lacks it learns so before the first trial
    tried = {trial.key for trial in trials}
    ahead = space.anchors
    if tune.search == "grid":
        ahead += space.grid
    if tune.search == "tpe":  # strategies are compared at equal settings, and the configured ones are no blind guess
        # Training from scratch may take far longer than any fine-tuning, and is rarely what comes of a search.
        ahead += [Candidate(strategy, is_planned=strategy != "scratch") for strategy in space.strategies]
        ahead += _steps(space, trials)
    for candidate in ahead:
        if _is_new(space, candidate, tried):
            return candidate
    if tune.search == "grid":
        return None
    if tune.search == "pbt":
        values = born(tune, trials)
        return None if values is None else Candidate("population", values)
    study = study_of(space, trials)
    for attempt in range(ATTEMPTS):
        study.sampler = _sampler(tune, [tune.seed, len(trials), attempt])
        if tune.search == "tpe" and len(trials) % 2:
            study.enqueue_trial(_half_of_best(space, trials, [tune.seed, len(trials), attempt]))
        candidate = _suggested(space, study.ask())
        if _is_new(space, candidate, tried):
            return candidate
    return None


def _steps(space: Space, trials: Sequence[Trial]) -> list[Candidate]:
    """The best strategy as it is configured, then with one setting after another changed, and kept where it was better.

    As far as it is known: the last of these is to be tried, unless it was. Training from scratch, which has but a rate,
    is that strategy only where nothing else is.
    """
    configured = [trial for trial in trials if not trial.values and trial.strategy in space.strategies]
    best = best_of([trial for trial in configured if trial.strategy != "scratch"] or configured)
    if best is None:
        return []
    found: list[Candidate] = []
    for path, value in _changes(space, best.strategy):
        step = Candidate(best.strategy, {**best.values, path: value}, is_planned=True)
        found.append(step)
        if _is_new(space, step, {trial.key for trial in trials}):
            break
        best = best_of([best, *(trial for trial in trials if trial.candidate == step)]) or best
    return found


def _changes(space: Space, strategy: Strategy) -> Iterator[tuple[str, Value]]:
    active = space.active(strategy)
    for name, factor in STEPS:
        for path in [path for path in active if path.endswith(f".{name}")][-1:]:
            configured, found = space.configured(path), active[path]
            if factor is None and found.kind == "loguniform":
                yield path, found.points(3)[1]
            elif factor is not None and isinstance(configured, int | float):
                value = float(f"{configured * factor:.4g}")
                if found.has(value):
                    yield path, value


def _is_new(space: Space, candidate: Candidate, tried: set[str]) -> bool:
    """Whether it is a training of its own; settings that exclude each other are none."""
    try:
        return space.key(candidate) not in tried
    except ConfigError:
        return False


def study_of(space: Space, trials: Sequence[Trial]) -> "Study":
    """The trials as Optuna knows them: strategy and settings as parameters, the score as value.

    Open trials count as running, for TPE to keep away from them; those without a score as failed.
    """
    optuna = _optuna()
    study: Study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    states = optuna.trial.TrialState
    for trial in trials:
        if trial.strategy not in space.strategies:
            continue
        active, known = space.active(trial.strategy), _settings(space, trial)
        ended = states.FAIL if trial.score is None else states.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                params={STRATEGY: trial.strategy, **known},
                distributions={
                    STRATEGY: optuna.distributions.CategoricalDistribution(space.strategies),
                    **{path: _as_optuna(active[path]) for path in known},
                },
                value=None if trial.state == "open" else trial.score,
                state=states.RUNNING if trial.state == "open" else ended,
            )
        )
    return study


def _settings(space: Space, trial: Trial) -> dict[str, Value]:
    """All that the space varies under its strategy, as the trial had it, but for what it would not propose."""
    active = space.active(trial.strategy)
    known = {path: trial.values.get(path, space.configured(path)) for path in active}
    return {path: value for path, value in known.items() if active[path].has(value)}


def _half_of_best(space: Space, trials: Sequence[Trial], seed: list[int]) -> dict[str, Value]:
    """What every other proposal is given, so that it stays near the best trial: its strategy and half of its settings.

    With as few trials as a search has, TPE alone hardly knows one region from another.
    """
    best = best_of([trial for trial in trials if trial.strategy in space.strategies])
    if best is None:
        return {}
    rng = np.random.default_rng(seed)
    return {STRATEGY: best.strategy} | {path: v for path, v in _settings(space, best).items() if rng.random() < 0.5}


def _sampler(tune: TuneConfig, seed: list[int]) -> object:
    samplers = _optuna().samplers
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if tune.search == "random":
        return samplers.RandomSampler(number)
    return samplers.TPESampler(n_startup_trials=min(RANDOM_AT_FIRST, math.ceil(tune.num_trials / 3)), seed=number)


def _suggested(space: Space, asked: "Asked") -> Candidate:
    strategy: Strategy = asked.suggest_categorical(STRATEGY, space.strategies)  # type: ignore[assignment]
    return Candidate(strategy, {path: _value(asked, path, found) for path, found in space.active(strategy).items()})


def _value(asked: "Asked", path: str, distribution: Distribution) -> Value:
    match distribution.kind:
        case "choice":
            return cast("Value", asked.suggest_categorical(path, distribution.bounds))
        case "randint":
            return asked.suggest_int(path, distribution.bounds[0], distribution.bounds[1] - 1)
        case "quniform":
            low, _, step = distribution.bounds
            return float(f"{asked.suggest_float(path, low, distribution.ends()[1], step=step):.9g}")  # type: ignore[arg-type]
        case kind:
            return float(f"{asked.suggest_float(path, *distribution.bounds, log=kind == 'loguniform'):.4g}")


def _as_optuna(distribution: Distribution) -> "BaseDistribution":
    kinds: Any = _optuna().distributions
    bounds = distribution.bounds
    match distribution.kind:
        case "choice":
            found = kinds.CategoricalDistribution(bounds)
        case "randint":
            found = kinds.IntDistribution(bounds[0], bounds[1] - 1)
        case "quniform":
            found = kinds.FloatDistribution(bounds[0], distribution.ends()[1], step=bounds[2])
        case kind:
            found = kinds.FloatDistribution(*bounds, log=kind == "loguniform")
    return cast("BaseDistribution", found)


def _optuna() -> ModuleType:
    try:
        import optuna  # noqa: PLC0415 (an extra, and it takes seconds)
    except ModuleNotFoundError as error:
        raise UserError("a search needs Optuna: pip install 'ray-retail-finetune[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
