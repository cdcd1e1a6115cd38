"""The hybrid: a sequence model, the memory of log and catalogue, and a ranker over the candidates of both."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ray_app.checkpoint import CheckpointError
from ray_app.data.dataset import Dataset
from ray_app.data.sequences import Ragged
from ray_app.evidence.features import FEATURES, features
from ray_app.evidence.memory import Memory
from ray_app.evidence.pairs import Pairs, candidates, read_memory
from ray_app.evidence.ranker import Ranker
from ray_app.metrics import Scores
from ray_app.models.sequence import SequenceModel
from ray_app.schema import PAD, Col
from ray_app.tasks.recommend import score, unit_vectors
from ray_app.tasks.recommender import load_model

MEMORY_FILE, TODAY_FILE = "memory.safetensors", "memory_of_today.safetensors"
RANKER_FILE, FACTS_FILE = "ranker.txt", "ranker.json"


class Evidences:
    """A sequence model and a memory, which together find the candidates of histories and describe them."""

    def __init__(self, model: SequenceModel, memory: Memory, device: torch.device, *, exclude_seen: bool) -> None:
        self._model = model.to(device).eval()
        self.table = self._model.table().detach()
        self.vectors = unit_vectors(self.table)
        self.memory = memory
        """Never written to; another may take its place at any moment."""
        self._exclude_seen = exclude_seen

    def describe(self, histories: Ragged) -> tuple[Scores, Pairs, dict[str, NDArray[np.float32]]]:
        """The model's scores of all items, the candidates of each history, and their features."""
        scores, memory = score(self._model, histories, self.table), self.memory
        evidence = read_memory(memory, histories)
        ranked = scores.copy()
        ranked[:, PAD] = np.finfo(np.float32).min
        pairs = candidates(ranked, evidence, memory, histories, exclude_seen=self._exclude_seen)
        return scores, pairs, features(pairs, ranked, self.vectors, evidence, memory, histories)


class HybridScorer:
    """See `scorer.Scorer`: candidates stand in the ranker's order before all others, which stand in the model's."""

    def __init__(self, evidences: Evidences, ranker: Ranker) -> None:
        self._evidences = evidences
        self._ranker = ranker

    @property
    def memory(self) -> Memory:
        """What it ranks with; another may be put in its place while others rank."""
        return self._evidences.memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._evidences.memory = memory

    def scores(self, histories: Ragged) -> Scores:
        """See `Scorer`. A candidate's score is the ranker's, moved above the model's best."""
        return self.ordered(*self._evidences.describe(histories))

    def ordered(self, scores: Scores, pairs: Pairs, described: dict[str, NDArray[np.float32]]) -> Scores:
        """What `scores` makes of histories that are described; the model's scores are written over."""
        if not len(pairs.items):
            return scores
        ranked = self._ranker.scores(described)
        lowest = np.full(len(scores), np.inf)
        np.minimum.at(lowest, pairs.users, ranked)
        floor = scores.max(axis=1) + 1
        scores[pairs.users, pairs.items] = floor[pairs.users] + (ranked - lowest[pairs.users])
        return scores

    def vectors(self) -> NDArray[np.float32]:
        """See `scorer.Answering`."""
        return self._evidences.vectors

    def table(self) -> NDArray[np.float32]:
        """See `scorer.Answering`."""
        return self._evidences.table.cpu().numpy()


def is_hybrid(folder: Path) -> bool:
    """Whether a checkpoint holds more than a sequence model."""
    return (folder / RANKER_FILE).exists()


def load_hybrid(folder: Path, dataset: Dataset, device: torch.device, *, today: bool = False) -> HybridScorer:
    """Rebuild a hybrid from a verified folder, with the memory of the train part or, for answers, that of `today`.

    Raises:
        CheckpointError: it was fitted to another catalogue, or by another version.
    """
    trained = load_model(folder)
    if not trained.items[Col.ITEM].equals(dataset.items()[Col.ITEM]):
        raise CheckpointError(
            f"{folder}: its ranker was fitted to another catalogue than that of {dataset.uri}; fit it again there"
        )
    facts = json.loads((folder / FACTS_FILE).read_text())
    memory = Memory.load(folder / MEMORY_FILE)
    if today:
        if not (folder / TODAY_FILE).is_file():
            raise CheckpointError(
                f"{folder}: a version before this one counted its train part alone; fit it again (jobs/rank.py)"
            )
        memory = memory.with_counts(folder / TODAY_FILE)
    evidences = Evidences(trained.model, memory, device, exclude_seen=facts["exclude_seen"])
    return HybridScorer(evidences, Ranker.load(folder / RANKER_FILE, set(FEATURES)))
