"""Top-k lists for every user, as parquet with the retailer's own ids, on Ray Data."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.checkpoint import MANIFEST_FILE
from ray_app.config import Config, fingerprint
from ray_app.data.dataset import Dataset
from ray_app.data.pool import map_parts
from ray_app.data.sequences import COLUMNS, Histories, LongArray, Ragged
from ray_app.errors import DataError
from ray_app.metrics import top_k
from ray_app.schema import PAD, Col, predictions_schema
from ray_app.storage import Storage, join
from ray_app.tasks.diversity import POOL, Vectors, content_vectors, diversified
from ray_app.tasks.recommend import questions
from ray_app.tasks.scorer import Answering, Scorer, load_scorer

MANIFEST = "manifest.json"
PATH, USERS, NO_HISTORY, ROWS = "path", "users", "users_without_history", "rows"


def predictions_uri(storage: Storage, dataset: Dataset, model_uri: str, config: Config) -> str:
    """A folder of its own for these inputs."""
    return join(storage.root(config.name), "predictions", fingerprint(_inputs(storage, dataset, model_uri, config)))


def predict(
    storage: Storage,
    dataset: Dataset,
    model_uri: str,
    config: Config,
    out_uri: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write `part-*.parquet` (`schema.predictions_schema`) for every user of `dataset`, and `manifest.json` last.

    A finished folder of the same inputs is found, and nothing is done. Users without a history get what the model
    holds to be popular. With `predict.history: all` a hybrid counts all events; with `before_test` and the
    `exclude_seen` of the evaluation, the lists are those that evaluation scored.

    Returns:
        The manifest: counts, parts, and the hashes of what they were made from.

    Raises:
        CheckpointError: the model is incomplete, damaged, or does not fit.
        DataError: `out_uri` holds predictions made from something else.
    """
    inputs = _inputs(storage, dataset, model_uri, config)
    path = join(out_uri, MANIFEST)
    if storage.exists(path):
        found: dict[str, Any] = json.loads(storage.read_bytes(path))
        if found.get("inputs") != inputs:
            raise DataError(f"{out_uri}: holds predictions of another model, dataset or setting; name another folder")
        return found
    _scorer(storage, dataset, model_uri, config)  # a fault becomes a sentence here, and a dead actor there
    settings = {"storage": storage, "dataset": dataset, "model_uri": model_uri, "config": config, "out_uri": out_uri}
    bar = progress.add_task("predict", total=dataset.manifest.counts.users) if progress else None
    parts: list[dict[str, Any]] = []
    for table in map_parts(dataset.part_uris, Predictor, settings, config.train):
        parts += table.to_pylist()
        if progress and bar is not None:
            progress.update(bar, completed=sum(part[USERS] for part in parts))
    totals = {name: sum(part[name] for part in parts) for name in (USERS, NO_HISTORY, ROWS)}
    assert totals[USERS] == dataset.manifest.counts.users
    manifest = {"inputs": inputs, "model": model_uri, "dataset": dataset.uri, **totals, "parts": parts}
    storage.write_bytes(path, json.dumps(manifest, indent=1).encode())
    return manifest


def _inputs(storage: Storage, dataset: Dataset, model_uri: str, config: Config) -> dict[str, Any]:
    """What the lists follow from; a model or dataset that was copied elsewhere is still the same."""
    manifest = storage.read_bytes(join(model_uri, MANIFEST_FILE))
    return {
        "model_manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "dataset_fingerprint": dataset.manifest.fingerprint,
        **config.predict.model_dump(mode="json", exclude={"together", "together_orders"}),
    }


def _scorer(storage: Storage, dataset: Dataset, model_uri: str, config: Config) -> Answering:
    return load_scorer(storage, dataset, model_uri, config, today=config.predict.history == "all")


class Predictor:
    """An actor: loads the model once, then writes one part after another."""

    def __init__(self, storage: Storage, dataset: Dataset, model_uri: str, config: Config, out_uri: str) -> None:
        torch.set_num_threads(config.train.cpus_per_worker)
        self._storage = storage
        self._dataset = dataset
        self._config = config
        self._out_uri = out_uri
        self._item_ids = dataset.items()[Col.ITEM].combine_chunks()
        self._scorer = _scorer(storage, dataset, model_uri, config)
        self._vectors: Vectors | None = None
        if config.predict.diversity:
            content = content_vectors(dataset)
            self._vectors = self._scorer.vectors() if content is None else content

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """One row: the name of the file that was written, and how many users and rows it has."""
        histories = Histories.from_tables([self._storage.read_table(uri, COLUMNS)])
        name = uri.rpartition("/")[2]
        table, no_history = self._lists(histories)
        self._storage.write_table(join(self._out_uri, name), table)
        counts = {PATH: name, USERS: len(histories), NO_HISTORY: no_history, ROWS: table.num_rows}
        yield pa.Table.from_pylist([counts])

    def _lists(self, histories: Histories) -> tuple[pa.Table, int]:
        """The lists of some users, in their order, and how many of them have no history."""
        settings = self._config.predict
        nobody = (np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
        columns: list[tuple[NDArray[Any], ...]] = [nobody]  # a part of a small log may be empty
        no_history = 0
        for users, known in rounds(histories, self._config):
            row, *rest = best_items(
                self._scorer, known, settings.k, settings.exclude_seen, self._vectors, settings.diversity
            )
            columns.append((users[row], *rest))
            no_history += int(np.count_nonzero(known.lengths == 0))
        user, item, rank, score = (np.concatenate(column) for column in zip(*columns, strict=True))
        order = np.argsort(user, kind="stable")
        schema = predictions_schema(self._dataset.user_type, self._dataset.item_type)
        arrays = [histories.user_ids.take(user[order]), self._item_ids.take(item[order] - 1), rank[order], score[order]]
        return pa.table(arrays, schema=schema), no_history


def rounds(histories: Histories, config: Config) -> Iterator[tuple[LongArray, Ragged]]:
    """All users and their histories, a batch at a time.

    Before the test part, the users that evaluation asks about come first, in its own batches: sums of floats depend on
    the shape of a batch, and lists must be those that were scored to the last tie.
    """
    everyone = np.arange(len(histories))
    if config.predict.history == "all":
        known, groups = histories.all_events(), [everyone]
    else:
        asked = questions(histories, "test", config.predict.exclude_seen)[0]
        known, groups = histories.before("test"), [asked, np.setdiff1d(everyone, asked)]
    size = config.evaluate.batch_users
    for group in groups:
        for start in range(0, len(group), size):
            users = group[start : start + size]
            yield users, known.take(users)


def best_items(
    scorer: Scorer, known: Ragged, k: int, exclude_seen: bool, vectors: "Vectors | None" = None, diversity: float = 0.0
) -> tuple[LongArray, NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Flat lists: number of the user in `known`, item index, rank from 1, score.

    With item vectors the order is that of MMR with this `diversity`, and scores do not fall along a list.
    """
    pool = k if vectors is None else min(k * POOL, vectors.shape[0] - 1)
    items, scores = top_k(scorer.scores(known), pool, known if exclude_seen else None)
    if vectors is not None:
        items, scores = diversified(items, scores, vectors, k, diversity)
    user, place = np.nonzero(items != PAD)
    return user, items[user, place], (place + 1).astype(np.int32), scores[user, place]
