"""What evaluation and predictions ask for scores: a trained model, or anything else that answers as one."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ray_app.checkpoint import fetched, verify
from ray_app.config import Config
from ray_app.content.vectors import item_content, item_pictures
from ray_app.data.batches import pad_histories
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Ragged
from ray_app.metrics import Scores
from ray_app.models.device import device_of
from ray_app.models.sequence import SequenceModel
from ray_app.schema import Col
from ray_app.storage import Storage
from ray_app.tasks.beginning import fitted_to
from ray_app.tasks.hybrid import is_hybrid, load_hybrid
from ray_app.tasks.recommend import score, unit_vectors
from ray_app.tasks.recommender import check_encoder, load_model


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

    def table(self) -> NDArray[np.float32]:
        """Vectors of the items 1, 2, ... as they are scored, `[num_items, dim]`; not to be written to."""
        ...


class ModelScorer:
    """A sequence model with its item table at hand."""

    def __init__(self, model: SequenceModel, device: torch.device) -> None:
        self._model = model.to(device).eval().flattened()
        as_read = self._model.alike is None and self._model.shape.temperature is None
        self._table = (self._model.head.items.weight if as_read else self._model.table()).detach()

    def scores(self, histories: Ragged) -> Scores:
        """See `Scorer`."""
        return score(self._model, histories, self._table)

    def vectors(self) -> NDArray[np.float32]:
        """See `Answering`."""
        return unit_vectors(self._table)

    def table(self) -> NDArray[np.float32]:
        """See `Answering`."""
        return self._table.cpu().numpy()

    def bias(self) -> NDArray[np.float32]:
        """What is added to the product of an item's vector with the query, `[num_items]`."""
        return self._model.head.bias.detach().cpu().numpy()

    def queries(self, histories: Ragged) -> NDArray[np.float32]:
        """What vectors are multiplied with, `[users, width]`; zeros after an empty history."""
        items, lengths, clicks = self._padded(histories)
        with torch.no_grad():
            return self._model.queries(items, lengths, clicks).cpu().numpy()

    def scores_of(self, wanted: NDArray[np.int64], history: Ragged, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`, of some items alone, `[wanted]`, after one history whose query `[dim]` is known."""
        items, lengths, _ = self._padded(history)
        last = torch.from_numpy(query[None]).to(items.device)
        with torch.no_grad():
            found = self._model.scores_of(torch.from_numpy(wanted).to(items.device), items, lengths, last, self._table)
        return found.cpu().numpy()

    def _padded(self, histories: Ragged) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        items, lengths, clicks = pad_histories(histories, self._model.shape.max_history_len)
        return items.to(self._table.device), lengths.to(self._table.device), clicks.to(self._table.device)


def load_scorer(storage: Storage, dataset: Dataset, uri: str, config: Config, *, today: bool = False) -> Answering:
    """The checkpoint at `uri` over the catalogue of `dataset`, on the device that the configuration asks for.

    With `today` it may know all events of the dataset; else, as evaluation asks, those of the train part.

    Raises:
        CheckpointError: it is incomplete, damaged, or does not fit.
    """
    device = device_of(config.train.use_gpu)
    with fetched(storage, uri) as folder:
        verify(folder)
        return open_scorer(folder, dataset, config.train.seed, device, today=today)


def open_scorer(folder: Path, dataset: Dataset, seed: int, device: torch.device, *, today: bool = False) -> Answering:
    """The scorer of a verified folder; `seed` begins the vectors of items that it does not know, `today` as above.

    Raises:
        CheckpointError: it is incomplete, or does not fit.
    """
    if is_hybrid(folder):
        return load_hybrid(folder, dataset, device, today=today)
    trained, items = load_model(folder), dataset.items()
    if not trained.items[Col.ITEM].equals(items[Col.ITEM]):
        check_encoder(trained, dataset)
    content = (item_content(dataset), item_pictures(dataset), dataset.labels)
    return ModelScorer(fitted_to(trained, items, seed, *content), device)
