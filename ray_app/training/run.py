"""One training run: what it is made of, the key that follows from it, and the folder its result is published in."""

import json
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from ray_app import checkpoint
from ray_app.config import Config, dump, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.schedule import Schedule
from ray_app.storage import Storage, join
from ray_app.tasks.recommender import ITEMS_FILE, MODEL_FILE, complete
from ray_app.training.snapshot import Snapshot

RECORDS_FILE = "records.json"
Role = Literal["pretrain", "finetune", "scratch"]


@dataclass(frozen=True)
class Run:
    """A run is known by its inputs: the same inputs have the same key, so a second run finds the first one's result."""

    role: Role
    config: Config
    schedule: Schedule
    dataset: Dataset
    start_from: str | None = None
    """Folder of the checkpoint whose weights this run begins with."""

    @property
    def storage(self) -> Storage:
        """Where the run reads and writes."""
        return self.dataset.storage

    @cached_property
    def key(self) -> str:
        """Hash of everything that the result depends on."""
        train, model = dump(self.config.train), dump(self.config.model)
        train.pop("max_failures")
        model.pop("start_from")  # what it names counts, not its name, and nothing in a run from scratch
        start = checkpoint.read_manifest(self.storage, self.start_from)["files"] if self.start_from else None
        exclude_seen = self.config.evaluate.exclude_seen
        content = [self.dataset.encoder] if self.dataset.encoder else []
        return fingerprint(
            model, self.schedule, train, self.dataset.manifest.fingerprint, start, exclude_seen, *content
        )

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
        """Write the inference checkpoint: weights, item index, training records, configuration, hashes."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            items = self.dataset.items()
            replace(snapshot, model=complete(snapshot.model, self.config.model, items)).save_model(folder / MODEL_FILE)
            pq.write_table(items, folder / ITEMS_FILE, compression="zstd")
            (folder / RECORDS_FILE).write_text(json.dumps(snapshot.progress.records))
            config = dump(self.config.model_copy(update={"schedule": self.schedule}))
            facts = {"role": self.role, "dataset": self.dataset.uri, "encoder": self.dataset.encoder}
            checkpoint.seal(folder, config, **facts, cutoffs=self.dataset.manifest.cutoffs.model_dump())
            checkpoint.publish(self.storage, folder, self.uri)

    def records(self) -> list[dict[str, Any]]:
        """One record per epoch of a published run."""
        records: list[dict[str, Any]] = json.loads(self.storage.read_bytes(join(self.uri, RECORDS_FILE)))
        return records
