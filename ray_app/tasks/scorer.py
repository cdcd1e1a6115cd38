"""What evaluation and predictions ask for scores: a trained model, or anything else that answers as one."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ray_app.checkpoint import fetched, verify
from ray_app.config import Config
from ray_app.content.vectors import item_content
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Ragged
from ray_app.metrics import Scores
from ray_app.models.sequence import SequenceModel
from ray_app.schema import Col
from ray_app.storage import Storage
from ray_app.tasks.hybrid import is_hybrid, load_hybrid
from ray_app.tasks.recommend import score, unit_vectors
from ray_app.tasks.recommender import check_encoder, fitted_to, load_model


class Scorer(Protocol):
    """A method of the table: a baseline, or a model that gives scores as a baseline does."""

    def scores(self, histories: Ragged) -> Scores:
        """Score of every item after each history, float32 `[users, num_items + 1]`."""
        ...


class Answering(Scorer, Protocol):
    """A trained scorer, which can also tell which items are alike."""

    def vectors(self) -> NDArray[np.float32]:
        """Vectors of length 1 whose product is the likeness of two items, `[num_items + 1, dim]`; row `PAD` is zero."""
        ...


class ModelScorer:
    """A sequence model with its item table at hand."""

    def __init__(self, model: SequenceModel, device: torch.device) -> None:
        self._model = model.to(device).eval()
        self._table = self._model.table().detach()

    def scores(self, histories: Ragged) -> Scores:
        """See `Scorer`."""
        return score(self._model, histories, self._table)

    def vectors(self) -> NDArray[np.float32]:
        """See `Answering`."""
        return unit_vectors(self._table)


def load_scorer(storage: Storage, dataset: Dataset, uri: str, config: Config) -> Answering:
    """The checkpoint at `uri` over the catalogue of `dataset`, on the device that the configuration asks for.

    Raises:
        CheckpointError: it is incomplete, damaged, or does not fit.
    """
    device = torch.device("cuda" if config.train.use_gpu else "cpu")
    with fetched(storage, uri) as folder:
        verify(folder)
        return open_scorer(folder, dataset, config.train.seed, device)


def open_scorer(folder: Path, dataset: Dataset, seed: int, device: torch.device) -> Answering:
    """The scorer of a verified folder; `seed` begins the vectors of items that it does not know.

    Raises:
        CheckpointError: it is incomplete, or does not fit.
    """
    if is_hybrid(folder):
        return load_hybrid(folder, dataset, device)
    trained, items = load_model(folder), dataset.items()
    if not trained.items[Col.ITEM].equals(items[Col.ITEM]):
        check_encoder(trained, dataset)
    return ModelScorer(fitted_to(trained, items, seed, item_content(dataset)), device)
