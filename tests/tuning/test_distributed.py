"""A trial on two workers of Ray Train, on S3: each epoch is heard of, and the numbers are those of the plain loop."""

import os
from pathlib import Path

import pytest
import stages
import torch
from plain_loop import plain_by_two

from ray_app.config import Config, StorageConfig, apply_overrides
from ray_app.data.dataset import Dataset
from ray_app.data.prepare import prepare
from ray_app.storage import Storage
from ray_app.tasks.recommender import load_trained
from ray_app.tuning.search import Search

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.usefixtures("ray_cluster")]


def test_a_trial_of_two_workers_on_s3_equals_two_of_the_plain_loop(
    source: tuple[Config, Dataset, str], s3: StorageConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    config, _, start = source
    own = ["tune.num_trials=1", "train.num_workers=2", "train.max_failures=0", "schedule.phases.1.epochs=2"]
    config = apply_overrides(config.model_copy(update={"storage": s3}), ["name=distributed", *own])
    dataset = prepare(Storage.from_config(s3), config.name, config.data)
    search = Search.begin(config, dataset, start)
    run = stages.finetune_run(search.config, dataset)
    [trial] = search.trials().all()
    assert (trial.state, trial.error, trial.epochs, trial.strategy) == ("finished", None, 4, "configured")
    assert run.config.train.num_workers == 2
    assert stages.train(run) == run.uri  # finds the checkpoint of the trial, and publishes it
    records = run.records()
    assert [record["val/ndcg@10"] for record in records] == [record["val/ndcg@10"] for record in trial.records]

    alone = plain_by_two(run, tmp_path)
    assert [record["train/loss"] for record in records[1:]] == [
        record["train/loss"] for record in alone.progress.records[1:]
    ]
    published = load_trained(run.storage, run.uri).model.state_dict()
    for name, value in alone.model.items():
        assert torch.equal(value, published[name]), name
