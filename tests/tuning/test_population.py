"""Rates that change while a model is trained: children go on from the better half, at their rate and at others."""

import io

import pytest
import searching
from rich.console import Console
from tuning_log import MakeSearch

from ray_app.config import Config, apply_overrides, parse_config
from ray_app.data.dataset import Dataset, thinned
from ray_app.errors import ConfigError
from ray_app.storage import Storage, join
from ray_app.tune_config import TuneConfig
from ray_app.tuning.population import born
from ray_app.tuning.search import Search
from ray_app.tuning.space import Space
from ray_app.tuning.trials import Trial, Trials
from ray_app.tuning.tuner import Proposals
from ray_app.tuning.worker import train_trial

TUNE = TuneConfig(search="pbt", population=4, generations=3)


def member(number: int, score: float | None, *factors: float, state: str = "finished") -> Trial:
    values = {f"stages.{stage}": factor for stage, factor in enumerate(factors)}
    found = {"number": number, "strategy": "population", "values": values, "key": str(number), "state": state}
    return Trial.model_validate({**found, "score": score})


def test_the_better_half_has_children_at_its_rate_and_around_it() -> None:
    first: list[Trial] = []
    for number in range(4):
        values = born(TUNE, first)
        assert values is not None
        first.append(member(number, [0.1, 0.4, 0.3, 0.2][number], *values.values()))  # type: ignore[arg-type]
    assert [trial.values["stages.0"] for trial in first] == [0.1, 0.3107, 0.9655, 3.0]
    children: list[Trial] = []
    for number in range(4, 8):
        values = born(TUNE, [*first, *children])
        assert values is not None
        children.append(member(number, 0.5, *values.values()))  # type: ignore[arg-type]
    assert [trial.values["stages.0"] for trial in children] == [0.3107, 0.9655] * 2
    assert [trial.values["stages.1"] for trial in children[:2]] == [0.3107, 0.9655]
    for trial, parent in zip(children[2:], (0.3107, 0.9655), strict=True):
        assert trial.values["stages.1"] in [pytest.approx(parent * factor, rel=1e-3) for factor in (0.8, 1.25)]
    assert born(TUNE, [*first, *children]) == born(TUNE, [*first, *children])
    done = [*first, *children, *(member(n, 0.5, 1, 1, 1) for n in range(8, 12))]
    assert born(TUNE, done) is None


def test_nobody_is_born_while_no_parent_is_over() -> None:
    assert born(TUNE, [member(n, None, 1.0, state="open") for n in range(4)]) is None
    lost = [member(n, None, 1.0, state="failed") for n in range(3)]
    values = born(TUNE, [*lost, member(3, 0.1, 2.0)])
    assert values is not None
    assert values["stages.0"] == 2.0


def test_a_stage_is_trained_from_the_parents_weights(make_search: MakeSearch) -> None:
    search = make_search("pbt", "tune={search: pbt, population: 2, generations: 2, num_trials: 6}")
    trials = search.trials()
    proposals = Proposals(search, trials)
    while (trial := proposals.next()) is not None:
        proposals.suggest("")
        told: list[dict[str, object]] = []
        train_trial(search, trial, told.append)
        trials.keep(Trial.model_validate_json(str(told[-1]["trial"])))
    found = trials.all()
    assert [trial.strategy for trial in found] == ["configured", "linear_probe", *["population"] * 4]
    assert [(trial.spent, trial.reused) for trial in found[1:]] == [(0, 2), *[(2, 2)] * 2, *[(2, 4)] * 2]
    child = max(found[4:], key=lambda trial: trial.number)
    phases = search.run_of(child.candidate).schedule.phases
    assert [(phase.name, phase.epochs) for phase in phases] == [("head", 2), ("full_1_of_2", 2), ("full_2_of_2", 2)]
    rates = [float(child.values[f"stages.{n}"] or 0) * 0.01 for n in range(2)]
    assert [phase.learning_rate for phase in phases[1:]] == pytest.approx(rates, rel=1e-3)
    assert rates[0] != rates[1]
    parent = next(trial for trial in found if trial.values == {"stages.0": child.values["stages.0"]})
    assert child.records[: len(parent.records)] == parent.records
    assert parent.score == max(trial.score or 0 for trial in found[2:4])
    assert search.space.label("stages.1") == "full stage 2 rate x"
    assert search.config_of(child.candidate).schedule.phases == phases


def test_a_population_waits_for_its_parents(storage: Storage) -> None:
    config = parse_config({"model": {"start_from": "x"}, "tune": {"search": "pbt", "population": 2, "num_trials": 99}})
    search = Search.begin(config, None, "x")  # type: ignore[arg-type]
    trials = Trials(storage, join(storage.path, "trials"))
    proposals = Proposals(search, trials)
    assert [proposals.suggest("") for _ in range(5)] == [*({"number": n} for n in range(4)), None]
    for number in (2, 3):
        trials.keep(trials.by_number[number].model_copy(update={"state": "finished", "score": 0.1}))
    assert proposals.suggest("") == {"number": 4}


@pytest.mark.usefixtures("ray_cluster")
def test_under_ray_tune_a_population_grows_on_a_share_of_the_users(
    source: tuple[Config, Dataset, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    config, dataset, start = source
    tune = "{search: pbt, population: 2, generations: 2, num_trials: 6, data_share: 0.5, max_concurrent_trials: 2}"
    config = apply_overrides(config, ["name=grown", f"tune={tune}"])
    run = searching.tuned_run(config, dataset, start, Console(file=io.StringIO()))
    search = Search.begin(config, thinned(dataset, 0.5), start)
    trials = search.trials().all()
    assert [trial.state for trial in trials] == ["finished"] * 6, [trial.error for trial in trials]
    parents, children = trials[2:4], trials[4:]
    assert {len(trial.values) for trial in parents} == {1}
    for child in children:
        parent = next(trial for trial in parents if trial.values["stages.0"] == child.values["stages.0"])
        assert child.records[: len(parent.records)] == parent.records
        assert (child.spent, child.reused) == (2, parent.epochs)
    assert run.dataset is dataset
    assert not run.is_published()
    best = max(trials, key=lambda trial: (trial.score or 0, -trial.number))
    assert run.schedule == search.run_of(best.candidate).schedule


def test_a_stage_needs_an_epoch_and_a_population_something_to_begin_with() -> None:
    config = parse_config({"model": {"start_from": "x"}, "tune": {"search": "pbt", "generations": 5}})
    with pytest.raises(ConfigError, match=r"tune\.generations: 5, and the last phase of the schedule has 3 epochs"):
        Space(apply_overrides(config, ["schedule.phases.1.epochs=3"]))
    with pytest.raises(ConfigError, match=r"tune\.search: pbt goes by the schedule of fine-tuning"):
        Space(apply_overrides(config, ["model.start_from=null"]))
