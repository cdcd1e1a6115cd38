"""One training run: what it is made of, the key that follows from it, and the folder its result is published in."""

import json
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ray_app import checkpoint
from ray_app.config import Config, dump, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.picture_set import PictureSet
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.training.kinds import KINDS, Kind
from ray_app.training.snapshot import Snapshot
from ray_app.training.task import Task
from ray_app.training.world import World

RECORDS_FILE = "records.json"
Role = Literal["pretrain", "finetune", "scratch"]


@dataclass(frozen=True)
class Run:
    """A run is known by its inputs: the same inputs have the same key, so a second run finds the first one's result."""

    role: Role
    config: Config
    schedule: Schedule
    dataset: Dataset | PictureSet
    start_from: str | None = None
    """Folder of the checkpoint whose weights this run begins with."""

    @property
    def storage(self) -> Storage:
        """Where the run reads and writes."""
        return self.dataset.storage

    @cached_property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        train = dump(self.config.train)
        train.pop("max_failures")
        return fingerprint(self.schedule, train, self.dataset.manifest.fingerprint, *self._kind.depends_on(self))

    @property
    def _kind(self) -> Kind:
        return KINDS[self.config.task.kind]

    @property
    def metric(self) -> str:
        """What validation chooses by."""
        return self._kind.metric

    def begin(self, world: World, *, keep: bool = False) -> Task:
        """What this worker trains: its share of the data, and the model at its start.

        With `keep`, what was read is kept for the next run like it in this process, as the trials of a search are.
        """
        return self._kind.begin(self, world, keep=keep)

    def prepare(self) -> None:
        """Make, in this process, what `begin` reads and nobody has made yet."""
        self._kind.prepare(self)

    @property
    def name(self) -> str:
        """Role and key: what Ray Train calls the run."""
        return f"{self.role}-{self.key}"

    @property
    def uri(self) -> str:
        """The folder of the published result."""
        return join(self.storage.root(self.config.name), self.role, self.key)

    @property
    def work_uri(self) -> str:
        """The folder under which Ray Train keeps the run's checkpoints."""
        return join(self.storage.root(self.config.name), "runs")

    def is_published(self) -> bool:
        """Whether the result is complete: its manifest is written last."""
        return self.storage.exists(join(self.uri, checkpoint.MANIFEST_FILE))

    def publish(self, snapshot: Snapshot) -> None:
        """Write the inference checkpoint: weights and what they speak of, training records, configuration, hashes."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            facts = self._kind.write(self, snapshot, folder)
            (folder / RECORDS_FILE).write_text(json.dumps(snapshot.progress.records))
            config = dump(self.config.model_copy(update={"schedule": self.schedule}))
            checkpoint.seal(folder, config, role=self.role, dataset=self.dataset.uri, **facts)
            checkpoint.publish(self.storage, folder, self.uri)

    def records(self) -> list[dict[str, Any]]:
        """One record per epoch of a published run."""
        records: list[dict[str, Any]] = json.loads(self.storage.read_bytes(join(self.uri, RECORDS_FILE)))
        return records
