"""Trials where others look for them: a run each in TensorBoard and MLflow, with settings and curves."""

import io
from pathlib import Path

import pytest
import searching
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tuning_log import MakeSearch

from ray_app.config import parse_config
from ray_app.errors import ConfigError, UserError
from ray_app.tuning.search import Search
from ray_app.tuning.trackers import Boards, trackers_of
from ray_app.tuning.trials import Trial

RATE = "schedule.phases.1.learning_rate"
RECORDS = [
    {"phase": "start", "epoch": 0, "val/ndcg@10": 0.1},
    {"phase": "head", "epoch": 1, "val/ndcg@10": 0.2, "train/loss": 2.0, "finished_at": 1e9},
    {"phase": "full", "epoch": 1, "val/ndcg@10": 0.3, "train/loss": 1.0, "finished_at": 1e9 + 1},
]
DONE = Trial(
    number=3,
    strategy="configured",
    values={RATE: 0.02},
    key="k",
    state="finished",
    score=0.3,
    epochs=2,
    records=RECORDS,
)
FAILED = Trial(number=4, strategy="full", values={}, key="l", state="failed", error="the loss is not finite")


def added(search: Search) -> None:
    for tracker in trackers_of(search):
        for trial in (DONE, FAILED):
            tracker.add(trial)


def test_each_trial_is_a_board(make_search: MakeSearch) -> None:
    search = make_search("boards", "tune.trackers=[tensorboard]")
    added(search)
    folder = Path(search.storage.root("boards")) / "tensorboard" / search.key
    events = EventAccumulator(str(folder / "0003")).Reload()
    assert [(event.step, round(event.value, 6)) for event in events.Scalars("val/ndcg@10")] == [
        (0, 0.1),
        (1, 0.2),
        (2, 0.3),
    ]
    assert events.summary_metadata["_hparams_/session_start_info"]
    assert (folder / "0004").is_dir()


def test_each_trial_is_a_run_of_mlflow(make_search: MakeSearch, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    place = f"sqlite:///{tmp_path}/runs.db"
    added(make_search("shop", f"tune.trackers=['mlflow:{place}']"))
    client = MlflowClient(place)
    experiment = client.get_experiment_by_name("shop")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    done, failed = runs["trial 3"], runs["trial 4"]
    assert done.data.params == {"strategy": "configured", RATE: "0.02"}
    assert (done.info.status, failed.info.status) == ("FINISHED", "FAILED")
    assert failed.data.tags["error"] == "the loss is not finite"
    assert done.data.metrics["score"] == 0.3
    history = client.get_metric_history(done.info.run_id, "val/ndcg_at_10")
    assert sorted((one.step, one.value) for one in history) == [(0, 0.1), (1, 0.2), (2, 0.3)]
    added(make_search("shop", f"tune.trackers=['mlflow:{place}']"))  # the experiment is there
    assert len(client.search_runs([experiment.experiment_id])) == 4


def test_a_server_that_does_not_answer_is_told_of(make_search: MakeSearch) -> None:
    search = make_search("away", "tune.trackers=['mlflow:http://127.0.0.1:9']")
    with pytest.raises(UserError, match=r"MLflow cannot be used at http://127\.0\.0\.1:9 .*start the server, correct"):
        trackers_of(search)


def test_credentials_are_refused_in_a_configuration() -> None:
    with pytest.raises(ConfigError, match=r"tune\.trackers\.0: .*credentials belong in MLFLOW_TRACKING_USERNAME"):
        parse_config({"tune": {"trackers": ["mlflow:https://me:secret@server"]}})
    with pytest.raises(ConfigError, match=r"tune\.trackers\.0: 'wandb' given"):
        parse_config({"tune": {"trackers": ["wandb"]}})


def test_a_tracker_that_fails_does_not_end_the_search(make_search: MakeSearch, tmp_path: Path) -> None:
    search = make_search("lost", "tune.trackers=[tensorboard]")
    board = Boards(search)
    (tmp_path / "file").touch()
    board._uri = f"{tmp_path}/file/board"
    trackers, console = [board, *trackers_of(search)], Console(file=io.StringIO(), width=200)
    searching._track(trackers, DONE, console)  # type: ignore[arg-type]
    assert len(trackers) == 1
    assert "tune: Boards is given up" in console.file.getvalue()  # type: ignore[attr-defined]
