"""Proposals: anchors first, nothing twice, the same again after a restart, and better ones from TPE."""

import math
import sys
from collections.abc import Callable

import pytest

from ray_app.config import apply_overrides, parse_config
from ray_app.errors import UserError
from ray_app.tune_config import TuneConfig
from ray_app.tuning.proposals import propose
from ray_app.tuning.space import Candidate, Space
from ray_app.tuning.trials import Trial

START = {"model": {"start_from": "somewhere"}, "tune": {}}
RATE = "schedule.phases.1.learning_rate"
SHARE, DECAY = "schedule.phases.1.groups.0.rate", "schedule.phases.1.weight_decay"


def space(*overrides: str) -> Space:
    return Space(apply_overrides(parse_config(START), overrides))


def tried(space: Space, tune: TuneConfig, score: Callable[[Candidate], float] = lambda _: 0.5) -> list[Trial]:
    """A search in which each trial scores at once."""
    trials: list[Trial] = []
    while len(trials) < tune.num_trials and (candidate := propose(space, tune, trials)) is not None:
        found = {"strategy": candidate.strategy, "values": candidate.values, "key": space.key(candidate)}
        found["is_planned"] = candidate.is_planned
        trials.append(Trial(number=len(trials), state="finished", score=score(candidate), **found))
    return trials


def test_every_strategy_is_tried_as_it_is_configured_before_tpe_chooses() -> None:
    here = space()
    trials = tried(here, TuneConfig(num_trials=9))
    first = len(here.strategies)
    assert [trial.strategy for trial in trials[:first]] == [
        "configured", "linear_probe", *(name for name in here.strategies if name not in ("configured", "linear_probe"))
    ]  # fmt: skip
    assert not any(trial.values for trial in trials[:first])
    assert all(trial.values for trial in trials[first:])


@pytest.mark.parametrize("best", ["configured", "gradual"])
def test_the_best_strategy_is_tried_slower_before_tpe_chooses(best: str) -> None:
    here = space()
    first = len(here.strategies)
    scores = {best: 0.6, "scratch": 0.9}  # which is no fine-tuning
    trials = tried(here, TuneConfig(num_trials=first + 1), lambda one: scores.get(one.strategy, 0.5))
    assert (trials[-1].strategy, trials[-1].values) == (best, {RATE: pytest.approx(here.configured(RATE) * 0.3)})


def test_where_nothing_is_fine_tuned_scratch_is_tried_slower() -> None:
    here = space("tune.strategies=[scratch]", "model.start_from=null")
    trials = tried(here, TuneConfig(num_trials=3))
    path = "evaluate.scratch_schedule.phases.0.learning_rate"
    assert [(trial.values, trial.is_planned) for trial in trials[:2]] == [({}, True), ({path: 3e-4}, True)]
    assert not trials[2].is_planned


def test_each_step_is_kept_where_it_was_better() -> None:
    """Slower is better, slower still below the head is not, a held head is; then TPE has its turn."""
    here = space()
    scores = {frozenset({RATE}): 0.6, frozenset({RATE, SHARE}): 0.5, frozenset({RATE, DECAY}): 0.7}
    trials = tried(here, TuneConfig(num_trials=12), lambda one: scores.get(frozenset(one.values), 0.4))
    steps = [trial for trial in trials if trial.is_planned and trial.values]
    assert [set(trial.values) for trial in steps] == [{RATE}, {RATE, SHARE}, {RATE, DECAY}]
    assert steps == trials[len(here.strategies) :][: len(steps)]
    assert [trial.strategy for trial in trials[: len(here.strategies)] if not trial.is_planned] == ["scratch"]
    assert not any(trial.is_planned for trial in trials[len(here.strategies) + len(steps) :])


def test_the_steps_do_not_wait_for_trials_that_are_still_trained() -> None:
    here = space()
    trials = tried(here, TuneConfig(num_trials=len(here.strategies) + 1))
    still = [*trials[:-1], trials[-1].model_copy(update={"state": "open", "score": None})]
    following = propose(here, TuneConfig(), still)
    assert following is not None
    assert (set(following.values), following.is_planned) == ({SHARE}, True)


def test_every_other_proposal_stays_near_the_best_trial() -> None:
    here = space("tune.strategies=[configured, full]")
    trials = tried(here, TuneConfig(num_trials=40), lambda one: 0.5 + (one.strategy == "full") / 10)
    best = max(trials, key=lambda trial: (trial.score, -trial.number))
    near = [trial for trial in trials if not trial.is_planned and trial.number % 2]
    known = {path: best.values.get(path, here.configured(path)) for path in near[0].values}
    same = [sum(trial.values[path] == value for path, value in known.items()) for trial in near]
    assert {trial.strategy for trial in near} == {"full"}
    assert 0.2 < sum(same) / sum(len(trial.values) for trial in near) < 0.7


def test_without_a_rate_in_the_space_nothing_is_tried_slower() -> None:
    here = space("tune.space={schedule.phases.1.l2_sp: {loguniform: [0.01, 1]}}", "tune.strategies=[configured]")
    trials = tried(here, TuneConfig(num_trials=4))
    assert [set(trial.values) for trial in trials[2:]] == [{"schedule.phases.1.l2_sp"}] * 2


@pytest.mark.parametrize("search", ["tpe", "random"])
def test_the_configured_schedule_and_its_probe_come_first_and_nothing_comes_twice(search: str) -> None:
    tune = TuneConfig(num_trials=12, search=search)
    trials = tried(space(), tune)
    assert [(trial.strategy, trial.values) for trial in trials[:2]] == [("configured", {}), ("linear_probe", {})]
    assert len({trial.key for trial in trials}) == 12
    assert len({trial.strategy for trial in trials}) > 3
    again = tried(space(), tune)
    assert again == trials
    other = tried(space(), tune.model_copy(update={"seed": 1}))
    assert [trial.values for trial in other] != [trial.values for trial in trials]


def test_a_search_that_goes_on_proposes_what_it_would_have_proposed() -> None:
    whole = tried(space(), TuneConfig(num_trials=9))
    for done in (2, 5, 8):
        following = propose(space(), TuneConfig(num_trials=9), whole[:done])
        assert following == whole[done].candidate


def test_values_stay_in_their_ranges() -> None:
    own = (
        "tune.space={model.dropout: {quniform: [0, 0.5, 0.1]}, schedule.phases.1.epochs: {randint: [4, 7]}, "
        "schedule.phases.1.optimizer: {choice: [adamw, sgd]}, schedule.phases.1.l2_sp: {loguniform: [0.01, 1]}}"
    )
    here = space(own, "tune.strategies=[configured]")
    for trial in tried(here, TuneConfig(num_trials=15, search="random"))[2:]:
        assert set(trial.values) == set(here.distributions)
        assert all(distribution.has(trial.values[path]) for path, distribution in here.distributions.items())


def test_tpe_finds_a_better_rate_than_chance() -> None:
    """The score has its top at a rate of 0.0005, under one strategy."""

    def score(candidate: Candidate) -> float:
        rate = candidate.values.get(RATE, 1e-3)
        return -abs(math.log10(float(rate or 1) / 5e-4)) - (candidate.strategy != "full")

    best = {}
    for search in ("tpe", "random"):
        found = [tried(space(), TuneConfig(num_trials=25, search=search, seed=seed), score) for seed in range(3)]
        best[search] = sum(max(trial.score or -9 for trial in trials) for trials in found)
    assert best["tpe"] > best["random"]


def test_a_grid_has_every_point_once_and_then_ends() -> None:
    own = "tune.space={schedule.phases.1.l2_sp: {loguniform: [0.01, 1]}, model.dropout: {choice: [0.1, 0.2]}}"
    here = space(own, "tune.strategies=[configured, full]")
    trials = tried(here, TuneConfig(num_trials=99, search="grid"))
    assert len(trials) == 2 + 2 * 3 * 2
    values = {(trial.strategy, *trial.values.values()) for trial in trials[2:]}
    assert values == {
        (name, rate, share) for name in ("configured", "full") for rate in (0.01, 0.1, 1) for share in (0.1, 0.2)
    }


def test_a_small_space_ends_when_it_is_exhausted() -> None:
    here = space("tune.space={model.dropout: {choice: [0.1, 0.2]}}", "tune.strategies=[configured]")
    trials = tried(here, TuneConfig(num_trials=99))
    assert len(trials) == 3  # the configured dropout is 0.2; the probe; 0.1
    assert propose(here, TuneConfig(), trials) is None


def test_settings_that_exclude_each_other_are_passed_over() -> None:
    own = "tune.space={model.dim: {choice: [8, 12]}, model.num_heads: {choice: [2, 3]}}"
    here = space(own, "tune.strategies=[scratch]", "model.dim=24")
    for search, number in (("grid", 3), ("random", 3)):
        trials = tried(here, TuneConfig(num_trials=99, search=search))
        assert len(trials) == 2 + number  # 8 is no multiple of 3
        assert {"model.dim": 8, "model.num_heads": 3} not in [trial.values for trial in trials]


def test_failed_and_open_trials_are_not_proposed_again() -> None:
    here = space()
    trials = tried(here, TuneConfig(num_trials=8))
    changed = [
        trial.model_copy(update={"score": None, "state": state})
        for trial, state in zip(trials, ["failed", "open"] * 4, strict=True)
    ]
    following = propose(here, TuneConfig(num_trials=9), changed)
    assert following is not None
    assert here.key(following) not in {trial.key for trial in trials}


def test_without_optuna_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'ray-retail-finetune\[tune\]'"):
        tried(space(), TuneConfig(num_trials=1))
    tried(space("tune.search=grid"), TuneConfig(num_trials=3, search="grid"))
