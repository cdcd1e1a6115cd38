"""Shared phases on local folders and S3: who is first is read, whatever else was written meanwhile."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from ray_app import checkpoint
from ray_app.config import apply_overrides, parse_config
from ray_app.data.dataset import Dataset
from ray_app.storage import Storage, join
from ray_app.training.run import Run
from ray_app.training.snapshot import Progress, Snapshot
from ray_app.tuning.prefixes import keep_prefix, longest_prefix

CONFIG = parse_config({"model": {"start_from": "somewhere"}})
DATASET = cast(Dataset, SimpleNamespace(uri="d"))


def run(*overrides: str) -> Run:
    config = apply_overrides(CONFIG, overrides)
    return Run("finetune", config, config.schedule, DATASET, "somewhere")


def after(phases: int, clock: float) -> Snapshot:
    torch.manual_seed(phases)
    progress = Progress(phase=phases, records=[{"phase": "head", "epoch": 1, "finished_at": clock}])
    return Snapshot.take(nn.Linear(2, 2), None, {}, progress)


def place(snapshot: Snapshot | None) -> tuple[int, float]:
    assert snapshot is not None
    return snapshot.progress.phase, float(snapshot.progress.records[0]["finished_at"])


def test_a_run_begins_at_the_longest_phases_that_another_had(storage: Storage) -> None:
    folder = join(storage.path, "prefixes")
    assert longest_prefix(storage, folder, run()) is None
    keep_prefix(storage, folder, run(), after(1, 1.0))
    assert place(longest_prefix(storage, folder, run("schedule.phases.1.epochs=3"))) == (1, 1.0)
    keep_prefix(storage, folder, run(), after(2, 2.0))
    assert place(longest_prefix(storage, folder, run())) == (2, 2.0)
    assert place(longest_prefix(storage, folder, run("schedule.phases.1.epochs=3"))) == (1, 1.0)
    for other in ("schedule.phases.0.epochs=3", "schedule.clip_norm=2", "model.dropout=0.3", "train.seed=1"):
        assert longest_prefix(storage, folder, run(other)) is None


def test_nobody_goes_on_from_where_another_went_back_toward_the_start(storage: Storage) -> None:
    """WiSE-FT comes after the last phase: what it leaves is no beginning of a longer run, and none goes on without."""
    folder, wise = join(storage.path, "prefixes"), "schedule.wise=[0.5]"
    keep_prefix(storage, folder, run(wise, "schedule.phases=[{name: a, epochs: 2}]"), after(1, 1.0))
    longer = run(wise, "schedule.phases=[{name: a, epochs: 2}, {name: b, epochs: 1}]")
    assert longest_prefix(storage, folder, longer) is None
    assert longest_prefix(storage, folder, run("schedule.phases=[{name: a, epochs: 2}]")) is None
    keep_prefix(storage, folder, run(), after(1, 2.0))
    assert place(longest_prefix(storage, folder, run(wise))) == (1, 2.0)


def test_two_that_end_a_phase_at_once_leave_one_whole_snapshot(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of both, with other clocks in them, were no checkpoint."""
    folder, publish = join(storage.path, "prefixes"), checkpoint.publish

    def publish_after_the_other(*arguments: Any) -> None:
        monkeypatch.setattr(checkpoint, "publish", publish)
        keep_prefix(storage, folder, run(), after(1, 2.0))
        publish(*arguments)

    monkeypatch.setattr(checkpoint, "publish", publish_after_the_other)
    keep_prefix(storage, folder, run(), after(1, 1.0))
    assert place(longest_prefix(storage, folder, run())) == (1, 2.0)
    folders = {entry.uri.rsplit("/", 2)[-2] for entry in storage.list_files(folder)}
    assert len(folders) == 2  # of the one snapshot, and of the file that names it
    keep_prefix(storage, folder, run(), after(1, 3.0))
    assert place(longest_prefix(storage, folder, run())) == (1, 2.0)
