"""Phases that trials share: the snapshot at a phase's end, known by all that led to it, is where others go on.

A run that goes on from a snapshot is the uninterrupted one bit for bit, so sharing changes no result.
"""

import tempfile
from pathlib import Path

from ray_app import checkpoint
from ray_app.config import dump
from ray_app.storage import Storage, join
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.tuning.space import training_key


def prefix_uri(folder: str, run: Run, num_phases: int) -> str:
    """Where the snapshot after the run's first phases is, or would be."""
    schedule = run.schedule.model_copy(update={"phases": run.schedule.phases[:num_phases]})
    return join(folder, training_key(run.config, schedule, run.start_from is not None))


def keep_prefix(storage: Storage, folder: str, run: Run, snapshot: Snapshot) -> None:
    """Write the snapshot of a phase that is over."""
    assert snapshot.progress.epoch == snapshot.progress.step == 0
    with tempfile.TemporaryDirectory() as name:
        snapshot.save(Path(name))
        checkpoint.seal(Path(name), dump(run.config), role=run.role, dataset=run.dataset.uri)
        checkpoint.publish(storage, Path(name), prefix_uri(folder, run, snapshot.progress.phase))


def longest_prefix(storage: Storage, folder: str, run: Run) -> Snapshot | None:
    """The snapshot that is nearest to the end of the run; None where no trial has shared a phase with it."""
    for num_phases in range(len(run.schedule.phases), 0, -1):
        uri = prefix_uri(folder, run, num_phases)
        if storage.exists(join(uri, checkpoint.MANIFEST_FILE)):
            with checkpoint.fetched(storage, uri) as path:
                checkpoint.verify(path)
                return Snapshot.load(path)
    return None
