"""A trial on two workers of Ray Train: each epoch is heard of, and the result is that of the run alone."""

import os

import pytest
import stages
from tuning_log import MakeSearch

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_trials_of_two_workers(make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    own = ["tune.num_trials=1", "train.num_workers=2", "train.max_failures=0", "schedule.phases.1.epochs=2"]
    search = make_search("distributed", *own)
    run = stages.finetune_run(search.config, search.dataset)
    [trial] = search.trials().all()
    assert (trial.state, trial.error, trial.epochs, trial.strategy) == ("finished", None, 4, "configured")
    assert run.config.train.num_workers == 2
    assert stages.train(run) == run.uri  # finds the checkpoint of the trial, and publishes it
    assert [record["val/ndcg@10"] for record in run.records()] == [record["val/ndcg@10"] for record in trial.records]
