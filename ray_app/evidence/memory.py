"""What the train part and the catalogue say of pairs of items: transitions, users in common, texts, labels."""

from dataclasses import dataclass, fields
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
from ray_app.baselines.transitions import transition_counts
from ray_app.schema import Col

WINDOW, DECAY, POWERS = 5, 0.7, (0.25, 0.15)
"""As in the transition graph published for Amazon Beauty."""
FAR_WINDOW, FAR_DECAY, FAR_POWER = 10, 0.85, 0.5
NEIGHBORS = 300


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
    """Summed weights of the train events of each item, `[num_items + 1]`."""

    @classmethod
    def fit(cls, log: TrainingLog, items: pa.Table) -> Self:
        """Count over a train part.

        Args:
            log: the train part.
            items: prepared item table: row i is item index i + 1.
        """
        counts = log.popularity()
        near = transition_counts(log, WINDOW, DECAY)
        far = transition_counts(log, FAR_WINDOW, FAR_DECAY)
        words = text_vectors(item_texts(items))
        return cls(
            forward=_normalized(near, counts, *POWERS),
            backward=_normalized(near.T, counts, *POWERS),
            around=_normalized(far + far.T, counts, FAR_POWER, FAR_POWER),
            together=ItemKNN.fit(log, NEIGHBORS).similarity,
            alike=nearest(words, NEIGHBORS),
            words=words,
            labels=text_vectors(joined_texts(items, (Col.BRAND, Col.CATEGORY))),
            counts=counts,
        )

    @property
    def num_items(self) -> int:
        """Size of the catalogue."""
        return len(self.counts) - 1

    def save(self, path: Path) -> None:
        """Write all arrays as safetensors."""
        tensors: dict[str, NDArray[Any]] = {"counts": self.counts}
        for name in self.matrices():
            found: Matrix = getattr(self, name)
            tensors |= {f"{name}.data": found.data, f"{name}.shape": np.array(found.shape)}
            tensors |= {f"{name}.columns": found.indices, f"{name}.rows": found.indptr}
        save_file(tensors, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        tensors = load_file(path)
        matrices = {
            name: sparse.csr_array(
                tuple(tensors[f"{name}.{part}"] for part in ("data", "columns", "rows")),
                shape=tuple(tensors[f"{name}.shape"].tolist()),
            )
            for name in cls.matrices()
        }
        return cls(**matrices, counts=tensors["counts"])

    @classmethod
    def matrices(cls) -> list[str]:
        """Names of the matrices."""
        return [field.name for field in fields(cls) if field.name != "counts"]


def _normalized(counted: Any, counts: NDArray[np.float64], row_power: float, column_power: float) -> Matrix:
    base = np.maximum(counts, 1)
    return settled(sparse.diags_array(base**-row_power) @ counted @ sparse.diags_array(base**-column_power))
