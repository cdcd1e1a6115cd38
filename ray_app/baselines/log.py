"""The events that baselines and the memory are counted from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ray_app.data.dataset import Dataset
from ray_app.data.sequences import COLUMNS, Histories, Ragged
from ray_app.metrics import Scores
from ray_app.schema import PAD

UNSCORED = 1e-9
"""Popularity is worth at most this much: far below any score that a baseline gives, so it only orders the rest."""


@dataclass(frozen=True)
class TrainingLog:
    """Events that may be counted, user after user, each user's from oldest to newest."""

    items: NDArray[np.int32]
    """Item indices `[events]`, from 1."""
    offsets: NDArray[np.int64]
    """Where each user's events begin and end, `[users + 1]`."""
    times: NDArray[np.int64]
    """Microseconds since 1970, or order numbers, `[events]`."""
    weights: NDArray[np.float32]
    """Weight of each event's type, `[events]`; 0 is context, which may be followed but is nothing to recommend."""
    num_items: int
    order_numbers: bool = False
    """Times are order numbers of each user's own."""

    @property
    def users(self) -> NDArray[np.int64]:
        """The row of the user of each event, `[events]`."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def popularity(self, chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.float64]:
        """Summed weights of the chosen events by item, `[num_items + 1]`."""
        weights = self.weights[chosen].astype(np.float64)
        return np.bincount(self.items[chosen], weights, minlength=self.num_items + 1).astype(np.float64)

    def unscored(self) -> Scores:
        """Scores `[num_items + 1]` in the order of popularity, all of them at most `UNSCORED`."""
        order = np.unique(self.popularity(), return_inverse=True)[1]
        # Places, not counts: float32 would round great counts to ties.
        return np.asarray(UNSCORED * order / max(order.max(), 1), np.float32)


def read_log(dataset: Dataset) -> tuple[TrainingLog, Ragged]:
    """The train part of every user of a prepared dataset, and every user's targets in the validation part."""
    parts = _parts(dataset)
    targets = [part.targets("validation") for part in parts]
    log = _log(dataset, parts, [_in_train(part) for part in parts])
    return log, Ragged(np.concatenate([part.values for part in targets]), _offsets([part.lengths for part in targets]))


def read_whole_log(dataset: Dataset) -> TrainingLog:
    """All parts of every user, those held out too: for what answers today, never for evaluation."""
    parts = _parts(dataset)
    return _log(dataset, parts, [part.items != PAD for part in parts])


def _parts(dataset: Dataset) -> list[Histories]:
    return [Histories.from_tables([dataset.storage.read_table(uri, COLUMNS)]) for uri in dataset.part_uris]


def _log(dataset: Dataset, parts: list[Histories], wanted: list[NDArray[np.bool_]]) -> TrainingLog:
    chosen = list(zip(parts, wanted, strict=True))
    return TrainingLog(
        items=np.concatenate([part.items[kept] for part, kept in chosen]),
        offsets=_offsets([Ragged(part.items, part.offsets).keep(kept).lengths for part, kept in chosen]),
        times=np.concatenate([part.times[kept] for part, kept in chosen]),
        weights=np.concatenate([part.weights[kept] for part, kept in chosen]),
        num_items=dataset.num_items,
        order_numbers=dataset.manifest.data["timestamp_unit"] == "order",
    )


def _offsets(lengths: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate(lengths))])


def _in_train(histories: Histories) -> NDArray[np.bool_]:
    lengths = np.diff(histories.offsets)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], lengths)
    return place < np.repeat(histories.num_train, lengths)
