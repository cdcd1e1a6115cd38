"""Phases that trials share: the snapshot at a phase's end, known by all that led to it, is where others go on.

A run that goes on from a snapshot is the uninterrupted one bit for bit, so sharing changes no result.
"""

import tempfile
import uuid
from pathlib import Path

from ray_app import checkpoint
from ray_app.config import dump
from ray_app.storage import Storage, join
from ray_app.training.run import Run
from ray_app.training.snapshot import Snapshot
from ray_app.tuning.space import training_key

FIRST = "first"
"""The file that names the snapshot to read."""


def keep_prefix(storage: Storage, folder: str, run: Run, snapshot: Snapshot) -> None:
    """Write the snapshot of a phase that is over, unless another trial was first.

    Two trials may end the same phase at once. Their weights are the same, their clocks are not, so that files of both
    would be no checkpoint: each writes a folder of its own, and who names his first is read.
    """
    assert snapshot.progress.epoch == snapshot.progress.step == 0
    place = _place(folder, run, snapshot.progress.phase)
    if storage.exists(join(place, FIRST)):
        return
    mine = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as name:
        snapshot.save(Path(name))
        checkpoint.seal(Path(name), dump(run.config), role=run.role, dataset=run.dataset.uri)
        checkpoint.publish(storage, Path(name), join(place, mine))
    if not storage.create(join(place, FIRST), mine.encode()):
        storage.delete_tree(join(place, mine))


def longest_prefix(storage: Storage, folder: str, run: Run) -> Snapshot | None:
    """The snapshot that is nearest to the end of the run; None where no trial has shared a phase with it."""
    for num_phases in range(len(run.schedule.phases), 0, -1):
        place = _place(folder, run, num_phases)
        if storage.exists(join(place, FIRST)):
            with checkpoint.fetched(storage, join(place, storage.read_bytes(join(place, FIRST)).decode())) as path:
                checkpoint.verify(path)
                return Snapshot.load(path)
    return None


def forget(storage: Storage, folder: str, run: Run) -> None:
    """Delete the snapshot of the run's end."""
    storage.delete_tree(_place(folder, run, len(run.schedule.phases)))


def _place(folder: str, run: Run, num_phases: int) -> str:
    """The folder of snapshots after the run's first phases."""
    phases = run.schedule.phases
    wise = run.schedule.wise if num_phases == len(phases) else ()  # it comes after the last phase alone
    schedule = run.schedule.model_copy(update={"phases": phases[:num_phases], "wise": wise})
    return join(folder, training_key(run.config, schedule, run.role == "finetune"))
