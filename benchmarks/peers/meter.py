"""What every peer is measured by: one clock, one validation, one kind of report.

Runs in a peer's own environment, which has numpy, torch and pyarrow; `ray_app.metrics` is the only room it enters.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from ray_app.metrics import ndcg, target_ranks

MAX_HISTORY = 50
BATCH_USERS = 256
Encoder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Histories `[users, MAX_HISTORY]`, oldest first, padded with 0 on the right, and their lengths; scores
`[users, num_items + 1]` by item id."""


class Stop(Exception):  # noqa: N818 (not an error)
    """Time is up, or the aim is reached."""


def arguments(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with interactions.parquet")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--until", type=float, default=1.0, help="stop at this validation NDCG@10")
    parser.add_argument(
        "--budget-s", type=float, default=float("inf"), help="stop after so many CPU seconds of training"
    )
    return parser.parse_args()


class Meter:
    """The train part of a log, and the CPU seconds that training on it takes; validation is left out of them."""

    def __init__(self, settings: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self._settings = settings
        log = pq.read_table(settings.data / "interactions.parquet")
        log = log.sort_by([("user_id", "ascending"), ("position", "ascending")])
        users, self.items = log["user_id"].to_numpy(), log["item_id"].to_numpy()
        lengths = np.unique(users, return_counts=True)[1]
        to_the_end = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(users))
        self._held_out = self.items[to_the_end == 2]
        self.num_items = int(self.items.max())
        self.users, self.items, self.positions = (
            column[to_the_end > 2] for column in (users, self.items, log["position"].to_numpy())
        )
        self._offsets = np.concatenate([[0], np.cumsum(lengths - 2)])
        self._seconds, self._started, self._targets, self._epochs = 0.0, 0.0, 0, 0

    def start(self) -> None:
        """Training goes on."""
        self._started = time.process_time()

    def step(self, targets: int) -> None:
        """One step on so many target positions is done; raises `Stop` when the budget is spent."""
        self._targets += targets
        if self._seconds + time.process_time() - self._started >= self._settings.budget_s:
            raise Stop

    def pause(self) -> None:
        """Training stands still."""
        self._seconds += time.process_time() - self._started

    def validate(self, score: Encoder) -> None:
        """Print where training stands; raises `Stop` when there is no more to do."""
        self._epochs += 1
        reached = self._ndcg(score)
        record = {
            "epoch": self._epochs,
            "train_cpu_s": round(self._seconds, 2),
            "targets": self._targets,
            "val/ndcg@10": round(reached, 5),
        }
        print(json.dumps(record), flush=True)
        done = reached >= self._settings.until or self._epochs >= self._settings.epochs
        if done or self._seconds >= self._settings.budget_s:
            raise Stop

    def _ndcg(self, score: Encoder) -> float:
        """NDCG@10 of the second to last event of every user, full catalogue, seen items excluded."""
        gained = []
        for first in range(0, len(self._held_out), BATCH_USERS):
            held_out = self._held_out[first : first + BATCH_USERS]
            offsets = self._offsets[first : first + len(held_out) + 1]
            seen = self.items[offsets[0] : offsets[-1]], offsets - offsets[0]
            histories = np.zeros((len(held_out), MAX_HISTORY), np.int64)
            for row in range(len(held_out)):
                history = seen[0][seen[1][row] : seen[1][row + 1]][-MAX_HISTORY:]
                histories[row, : len(history)] = history
            lengths = np.minimum(np.diff(offsets), MAX_HISTORY)
            targets = held_out, np.arange(len(held_out) + 1)
            gained.append(ndcg(target_ranks(score(histories, lengths), targets, seen), 10))
        return float(np.concatenate(gained).mean())
