"""What a search found out: how much each setting mattered, and the strategies against each other, in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from ray_app.tune_config import Strategy
from ray_app.tuning.proposals import study_of
from ray_app.tuning.soup import Recipe
from ray_app.tuning.space import Space
from ray_app.tuning.strategies import MEANING
from ray_app.tuning.trials import Trial, best_of

FEW = 6
"""Trials below which nothing is said of how much a setting mattered."""
_WORTH: tuple[tuple[tuple[Strategy, ...], Strategy, str], ...] = (
    (("configured", "without_l2_sp", "gradual"), "full", "training the head before the rest"),
    (("configured",), "without_l2_sp", "holding the backbone to its pretrained weights"),
    (("configured", "without_l2_sp", "gradual", "full"), "linear_probe", "unfreezing the backbone"),
    (("gradual",), "configured", "unfreezing bit by bit"),
    (("bounded_delta",), "configured", "bounding what ids add to content"),
    (("surgical_first", "surgical_middle", "surgical_last"), "configured", "tuning a third of the backbone alone"),
    (
        ("configured", "without_l2_sp", "gradual", "full", "linear_probe"),
        "scratch",
        "beginning with pretrained weights",
    ),
)


@dataclass(frozen=True)
class Importance:
    """How much of the spread of scores one setting explains, among the trials that have it."""

    path: str
    share: float
    """Of what strategy and settings that all these trials have explain together, between 0 and 1."""
    trials: int
    """That have the setting."""


def importances(space: Space, trials: Sequence[Trial]) -> list[Importance]:
    """Settings that enough trials have, the most important first.

    By functional analysis of variance (Hutter, Hoos and Leyton-Brown 2014).
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # noqa: PLC0415 (takes seconds)

    scored = [trial for trial in trials if trial.score is not None]
    found = []
    for path in space.distributions:
        study = study_of(space, [trial for trial in scored if path in space.active(trial.strategy)])
        known = [trial for trial in study.trials if path in trial.params]
        common = set.intersection(*(set(trial.params) for trial in known)) if known else set[str]()
        if len(known) < FEW or len({trial.value for trial in known}) < 2:
            continue
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), params=sorted(common))
        found.append(Importance(path, shares[path], len(known)))
    return sorted(found, key=lambda one: -one.share)


def ranking(trials: Sequence[Trial]) -> list[tuple[Strategy, Trial, int]]:
    """Each strategy with its best trial and the number of its trials, the best strategy first."""
    by_strategy = {name: [trial for trial in trials if trial.strategy == name] for name in MEANING}
    found = [(name, best, len(group)) for name, group in by_strategy.items() if (best := best_of(group)) is not None]
    return sorted(found, key=lambda one: -(one[1].score or 0.0))


def sentences(space: Space, trials: Sequence[Trial], metric: str) -> list[str]:
    """What a person should take home; nothing where no trial has a score."""
    best = best_of(trials)
    if best is None:
        return []
    ranked = ranking(trials)
    told = [f"Trial {best.number} is best: {metric} {best.score:.4f} on validation by {MEANING[best.strategy]}."]
    configured = next((trial for trial in trials if trial.number == 0 and trial.score is not None), None)
    if configured is not None and configured is not best:
        told[0] = f"{told[0][:-1]}, {_gain(best, configured)} against trial 0, which has the configured settings."
    told.append(
        "Best of each strategy: "
        + ", ".join(f"{name} {trial.score:.4f} ({_counted(number, 'trial')})" for name, trial, number in ranked)
        + "."
    )
    best_by = {name: trial for name, trial, _ in ranked}
    for mine, other, what in _WORTH:
        ours = best_of([best_by[name] for name in mine if name in best_by])
        if ours is not None and other in best_by:
            told.append(f"{what.capitalize()} was worth {_gain(ours, best_by[other])}.")
    return [*told, *_steps(space, trials), epochs_sentence(space, trials)]


def soup_sentence(recipe: Recipe, trials: Sequence[Trial]) -> str:
    """What averaging weights was worth."""
    best = best_of(trials)
    if best is None or not recipe.is_better(trials):
        return f"No mean of the weights of the best {recipe.tried} trials was better than the best of them."
    *others, last = map(str, recipe.members)
    gain = recipe.score - (best.score or 0.0)
    return f"The mean of the weights of trials {', '.join(others)} and {last} was worth {gain:+.4f}, and is published."


def epochs_sentence(space: Space, trials: Sequence[Trial]) -> str:
    """Epochs that were trained and that were not."""
    trained, reused = sum(trial.spent for trial in trials), sum(trial.reused for trial in trials)
    stopped = [trial for trial in trials if trial.state == "stopped"]
    ahead = (sum(phase.epochs for phase in space.resolve(trial.candidate)[1].phases) for trial in stopped)
    left = sum(ahead) - sum(trial.epochs for trial in stopped)
    share = reused / (trained + reused) if reused else 0.0
    return (
        f"{trained} epochs were trained; {reused} more ({share:.0%}) were shared between trials instead, and up to "
        f"{left} were spared by ending {_counted(len(stopped), 'trial')} early."
    )


def _steps(space: Space, trials: Sequence[Trial]) -> list[str]:
    """What each setting was worth that was changed alone (`proposals.STEPS`); nothing where none was."""
    told, strategy = [], None
    for trial in trials:
        if trial.is_planned and trial.values and trial.score is not None:
            *kept, path = trial.values
            before = [one for one in trials if one.strategy == trial.strategy and [*one.values] == kept]
            same = next((one for one in before if all(one.values[key] == trial.values[key] for key in kept)), None)
            if same is not None and same.score is not None:
                strategy = trial.strategy
                told.append(f"{space.label(path)} {trial.values[path]:.4g} {_gain(trial, same)}")
    return [f"By {strategy}, one setting after another, kept where it was better: {', '.join(told)}."] if told else []


def _gain(better: Trial, other: Trial) -> str:
    return f"{(better.score or 0.0) - (other.score or 0.0):+.4f}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
