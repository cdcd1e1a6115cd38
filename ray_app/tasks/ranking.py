"""Evaluation: every user's held-out items, ranked among the full catalogue by models and baselines, on Ray Data."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from ray_app.baselines import fit_baselines
from ray_app.checkpoint import read_manifest
from ray_app.config import Config
from ray_app.data.categories import category_numbers
from ray_app.data.dataset import Dataset
from ray_app.data.pool import Shared, map_parts
from ray_app.data.sequences import COLUMNS, Histories, LongArray, Ragged
from ray_app.errors import ConfigError, DataError
from ray_app.metrics import target_ranks, top_k
from ray_app.schema import PAD, Col
from ray_app.storage import Storage
from ray_app.tasks.recommend import questions
from ray_app.tasks.scoreboard import LIST_LENGTH, Outcomes, scoreboard
from ray_app.tasks.scorer import Scorer, load_scorer

HISTORY, POPULARITY, TARGETS = "history", "popularity", "targets"


def rank_batch(
    scorers: Mapping[str, Scorer], known: Ragged, targets: Ragged, exclude_seen: bool
) -> dict[str, tuple[LongArray, NDArray[np.int32]]]:
    """By method: ranks beside the values of `targets`, and the top lists `[users, LIST_LENGTH]`."""
    seen = known if exclude_seen else None
    found = {}
    for name, scorer in scorers.items():
        scores = scorer.scores(known)
        found[name] = target_ranks(scores, targets, seen)[0], top_k(scores, LIST_LENGTH, seen)[0]
    return found


class Ranker:
    """An actor: loads every method once, then ranks one part after another."""

    def __init__(
        self,
        storage: Storage,
        dataset: Dataset,
        models: dict[str, str],
        baselines: Shared[dict[str, Scorer]],
        config: Config,
    ) -> None:
        torch.set_num_threads(config.train.cpus_per_worker)
        self._storage = storage
        self._settings = config.evaluate
        self._scorers: dict[str, Scorer] = {
            name: load_scorer(storage, dataset, uri, config) for name, uri in models.items()
        }
        self._scorers |= baselines.get()
        self._train_counts = _train_counts(dataset)

    def __call__(self, uri: str) -> Iterator[pa.Table]:
        """One row per user that has a target: length of the history, targets, and by method ranks and top list."""
        histories = Histories.from_tables([self._storage.read_table(uri, COLUMNS)])
        users, known, targets = questions(histories, "test", self._settings.exclude_seen)
        size = self._settings.batch_users
        for start in range(0, len(users), size):
            stop = min(start + size, len(users))
            yield self._rank(known.slice(start, stop), targets.slice(start, stop))

    def _rank(self, known: Ragged, targets: Ragged) -> pa.Table:
        columns: dict[str, pa.Array[Any]] = {
            HISTORY: pa.array(known.lengths),
            POPULARITY: pa.array(_mean_counts(known, self._train_counts)),
            TARGETS: _lists(targets.values, targets),
        }
        found = rank_batch(self._scorers, known, targets, self._settings.exclude_seen)
        for number, (ranks, top) in enumerate(found.values()):
            columns[_ranks(number)] = _lists(ranks, targets)
            columns[_top(number)] = pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), LIST_LENGTH)
        return pa.table(columns)


def evaluate(
    storage: Storage,
    dataset: Dataset,
    methods: Mapping[str, str],
    config: Config,
    progress: Progress | None = None,
    known: Dataset | None = None,
) -> dict[str, Any]:
    """Rank the test part's targets by every method: what `metrics.json` holds.

    Args:
        storage: where the checkpoints are.
        dataset: whose test part is asked about; baselines are fitted on its train part.
        methods: name in the table -> URI of a published checkpoint. The first is compared with all others.
        config: `evaluate`, and the workers of `train`.
        progress: where a bar is shown.
        known: a sample of `dataset` whose train part baselines and counts of items are taken of instead.

    Raises:
        CheckpointError: a checkpoint is incomplete, damaged, or does not fit.
        ConfigError: there is no method at all.
        DataError: no user has anything to be ranked in the test part.
    """
    if not methods and not config.evaluate.baselines:
        raise ConfigError(["evaluate.baselines: empty, and no model was named either, so there is nothing to evaluate"])
    known = known or dataset
    # Loaded here first: a damaged checkpoint is a sentence here, and a dead actor there.
    origins = {name: _origin(storage, known, uri, config) for name, uri in methods.items()}
    baselines = fit_baselines(config.evaluate.baselines, known, config.evaluate.exclude_seen)
    origins |= {name: {"kind": "baseline", "fitted_on": _fitted_on(name)} for name in baselines}
    outcomes = Outcomes(list(origins), _train_counts(known), category_numbers(dataset.items()))
    settings = {
        "storage": storage,
        "dataset": known,
        "models": dict(methods),
        "baselines": Shared(baselines),
        "config": config,
    }
    bar = progress.add_task("evaluate: users ranked", total=None) if progress else None
    for table in map_parts(dataset.part_uris, Ranker, settings, config.train):
        outcomes.add(table[HISTORY].to_numpy(), table[POPULARITY].to_numpy(), *_unpack(table, len(origins)))
        if progress and bar is not None:
            progress.advance(bar, table.num_rows)
    if not outcomes.num_users:
        raise DataError(
            f"{dataset.uri}: no user has {'a new' if config.evaluate.exclude_seen else 'an'} item in the test part, so "
            "there is nothing to evaluate; look at data.split"
        )
    board = scoreboard(outcomes, config.evaluate, config.train.seed)
    return {"protocol": _protocol(dataset, outcomes, config), "methods": origins, **board}


def _train_counts(dataset: Dataset) -> LongArray:
    """Training events of each item, `[num_items + 1]`."""
    return np.concatenate([[0], dataset.items()[Col.TRAIN_COUNT].to_numpy()])


def _mean_counts(known: Ragged, train_counts: LongArray) -> NDArray[np.float64]:
    """Mean training events of the distinct items of each history, NaN for an empty one, `[users]`."""
    users = np.repeat(np.arange(len(known.lengths)), known.lengths)
    own = np.unique(users * len(train_counts) + known.values)
    owner, item = np.divmod(own, len(train_counts))
    sums, sizes = (np.bincount(owner, weights, len(known.lengths)) for weights in (train_counts[item], None))
    means: NDArray[np.float64] = np.divide(sums, sizes, out=np.full(len(sums), np.nan), where=sizes > 0)
    return means


def _origin(storage: Storage, dataset: Dataset, uri: str, config: Config) -> dict[str, Any]:
    load_scorer(storage, dataset, uri, config)
    manifest = read_manifest(storage, uri)
    fitted_on = "train part; validation part chose the epoch"
    fitted_on += " and taught the ranker" if manifest.get("role") == "hybrid" else ""
    if manifest["dataset"].rpartition("/")[2] != dataset.manifest.fingerprint:
        fitted_on += "; of another log, not of this one"
    return {"kind": "model", "fitted_on": fitted_on, "dataset": manifest["dataset"], "checkpoint": uri}


def _fitted_on(baseline: str) -> str:
    return "train part" + ("; validation part chose the weights" if baseline.startswith("transitions") else "")


def _protocol(dataset: Dataset, outcomes: Outcomes, config: Config) -> dict[str, Any]:
    targets = outcomes.targets()
    return {
        "ranking": "full catalogue",
        "split": dataset.manifest.data["split"]["kind"],
        "cutoffs": dataset.manifest.cutoffs.model_dump(),
        "question": "items of the user's first order in the test part, from the history before it",
        "exclude_seen": config.evaluate.exclude_seen,
        "dataset": dataset.uri,
        "fingerprint": dataset.manifest.fingerprint,
        "items": dataset.num_items,
        "users": outcomes.num_users,
        "targets": len(targets.values),
        "unknown_targets": int(np.count_nonzero(targets.values == PAD)),
        "interval": "95% bootstrap percentile over users",
        "bootstrap_samples": config.evaluate.bootstrap_samples,
    }


def _lists(values: NDArray[Any], like: Ragged) -> "pa.Array[Any]":
    return pa.LargeListArray.from_arrays(pa.array(like.offsets), pa.array(values))


def _unpack(table: pa.Table, num_methods: int) -> tuple[Ragged, list[NDArray[Any]], list[NDArray[Any]]]:
    """Targets, ranks by method, top lists by method."""
    lengths = pc.list_value_length(table[TARGETS]).to_numpy()
    targets = Ragged(_flat(table[TARGETS]), np.concatenate([[0], np.cumsum(lengths)]))
    ranks = [_flat(table[_ranks(number)]) for number in range(num_methods)]
    return targets, ranks, [_flat(table[_top(number)]).reshape(-1, LIST_LENGTH) for number in range(num_methods)]


def _flat(lists: "pa.ChunkedArray[Any]") -> NDArray[Any]:
    values: NDArray[Any] = pc.list_flatten(lists).to_numpy()
    return values


def _ranks(number: int) -> str:
    return f"ranks_{number}"


def _top(number: int) -> str:
    return f"top_{number}"
