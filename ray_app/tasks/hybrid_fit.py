"""How a hybrid is made: memory counted over the log, candidates described in parallel, the ranker fitted to them."""

import json
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.progress import Progress

from ray_app import checkpoint
from ray_app.baselines import read_log, read_whole_log
from ray_app.checkpoint import fetched, verify
from ray_app.config import Config, dump, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Histories, Ragged
from ray_app.evidence.memory import Memory
from ray_app.evidence.ranker import Ranker, too_few_users
from ray_app.models.device import device_of
from ray_app.schema import Col
from ray_app.storage import Storage, join
from ray_app.tasks.hybrid import FACTS_FILE, MEMORY_FILE, RANKER_FILE, TODAY_FILE, Evidences
from ray_app.tasks.recommend import questions
from ray_app.tasks.recommender import ITEMS_FILE, load_model
from ray_app.train_config import RankerConfig

WANTED, FIRST = "wanted", "first_of_user"
_READS_AT_ONCE = 16


def hybrid_uri(dataset: Dataset, model_uri: str, config: Config) -> str:
    """The folder of the hybrid that these inputs make."""
    assert config.ranker is not None
    files = checkpoint.read_manifest(dataset.storage, model_uri)["files"]
    # With the file's name, so that what has none is fitted again.
    key = fingerprint(
        files, TODAY_FILE, dataset.manifest.fingerprint, config.ranker, config.evaluate.exclude_seen, config.train.seed
    )
    return join(dataset.storage.root(config.name), "hybrid", key)


def fit_hybrid(dataset: Dataset, model_uri: str, config: Config, progress: Progress | None = None) -> dict[str, Any]:
    """Fit memory and ranker around a published sequence model, and publish all three at `hybrid_uri`.

    The memory is counted over the train part; the ranker learns from the validation part what each kind of evidence
    is worth. Neither sees the test part. Beside it lies the memory of today, counted over all parts, for predictions
    and the service: there as here, counts know what the histories hold and nothing later.

    Returns:
        What was measured: users and candidates learned from, trees, NDCG@10 of held-out users, feature importance.

    Raises:
        CheckpointError: the model is incomplete, damaged, or does not fit.
        DataError: the validation part has too few users to learn from.
    """
    assert config.ranker is not None
    storage = dataset.storage
    uri = hybrid_uri(dataset, model_uri, config)
    facts_uri = join(uri, FACTS_FILE)
    if storage.exists(join(uri, checkpoint.MANIFEST_FILE)):
        found: dict[str, Any] = json.loads(storage.read_bytes(facts_uri))
        return found
    with tempfile.TemporaryDirectory() as name, fetched(storage, model_uri) as source:
        folder = Path(name)
        verify(source)
        for path in source.iterdir():
            if path.name not in (checkpoint.CONFIG_FILE, checkpoint.MANIFEST_FILE):
                (folder / path.name).write_bytes(path.read_bytes())
        pq.write_table(dataset.items(), folder / ITEMS_FILE, compression="zstd")
        memory = Memory.fit(read_log(dataset)[0], dataset.items())
        memory.save(folder / MEMORY_FILE)
        memory.recounted(read_whole_log(dataset)).save_counts(folder / TODAY_FILE)
        memory_uri = join(uri, MEMORY_FILE)
        storage.write_bytes(memory_uri, (folder / MEMORY_FILE).read_bytes())
        table = _examples(dataset, model_uri, memory_uri, config, progress)
        ranker, measured = _fit_ranker(table, config.ranker, config)
        ranker.save(folder / RANKER_FILE)
        facts = {**measured, "exclude_seen": config.evaluate.exclude_seen, "importance": ranker.importance()}
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1))
        checkpoint.seal(
            folder, dump(config), role="hybrid", dataset=dataset.uri, encoder=dataset.encoder, model=model_uri
        )
        checkpoint.publish(storage, folder, uri)
    return facts


def _fit_ranker(table: pa.Table, ranker: RankerConfig, config: Config) -> tuple[Ranker, dict[str, float]]:
    columns = {name: table[name].to_numpy() for name in table.column_names}
    wanted = columns.pop(WANTED)
    starts = np.flatnonzero(columns.pop(FIRST))
    sizes = np.diff(np.append(starts, table.num_rows))
    # All cores of this container, since nothing else runs here meanwhile; OpenMP would take those of the whole node.
    return Ranker.fit(columns, wanted, sizes, ranker, seed=config.train.seed, threads=joblib.cpu_count())


def _examples(dataset: Dataset, model_uri: str, memory_uri: str, config: Config, progress: Progress | None) -> pa.Table:
    assert config.ranker is not None
    settings = {
        "storage": dataset.storage,
        "model_uri": model_uri,
        "memory_uri": memory_uri,
        "config": config,
        "share": _share(dataset, config.ranker.max_users),
    }
    from ray_app.data.pool import map_parts  # noqa: PLC0415 (whoever only loads a hybrid needs no Ray)

    bar = progress.add_task("rank: candidates described", total=None) if progress else None
    tables = []
    for table in map_parts(dataset.part_uris, Describer, settings, config.train):
        tables.append(table)
        if progress and bar is not None:
            progress.advance(bar, table.num_rows)
    if not tables:
        raise too_few_users(0)
    return pa.concat_tables(tables)


def _share(dataset: Dataset, max_users: int) -> float:
    """Of the validation part's users, how many are learned from."""
    if dataset.manifest.counts.users <= max_users:
        return 1.0

    def users(uri: str) -> int:
        held_out = dataset.storage.read_table(uri, [Col.NUM_VALIDATION])[Col.NUM_VALIDATION]
        return int(np.count_nonzero(held_out.to_numpy()))

    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        return max_users / max(sum(pool.map(users, dataset.part_uris)), 1)


class Describer:
    """An actor: the candidates of the validation part, with their features and whether they were wanted."""

    def __init__(self, storage: Storage, model_uri: str, memory_uri: str, config: Config, share: float) -> None:
        torch.set_num_threads(config.train.cpus_per_worker)
        self._storage = storage
        self._config = config
        device = device_of(config.train.use_gpu)
        self._exclude_seen = config.evaluate.exclude_seen
        with fetched(storage, model_uri) as folder:
            verify(folder)
            model = load_model(folder).model
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / MEMORY_FILE
            path.write_bytes(storage.read_bytes(memory_uri))
            memory = Memory.load(path)
        self._evidences = Evidences(model, memory, device, exclude_seen=self._exclude_seen)
        self._share = share

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """Tables of users that have a wanted item among their candidates."""
        histories = Histories.from_tables([self._storage.read_table(uri, COLUMNS)])
        users, known, targets = questions(histories, "validation", self._exclude_seen)
        rng = np.random.default_rng([self._config.train.seed, zlib.crc32(uri.rpartition("/")[2].encode())])
        asked = np.flatnonzero(rng.random(len(users)) < self._share)
        known, targets = known.take(asked), targets.take(asked)
        size = self._config.evaluate.batch_users
        for start in range(0, len(asked), size):
            stop = min(start + size, len(asked))
            table = described_examples(self._evidences, known.slice(start, stop), targets.slice(start, stop))
            if table.num_rows:
                yield table


def described_examples(evidences: Evidences, known: Ragged, targets: Ragged) -> pa.Table:
    """The candidates of users that took one of them next: features, whether it was taken, where a user begins."""
    scores, pairs, described = evidences.describe(known)
    width = scores.shape[1]
    asked = np.repeat(np.arange(len(scores)), targets.lengths) * np.int64(width) + targets.values
    wanted = np.isin(pairs.users * np.int64(width) + pairs.items, asked)
    taught = np.bincount(pairs.users, wanted, len(scores)) > 0
    kept = taught[pairs.users]
    users = pairs.users[kept]
    first = np.append(True, users[1:] != users[:-1]) if len(users) else np.zeros(0, np.bool_)
    columns = {name: column[kept] for name, column in described.items()}
    return pa.table({**columns, WANTED: wanted[kept], FIRST: first})
