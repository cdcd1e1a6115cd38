"""One worker's share of the users: read once where it fits in memory, streamed window by window where it does not."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ray_app.data.batches import Batch, Windows, cut_windows, join_windows, num_steps, training_batches
from ray_app.data.dataset import Dataset
from ray_app.data.reorder import reordered
from ray_app.data.sequences import Histories

Read = Callable[[list[str]], Iterator[pa.Table]]
"""Reads sequence parts by URI, in order."""


def share_of(dataset: Dataset, rank: int, world_size: int) -> list[str]:
    """URIs of the parts that worker `rank` reads.

    The assignment is fixed, where Ray's `streaming_split` hands a block to whoever asks first: two runs with the same
    seed and number of workers must see the same data in the same order.
    """
    return dataset.part_uris[rank::world_size]


def steps_per_epoch(dataset: Dataset, world_size: int, tokens_per_batch: int) -> int:
    """Steps of every worker's epoch: as many as the largest share needs."""
    targets = [part.train_targets for part in dataset.manifest.parts]
    return num_steps(max(sum(targets[rank::world_size]) for rank in range(world_size)), tokens_per_batch)


class Shard:
    """Histories of one worker's users, in windows of at most `window_users`."""

    def __init__(self, uris: list[str], num_positions: int, read: Read, window_users: int) -> None:
        self._uris = uris
        self._num_positions = num_positions
        self._read = read
        self._window_users = window_users
        self._kept: Histories | None = None

    def windows(self) -> Iterator[Histories]:
        """All users, window by window; a single window is read once and kept."""
        if self._kept is not None:
            yield self._kept
            return
        stream = self._stream()
        window, following = next(stream, None), next(stream, None)
        if following is None:
            self._kept = window
        while window is not None:
            yield window
            window, following = following, next(stream, None)

    def batches(
        self,
        steps: int,
        max_history_len: int,
        rng: np.random.Generator,
        first: int,
        *,
        only_new: bool = False,
        reorder: float = 0.0,
    ) -> Iterator[Batch]:
        """Every training window once, in exactly `steps` batches, without the first `first` of them.

        With `reorder`, orders are first moved by less than so many places (`reorder.reordered`). Steps are dealt out as
        positions arrive. Windows that are too small for a step of their own wait for the next.
        """
        positions, taken, waiting = 0, 0, list[Windows]()
        for histories in self.windows():
            seen = reordered(histories, reorder, rng) if reorder else histories
            cut = cut_windows(seen, max_history_len, only_new=only_new)
            if not cut.num_positions:
                continue
            waiting.append(cut)
            positions += cut.num_positions
            assert positions <= self._num_positions, "more positions than the manifest counts"
            # Rounded down: the last step is left for the last positions.
            until = steps * positions // self._num_positions
            if until > taken:
                yield from training_batches(
                    join_windows(waiting), until - taken, rng, min(max(first - taken, 0), until - taken)
                )
                taken, waiting = until, []
        # A worker without positions takes its steps too: the others wait for it in each.
        if taken < steps:
            yield from training_batches(join_windows(waiting), steps - taken, rng, max(first - taken, 0))

    def _stream(self) -> Iterator[Histories]:
        pending: list[pa.Table] = []
        users = 0
        for table in self._read(self._uris):
            pending.append(table)
            users += len(table)
            while users >= self._window_users:
                joined = pa.concat_tables(pending)
                for start, stop in pairwise(range(0, len(joined) + 1, self._window_users)):
                    yield Histories.from_tables([joined.slice(start, stop - start)])
                rest = len(joined) // self._window_users * self._window_users
                pending, users = [joined.slice(rest)], len(joined) - rest
        if users:
            yield Histories.from_tables(pending)
