"""The whole pipeline behind `ray job submit`, from S3 and to S3, killed in phase `full` and submitted again."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import clusters
import numpy as np
import pyarrow as pa
import pytest
import stages
import yaml
from clusters import RAY, Head
from plain_loop import plain
from processes import kill_descendants

from ray_app.config import apply_overrides, load_config, parse_config
from ray_app.storage import Storage, join
from ray_app.tasks.ranking import evaluate

pytestmark = [pytest.mark.cluster, pytest.mark.s3, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
NAME = "killed_and_resumed"


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A cluster that takes jobs."""
    with clusters.running(num_cpus=3, accepts_jobs=True) as head:
        yield head


@pytest.fixture(scope="module")
def config_file(s3_server: object, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Storage]:
    """A source and a target log on S3, and the configuration that names them; credentials from the environment."""
    storage = Storage.from_config(s3_server.config())  # type: ignore[attr-defined]
    rng = np.random.default_rng(1)
    for name, users in (("source", 600), ("target", 150)):
        user, item = [], []
        for number in range(users):
            at = int(rng.integers(40))
            for _ in range(int(rng.integers(4, 12))):
                user.append(f"{name}{number}")
                item.append(at)
                at = (at + 1) % 40 if rng.random() < 0.7 else int(rng.integers(40))
        table = pa.table({"user_id": user, "item_id": item, "timestamp": list(range(len(user)))})
        storage.write_table(join(storage.path, "raw", name, "events.parquet"), table)
    data = {"timestamp_unit": "order", "split": {"kind": "leave_one_out"}}
    groups = [{"match": "^backbone", "rate": 0.5}, {"match": "^head"}]
    config = {
        "storage": {"path": storage.path},
        "data": {**data, "events": join(storage.path, "raw", "target")},
        "model": {"dim": 16, "feedforward_dim": 32, "max_history_len": 10, "num_negatives": 16},
        "train": {"tokens_per_batch": 64},
        "pretrain": {
            "data": {**data, "events": join(storage.path, "raw", "source")},
            "schedule": {"phases": [{"name": "pretrain", "epochs": 1, "learning_rate": 0.01}]},
        },
        "schedule": {
            "phases": [
                {"name": "head", "epochs": 1, "groups": [{"match": "^backbone", "rate": "frozen"}, {"match": "^head"}]},
                {"name": "full", "epochs": 6, "groups": groups, "l2_sp": 0.1, "patience": 6},
            ]
        },
        "evaluate": {"scratch": False, "baselines": ["popular"], "bootstrap_samples": 100},
    }
    parse_config(config)
    path = tmp_path_factory.mktemp("config") / "pipeline.yaml"
    path.write_text(yaml.safe_dump(config))
    return path, storage


def submit(head: Head, config: Path, s3: object, *, wait: bool = True) -> str:
    """`ray job submit` with the working directory, as a user types it; what it printed."""
    variables = s3.server.environment() | {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}  # type: ignore[attr-defined]
    folder = config.parent / "work"
    if not folder.exists():
        folder.mkdir()
        for part in ("jobs", "ray_app"):
            shutil.copytree(ROOT / part, folder / part)
        (folder / "pipeline.yaml").write_text(config.read_text())
    number = f"{NAME}-{time.time_ns()}"
    command = [str(RAY), "job", "submit", f"--address={head.jobs_address}", f"--submission-id={number}"]
    command += [f"--runtime-env-json={json.dumps({'env_vars': variables})}", f"--working-dir={folder}"]
    command += [*([] if wait else ["--no-wait"]), "--", "python", "jobs/pipeline.py"]
    command += ["--config", "pipeline.yaml", f"name={NAME}"]
    for _ in range(3):
        done = subprocess.run(command, env=head.environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode == 0:
            return done.stdout
        if is_taken(head, number):  # the answer was lost, or the connection over which its output came
            return output_of(head, number, wait=wait)
    raise AssertionError(f"{done.stdout[-3000:]}{done.stderr[-3000:]}\n{head.logs()}")


def is_taken(head: Head, number: str) -> bool:
    try:
        return any(job["submission_id"] == number for job in head.ask("/api/jobs/"))
    except (OSError, HTTPException):
        return False


def output_of(head: Head, number: str, *, wait: bool) -> str:
    """Of a job that runs already; with `wait` when it is over, and it has to have succeeded."""
    deadline = time.monotonic() + 900
    while wait and (status := head.ask(f"/api/jobs/{number}")["status"]) != "SUCCEEDED":
        assert status in ("PENDING", "RUNNING"), head.ask(f"/api/jobs/{number}/logs")["logs"][-6000:] + head.logs()
        assert time.monotonic() < deadline, head.logs()
        time.sleep(1)
    return str(head.ask(f"/api/jobs/{number}/logs")["logs"])


def files(storage: Storage, ending: str) -> list[str]:
    return [e.uri for e in storage.list_files(storage.root(NAME)) if e.uri.endswith(ending)]


def in_phase_full(storage: Storage) -> bool:
    for uri in files(storage, "state.json"):
        if "finetune" in uri:
            place = json.loads(storage.read_bytes(uri))
            if place["phase"] == 1 and place["epoch"] >= 1:
                return True
    return False


def test_killed_in_phase_full_and_submitted_again_gives_the_same_metrics(
    head: Head, config_file: tuple[Path, Storage], s3_server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, storage = config_file
    submit(head, config, s3_server, wait=False)
    deadline = time.monotonic() + 600
    while not in_phase_full(storage):
        assert time.monotonic() < deadline, f"phase full was never reached\n{head.logs()}"
        time.sleep(0.2)
    assert kill_descendants(head.process.pid, f"name={NAME}".encode(), b"ray::RayTrainWorker") >= 2  # its driver is one
    assert not files(storage, "metrics.json")
    printed = submit(head, config, s3_server)
    assert "pretrain: found" in printed
    assert [uri for uri in files(storage, ".parquet") if "/predictions/" in uri]
    evaluated, registered = sorted(files(storage, "metrics.json"))
    assert "/evaluations/" in evaluated
    assert "/models/" in registered
    assert storage.read_bytes(evaluated) == storage.read_bytes(registered)

    for name, value in s3_server.server.environment().items():  # type: ignore[attr-defined]
        monkeypatch.setenv(name, value)
    settings = apply_overrides(load_config(config, []), [f"name={NAME}"])
    target = stages.target_dataset(settings)
    run = stages.finetune_run(settings, target)
    storage.delete_tree(run.uri)
    run.publish(plain(run))  # trained without interruption, and without Ray
    runs = stages.compared_runs(settings, target)
    whole = evaluate(storage, target, stages.compared_models(settings, target, runs), settings)
    assert whole["metrics"] == json.loads(storage.read_bytes(evaluated))["metrics"]
