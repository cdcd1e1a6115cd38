"""A search behind its job on a cluster: killed half way and gone on with, in the end as if nothing had been."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import stages
from pydantic import SecretStr
from ray.util import placement_group_table
from tuning_log import MakeSearch

from ray_app.config import Config, apply_overrides, load_config
from ray_app.data.dataset import Dataset
from ray_app.errors import TrainingError
from ray_app.tuning.proposals import propose
from ray_app.tuning.search import Search
from ray_app.tuning.tuner import Proposals, is_over
from tests.conftest import RAY_SETTINGS, REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]

NUM_TRIALS = 12


@pytest.fixture
def search(make_search: MakeSearch, monkeypatch: pytest.MonkeyPatch) -> Search:
    """One trial at a time, some of which do not fit the checkpoint, half of which are ended early."""
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    space = "{model.dim: {choice: [8, 16]}, schedule.phases.1.learning_rate: {loguniform: [1.0e-4, 0.1]}}"
    strategies = "tune.strategies=[configured, full, gradual]"
    limits = ["tune.max_concurrent_trials=1", "tune.search=random", "tune.grace_epochs=1"]
    overrides = [f"tune.space={space}", strategies, *limits, f"tune.num_trials={NUM_TRIALS}"]
    return make_search("resumed", *overrides, "schedule.phases.1.epochs=8", "evaluate.scratch=false")


def start_job(config: Config, folder: Path) -> subprocess.Popen[bytes]:
    path = folder / "search.yaml"
    path.write_text(config.to_yaml())
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, str(REPOSITORY / "jobs" / "tune.py"), "--config", str(path)]
    environment = os.environ | RAY_SETTINGS | {"RAY_ADDRESS": address}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=REPOSITORY)


def processes_of_trials() -> list[str]:
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words.startswith("ray::") and ("ImplicitFunc" in words or "run_trial" in words):
            found.append(words)
    return found


def test_a_killed_search_goes_on_where_it_was(search: Search, tmp_path: Path) -> None:
    job = start_job(search.config, tmp_path)
    deadline, seen = time.monotonic() + 200, False
    while len(search.trials().over()) < 3:
        seen = seen or bool(processes_of_trials())
        assert job.poll() is None, (tmp_path / "log").read_text()
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait(30)
    assert seen
    before = {trial.number: trial for trial in search.trials().over()}
    assert 3 <= len(before) < NUM_TRIALS
    assert not is_over(search, search.trials())
    deadline = time.monotonic() + 60
    while processes_of_trials():
        assert time.monotonic() < deadline, "processes of trials outlive their job"
        time.sleep(0.5)

    run = stages.compared_runs(search.config, search.dataset)["fine-tuned"]  # as in the pipeline
    trials = search.trials().all()
    assert [trial.number for trial in trials] == list(range(NUM_TRIALS))
    assert len({trial.key for trial in trials}) == NUM_TRIALS
    assert {number: trials[number] for number in before} == before, "a trial that was over was repeated"
    for trial in trials[:NUM_TRIALS]:  # each is what would have been proposed without the kill
        assert propose(search.space, search.tune, trials[: trial.number]) == trial.candidate
    misfits = [trial for trial in trials if trial.values.get("model.dim") == 16]
    assert misfits
    assert all("model.dim: pretrained 8, asked for 16" in str(trial.error) for trial in misfits)
    assert all(trial.error is None for trial in trials if trial not in misfits)
    assert any(trial.state == "stopped" for trial in trials)
    assert any(trial.reused for trial in trials)
    assert {entry["state"] for entry in placement_group_table().values()} <= {"REMOVED"}

    assert run.is_published()
    best = max(trial.score for trial in trials if trial.score is not None)
    assert best >= (trials[0].score or 1)
    assert max(record["val/ndcg@10"] for record in run.records()) == pytest.approx(best, abs=0)
    assert not search.storage.exists(search.prefixes_uri)
    assert "Trial" in search.storage.read_bytes(f"{search.uri}/search.html").decode()
    found = load_config(Path(search.uri) / "schedule.yaml")
    assert stages.finetune_run(found, search.dataset).key == run.key
    assert stages.finetune_run(search.config, search.dataset).key == run.key  # nothing is left to be tried


def test_a_search_without_a_single_score_is_told(make_search: MakeSearch) -> None:
    search = make_search("hopeless", "tune.num_trials=1")
    trial = Proposals(search, search.trials()).next()
    assert trial is not None
    search.trials().keep(trial.model_copy(update={"state": "failed", "error": "the loss is not finite"}))
    with pytest.raises(TrainingError, match="none of 1 trials came to a score; the first: the loss is not finite"):
        stages.finetune_run(search.config, search.dataset)


def test_a_search_without_room_is_refused_before_anything_is_trained(source: tuple[Config, Dataset, str]) -> None:
    config, dataset, _ = source
    wanted = apply_overrides(config, ["model.start_from=/nowhere", "train.use_gpu=true"])
    with pytest.raises(TrainingError, match=r"needs 1 GPUs \(the cluster has 0\): set train\.use_gpu=false"):
        stages.finetune_run(wanted, dataset)


def test_what_ray_tune_pickles_holds_no_secret(make_search: MakeSearch) -> None:
    search = make_search("secret")
    secret = {"access_key_id": SecretStr("the-key"), "secret_access_key": SecretStr("the-secret")}
    storage = search.config.storage.model_copy(update=secret)
    known = Search(search.config.model_copy(update={"storage": storage}), search.dataset)
    assert b"the-secret" in pickle.dumps(known)
    assert b"the-secret" not in pickle.dumps(Proposals(known, known.trials()))
