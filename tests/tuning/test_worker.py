"""One trial without Ray: the numbers of the plain loop, phases taken over from other trials, faults in words."""

import math
from typing import Any

import pytest
from plain_loop import plain
from tuning_log import MakeSearch

from ray_app.checkpoint import CheckpointError
from ray_app.errors import TrainingError
from ray_app.schedule import Phase, Schedule
from ray_app.training.snapshot import Progress
from ray_app.tuning.search import Search
from ray_app.tuning.space import Candidate
from ray_app.tuning.trials import Trial, epochs_of, result_of, score_of
from ray_app.tuning.worker import standing, train_trial

RATE = "schedule.phases.1.learning_rate"


def trained(search: Search, candidate: Candidate, number: int = 0) -> tuple[Trial, list[dict[str, Any]]]:
    """The trial at its end, and all that it reported."""
    key, values, is_planned = search.space.key(candidate), dict(candidate.values), candidate.is_planned
    told: list[dict[str, Any]] = []
    trial = Trial(number=number, strategy=candidate.strategy, values=values, key=key, is_planned=is_planned)
    train_trial(search, trial, told.append)
    return Trial.model_validate_json(told[-1]["trial"]), told


def metrics(records: list[dict[str, Any]]) -> list[tuple[float, float | None]]:
    return [(record["val/ndcg@10"], record.get("train/loss")) for record in records]


def test_trials_share_phases_and_have_the_numbers_of_runs_that_do_not(make_search: MakeSearch) -> None:
    search = make_search("shared")
    probe, _ = trained(search, Candidate("linear_probe"))
    other, told = trained(search, Candidate("configured", {RATE: 0.02}), 5)
    assert (probe.state, probe.epochs, probe.reused) == ("finished", 2, 0)
    assert (other.state, other.epochs, other.reused, other.spent) == ("finished", 6, 2, 4)
    whole = plain(search.run_of(other.candidate)).progress
    assert metrics(other.records) == metrics(whole.records)
    assert other.score == whole.best == max(record["val/ndcg@10"] for record in whole.records)
    assert [result["epochs"] for result in told] == [3, 4, 5, 6]
    again, told = trained(search, other.candidate, 7)  # as after a kill between the last epoch and its report
    assert (again.state, again.spent, again.score, len(told)) == ("finished", 0, other.score, 1)
    separate, _ = trained(search, Candidate("configured", {"schedule.phases.0.learning_rate": 0.1}))
    assert separate.reused == 0


def test_trials_are_judged_in_their_last_phase_and_planned_ones_are_known(make_search: MakeSearch) -> None:
    search = make_search("judged")
    _, told = trained(search, Candidate("configured", is_planned=True))
    assert [result["is_judged"] for result in told] == [False, False, True, True, True, True]
    assert all(result["is_planned"] for result in told)
    _, told = trained(search, Candidate("scratch"), 2)
    assert [(result["is_judged"], result["is_planned"]) for result in told] == [(True, False)] * 3


def test_a_candidate_that_does_not_fit_the_checkpoint_says_why(make_search: MakeSearch) -> None:
    with pytest.raises(CheckpointError, match=r"model\.dim: pretrained 8, asked for 16"):
        trained(make_search("misfit"), Candidate("full", {"model.dim": 16}))


def record(value: float | None, phase: str = "full") -> dict[str, Any]:
    return {"phase": phase, "epoch": 1} | ({} if value is None else {"val/ndcg@10": value})


PATIENT = Schedule(phases=(Phase(name="head", epochs=2), Phase(name="full", epochs=2, patience=2)))
HASTY = Schedule(phases=(Phase(name="full", epochs=2),))


@pytest.mark.parametrize(
    ("schedule", "values", "score"),
    [
        (PATIENT, [0.3, 0.5, 0.4], 0.5),
        (HASTY, [0.3, 0.5, 0.4], 0.4),
        (HASTY, [0.3, 0.5, None], 0.5),
        (HASTY, [None], None),
    ],
)
def test_the_score_is_that_of_the_weights_a_run_ends_with(
    schedule: Schedule, values: list[float | None], score: float | None
) -> None:
    assert score_of([record(value) for value in values], schedule, "ndcg@10") == score


TRIAL = Trial(number=3, strategy="full", values={}, key="k")


def test_a_metric_that_is_no_number_ends_the_trial() -> None:
    progress = Progress(phase=0, records=[record(0.3), record(math.nan)])
    with pytest.raises(TrainingError, match=r"validation ndcg@10 is nan, which is no number, after 2 epochs"):
        standing(TRIAL, HASTY, "ndcg@10", progress)


def test_a_metric_that_is_never_reported_is_told() -> None:
    assert standing(TRIAL, HASTY, "ndcg@10", Progress(phase=0, records=[record(None)])).state == "open"
    with pytest.raises(TrainingError, match=r"validation gave no ndcg@10.*data\.split"):
        standing(TRIAL, HASTY, "ndcg@10", Progress(phase=1, records=[record(None)]))


def test_a_trial_survives_its_file() -> None:
    found = TRIAL.after([record(0.25, "start"), record(0.5), record(math.nan)], PATIENT, "ndcg@10")
    assert epochs_of(found.records) == found.epochs == 2
    assert found.after([*found.records, record(0.4, "wise")], HASTY, "ndcg@10").epochs == 2
    text = found.model_copy(
        update={"score": None, "values": {"a": 1, "b": True, "c": 1.0, "d": None}}
    ).model_dump_json()
    again = Trial.model_validate_json(text)
    assert [type(value) for value in again.values.values()] == [int, bool, float, type(None)]
    assert math.isnan(again.records[2]["val/ndcg@10"])
    assert not result_of(again, HASTY, "mrr")["is_judged"]
