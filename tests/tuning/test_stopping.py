"""Who is ended early: by the rungs of earlier trials, in the last phase alone, planned trials never; and the budget."""

from typing import Any, cast

import pytest
from ray.tune.schedulers import FIFOScheduler

from ray_app.config import apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.storage import Storage, join
from ray_app.tuning.search import Search
from ray_app.tuning.space import Candidate
from ray_app.tuning.stopping import Budget, build_scheduler
from ray_app.tuning.trials import Trial, Trials, result_of
from ray_app.tuning.tuner import Proposals

CONFIG = parse_config({"model": {"start_from": "somewhere"}, "tune": {"num_trials": 9}})
HEAD = 10
"""Epochs of the first phase."""


def search(*overrides: str) -> Search:
    return Search.begin(apply_overrides(CONFIG, list(overrides)), cast(Dataset, None), "somewhere")


def trial(number: int, scores: list[float], strategy: str = "configured") -> Trial:
    """It has these scores in its last phase, and none of note before."""
    before = (
        [] if strategy != "configured" else [{"phase": "head", "epoch": n, "val/ndcg@10": 0.0} for n in range(HEAD)]
    )
    records = before + [{"phase": "full", "epoch": n, "val/ndcg@10": score} for n, score in enumerate(scores)]
    found = {"number": number, "strategy": "configured", "values": {}, "key": str(number), "state": "finished"}
    return Trial.model_validate({**found, "records": records, "epochs": len(records), "score": max(scores)})


class Running:
    trial_id = "now"

    def __init__(self, number: int = 0) -> None:
        self.config = {"number": number}


def decisions(scheduler: Any, search: Search, running: Trial) -> list[str]:
    """What the scheduler says after each epoch, until it stops the trial."""
    now, said = Running(running.number), []
    _, schedule = search.space.resolve(running.candidate)
    scheduler.on_trial_add(None, now)
    for number in range(1, len(running.records) + 1):
        seen = running.after(running.records[:number], schedule, "ndcg@10")
        said.append(scheduler.on_trial_result(None, now, result_of(seen, schedule, "ndcg@10")))
        if said[-1] == "STOP":
            break
    return said


PAST = [trial(n, [0.1 * n] * 30) for n in range(2, 8)]


@pytest.mark.parametrize("kind", ["asha", "median"])
def test_a_trial_behind_is_ended_in_its_last_phase(kind: str) -> None:
    here = search(f"tune.scheduler={kind}")
    said = decisions(build_scheduler(here, PAST), here, trial(8, [0.05] * 20))
    assert said == ["CONTINUE"] * HEAD + ["STOP"]
    assert set(decisions(build_scheduler(here, PAST), here, trial(8, [0.9] * 20))) == {"CONTINUE"}
    assert set(decisions(build_scheduler(here, []), here, trial(8, [0.05] * 20))) == {"CONTINUE"}


def test_hyperband_judges_some_trials_later() -> None:
    """Where successive halving ends all that start badly, some are given time; who, is the same in each session."""
    past = [trial(n, [0.1 + n / 1000] * 60) for n in range(2, 60)]
    ends = {}
    for kind in ("asha", "hyperband"):
        here = search(f"tune.scheduler={kind}")
        judged = {n: decisions(build_scheduler(here, past), here, trial(n, [0.05] * 50)) for n in range(60, 80)}
        ends[kind] = {number: len(said) for number, said in judged.items()}
    assert set(ends["asha"].values()) == {HEAD + 1}
    assert set(ends["hyperband"].values()) == {HEAD + 1, 27, 60}  # the last of four brackets judges after 81
    rungs = [[bracket._rungs for bracket in build_scheduler(here, past)._brackets] for _ in range(2)]
    assert rungs[0] == rungs[1]
    assert len(rungs[0]) == 4


def test_a_trial_that_failed_sets_no_mark() -> None:
    """Its missing score was entered into the rungs, and numpy warned of it in every later trial."""
    here = search()
    scheduler, now = build_scheduler(here, []), Running()
    scheduler.on_trial_add(None, now)
    failed = trial(8, [0.5]).model_copy(update={"records": [], "score": None})
    scheduler.on_trial_complete(None, now, result_of(failed, CONFIG.schedule, "ndcg@10"))
    assert not any(recorded for _, recorded in scheduler._brackets[0]._rungs)


def test_planned_trials_are_run_to_their_end() -> None:
    here = search()
    planned = trial(8, [0.05] * 20).model_copy(update={"is_planned": True})
    assert set(decisions(build_scheduler(here, PAST), here, planned)) == {"CONTINUE"}


def test_rungs_are_entered_where_a_trial_has_come_to() -> None:
    """One that comes from the first phase was entered into all lower rungs afterwards, with later scores."""
    here = search("tune.grace_epochs=3", "tune.reduction_factor=3")
    scheduler = build_scheduler(here, [trial(2, [0.5] * 3)])
    rungs = {milestone: list(recorded.values()) for milestone, recorded in scheduler._brackets[0]._rungs}
    assert rungs == {3: [], 9: [0.5], 27: [], 81: []}


def test_no_scheduler_ends_nothing() -> None:
    assert type(build_scheduler(search("tune.scheduler=none"), PAST)) is FIFOScheduler


def test_the_search_ends_with_its_budget(storage: Storage) -> None:
    trials = Trials(storage, join(storage.path, "trials"))
    for one in PAST[:3]:
        trials.keep(one.model_copy(update={"number": one.number - 2, "reused": 10}))
    assert trials.spent() == 3 * 30
    assert Budget(trials, 91).stop_all() is False
    assert Budget(trials, 90).stop_all() is True
    assert Proposals(search("tune.max_epochs=90"), trials).next() is None
    following = Proposals(search("tune.max_epochs=91"), trials).next()
    assert following is not None
    assert following.number == 3
    assert Proposals(search("tune.num_trials=3"), trials).next() is None


def test_trials_that_were_open_come_first_and_under_their_number(storage: Storage) -> None:
    here, trials = search(), Trials(storage, join(storage.path, "trials"))
    first = Proposals(here, trials)
    assert [first.suggest("") for _ in range(4)] == [{"number": number} for number in range(4)]
    trials.keep(trials.by_number[1].model_copy(update={"state": "finished", "score": 0.5}))
    again = Trials(storage, join(storage.path, "trials"))
    assert [one.state for one in again.all()] == ["open", "finished", "open", "open"]
    proposals = Proposals(here, again)
    assert [proposals.suggest("") for _ in range(4)] == [{"number": number} for number in (0, 2, 3, 4)]
    assert again.by_number[4].candidate not in [Candidate("configured"), Candidate("linear_probe")]
