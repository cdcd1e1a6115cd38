"""Some of a log's users as a dataset of its own: what there would be to learn from with fewer customers."""

from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel
from rich.progress import Progress

from ray_app.config import fingerprint
from ray_app.data.dataset import ITEMS, MANIFEST, Dataset, Manifest, Part, open_manifest
from ray_app.data.sequences import Histories
from ray_app.data.streaming import run_pass
from ray_app.errors import DataError
from ray_app.schema import PAD, SCHEMA_VERSION, Col
from ray_app.storage import Storage, join

_COUNTED = "counted"


class PartWork(BaseModel):
    """A file of sequences."""

    path: str


class PartReport(BaseModel):
    """What was kept of it."""

    part: Part
    validation_events: int
    test_events: int
    unknown_item_events: int


@dataclass(frozen=True)
class SamplePass:
    """Sequences of all users -> those of the users that were drawn, and the counts of their items."""

    storage: Storage
    source: str
    uri: str
    share: float
    num_items: int

    def __call__(self, work: PartWork) -> PartReport:
        """Write one part, and the train events of each item in it."""
        table = self.storage.read_table(join(self.source, work.path))
        table = table.filter(pa.array(drawn(table[Col.USER], self.share)))
        self.storage.write_table(join(self.uri, work.path), table)
        histories = Histories.from_tables([table])
        train = histories.train()
        counts = np.bincount(train.values[~train.clicks], minlength=self.num_items + 1)
        counted = np.flatnonzero(counts)
        pairs = pa.table({Col.ITEM_INDEX: counted.astype(np.int64), Col.TRAIN_COUNT: counts[counted]})
        self.storage.write_table(join(self.uri, _COUNTED, work.path), pairs)
        num_train, num_validation = int(histories.num_train.sum()), int(histories.num_validation.sum())
        part = Part(
            path=work.path,
            users=len(histories),
            train_events=num_train,
            train_targets=int(np.maximum(histories.num_train - 1, 0).sum()),
        )
        return PartReport(
            part=part,
            validation_events=num_validation,
            test_events=len(histories.items) - num_train - num_validation,
            unknown_item_events=int(np.count_nonzero(histories.items == PAD)),
        )


def drawn(users: pa.ChunkedArray, share: float) -> NDArray[np.bool_]:
    """Whether each user is in a sample of `share`: by a hash of the id, so that a smaller share lies in a larger."""
    hashes = (blake2b(user.encode(), digest_size=8).digest() for user in users.cast(pa.string()).to_pylist())
    return np.array([int.from_bytes(one) < share * 2**64 for one in hashes], np.bool_)


def sampled(dataset: Dataset, share: float, progress: Progress | None = None) -> Dataset:
    """The log of about so many of its users, found if it was made before.

    The catalogue stays, in its order, so that a model of one can be asked about users of the other; its counts are
    those of the users that were drawn, and items that none of them has are items without a train event.

    Raises:
        DataError: nobody was drawn who has events to learn from.
        StorageError: it cannot be written.
    """
    storage, whole = dataset.storage, dataset.manifest
    key = fingerprint(SCHEMA_VERSION, whole.fingerprint, "sample of users", share)
    uri = join(dataset.uri.rpartition("/")[0], key)
    if not storage.exists(join(uri, MANIFEST)):
        storage.delete_tree(uri)
        task = SamplePass(storage, dataset.uri, uri, share, dataset.num_items)
        work = [PartWork(path=part.path) for part in whole.parts]
        reports = run_pass(task, work, (PartWork, PartReport), f"a sample of {share:.0%}", progress)
        reports.sort(key=lambda report: report.part.path)
        if not any(report.part.train_targets for report in reports):
            raise DataError(
                f"{dataset.uri}: in a sample of {share:g} of its {whole.counts.users:,} users nobody has two events to "
                "learn from; take a larger share"
            )
        _write_items(dataset, uri)
        manifest = _manifest(whole, key, share, reports)
        storage.write_bytes(join(uri, MANIFEST), manifest.model_dump_json(indent=1).encode())
    return replace(dataset, uri=uri, manifest=open_manifest(storage, uri, Manifest))


def _write_items(dataset: Dataset, uri: str) -> None:
    """The catalogue with the counts of all parts; what they were added up from is removed."""
    storage, items = dataset.storage, dataset.items()
    counts = np.zeros(len(items) + 1, np.int64)
    for part in dataset.manifest.parts:
        pairs = storage.read_table(join(uri, _COUNTED, part.path))
        counts[pairs[Col.ITEM_INDEX].to_numpy()] += pairs[Col.TRAIN_COUNT].to_numpy()
    place = items.schema.get_field_index(Col.TRAIN_COUNT)
    storage.write_table(join(uri, ITEMS), items.set_column(place, items.schema.field(place), pa.array(counts[1:])))
    storage.delete_tree(join(uri, _COUNTED))


def _manifest(whole: Manifest, key: str, share: float, reports: list[PartReport]) -> Manifest:
    counts = whole.counts.model_copy(
        update={
            "users": sum(report.part.users for report in reports),
            "train_events": sum(report.part.train_events for report in reports),
            "validation_events": sum(report.validation_events for report in reports),
            "test_events": sum(report.test_events for report in reports),
            "unknown_item_events": sum(report.unknown_item_events for report in reports),
        }
    )
    note = f"a sample of {share:g} of the users of {whole.fingerprint}; rows are counted of all"
    parts = [report.part for report in reports]
    return whole.model_copy(
        update={"fingerprint": key, "counts": counts, "parts": parts, "notes": [*whole.notes, note]}
    )
