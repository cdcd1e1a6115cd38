"""What a log and the catalogue say of pairs of items: transitions, users in common, texts, labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy import sparse

from ray_app.baselines.histories import Matrix, settled
from ray_app.baselines.log import TrainingLog
from ray_app.baselines.neighbors import ItemKNN, item_texts, joined_texts, nearest, text_vectors
from ray_app.evidence.moves import Moves
from ray_app.schema import Col

POWERS = (0.25, 0.15)
"""As in the transition graph published for Amazon Beauty."""
FAR_POWER = 0.5
NEIGHBORS = 300
COUNTED, WRITTEN = ("forward", "backward", "around", "together"), ("alike", "words", "labels")
"""Which matrices follow from the log, and which from the catalogue's texts."""


@dataclass(frozen=True)
class Memory:
    """Sparse matrices over items, `[num_items + 1, num_items + 1]` unless said otherwise; row `PAD` is empty."""

    forward: Matrix
    """How often column followed row, near ones counting more, over powers of both popularities."""
    backward: Matrix
    """How often row followed column, likewise."""
    around: Matrix
    """Both directions, over a wider window."""
    together: Matrix
    """Cosine of the sets of users, for the nearest items."""
    alike: Matrix
    """Cosine of the texts, for the nearest items."""
    words: Matrix
    """TF-IDF vectors of the whole text, `[num_items + 1, terms]`, of length 1."""
    labels: Matrix
    """The same of brand and category alone."""
    counts: NDArray[np.float64]
    """Summed weights of the log's events of each item, `[num_items + 1]`."""

    @classmethod
    def fit(cls, log: TrainingLog, items: pa.Table) -> Self:
        """Count over a log.

        Args:
            log: the train part, or as much as may be known.
            items: prepared item table: row i is item index i + 1.
        """
        words = text_vectors(item_texts(items))
        labels = text_vectors(joined_texts(items, (Col.BRAND, Col.CATEGORY)))
        return cls(**_counted(log), alike=nearest(words, NEIGHBORS), words=words, labels=labels)

    def recounted(self, log: TrainingLog) -> Self:
        """What another log says, and the same texts."""
        return replace(self, **_counted(log))

    def with_moves(self, moves: Moves) -> Self:
        """With what came to the log since: transitions and popularity, while users in common stay as they were."""
        counts = self.counts + moves.counts
        more = {name: settled(getattr(self, name) + added) for name, added in _divided(moves, counts).items()}
        return replace(self, **more, counts=counts)

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.counts) - 1

    def save(self, path: Path) -> None:
        """Write all arrays as safetensors."""
        save_file(self._arrays((*COUNTED, *WRITTEN)), path)

    def save_counts(self, path: Path) -> None:
        """Write what follows from the log: large texts need not be stored for each log."""
        save_file(self._arrays(COUNTED), path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_file(path)
        return cls(**_matrices(arrays, (*COUNTED, *WRITTEN)), counts=arrays["counts"])

    def with_counts(self, path: Path) -> Self:
        """What another memory's `save_counts` wrote, and the same texts."""
        arrays = load_file(path)
        return replace(self, **_matrices(arrays, COUNTED), counts=arrays["counts"])

    def _arrays(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {"counts": self.counts}
        for name in names:
            found: Matrix = getattr(self, name)
            arrays |= {f"{name}.data": found.data, f"{name}.shape": np.array(found.shape)}
            arrays |= {f"{name}.columns": found.indices, f"{name}.rows": found.indptr}
        return arrays


def _counted(log: TrainingLog) -> dict[str, Any]:
    moves = Moves.of(log)
    together = ItemKNN.fit(log, NEIGHBORS).similarity
    return {**_divided(moves, moves.counts), "together": together, "counts": moves.counts}


def _divided(moves: Moves, counts: NDArray[np.float64]) -> dict[str, Matrix]:
    return {
        "forward": _normalized(moves.near, counts, *POWERS),
        "backward": _normalized(moves.near.T, counts, *POWERS),
        "around": _normalized(moves.far + moves.far.T, counts, FAR_POWER, FAR_POWER),
    }


def _matrices(arrays: dict[str, NDArray[Any]], names: Sequence[str]) -> dict[str, Any]:
    return {
        name: sparse.csr_array(
            tuple(arrays[f"{name}.{part}"] for part in ("data", "columns", "rows")),
            shape=tuple(arrays[f"{name}.shape"].tolist()),
        )
        for name in names
    }


def _normalized(counted: Any, counts: NDArray[np.float64], row_power: float, column_power: float) -> Matrix:
    base = np.maximum(counts, 1)
    return settled(sparse.diags_array(base**-row_power) @ counted @ sparse.diags_array(base**-column_power))
