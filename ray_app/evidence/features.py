"""What the ranker sees of each pair of user and item."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ray_app.baselines.histories import known
from ray_app.evidence.memory import Memory
from ray_app.evidence.pairs import RECENCY_DECAY, Evidence, Pairs, looked_up, products
from ray_app.metrics import Ragged, Scores

PLACES = (0, 1, 2)
"""Places from the end of the history whose item is looked at by itself."""
GRAPH_RECENCY, TEXT_RECENCY = (1.0, 0.4, 0.15), (0.8, 0.4, 0.0)
"""Weights of these places in the untrained transition graph with text."""
HALF_LIFE = 50.0
"""In events, of the fading count of an item that was had before."""
FEATURES = (
    "logit",
    "log_share",
    "place",
    *(f"{kind}_{place}" for place in PLACES for kind in ("forward", "backward", "words", "labels", "vector")),
    *("graph", "graph_text", "last_popularity"),
    *("forward", "backward", "around", "together", "alike", "vector", "popularity", "history"),
    *("had", "had_share", "had_fading", "had_age", "had_overdue"),
)
"""Names of all features, in the order in which `features` gives them."""
Column = NDArray[np.float32]


def features(
    pairs: Pairs, scores: Scores, vectors: NDArray[np.float32], evidence: Evidence, memory: Memory, histories: Ragged
) -> dict[str, Column]:
    """By name, one number per pair.

    Args:
        pairs: the candidates.
        scores: of the sequence model, `[users, num_items + 1]`.
        vectors: of all items, centred and of length 1, `[num_items + 1, dim]`; row `PAD` is zero.
        evidence: what the memory says of the histories.
        memory: of the log and the catalogue.
        histories: of the users.
    """
    items, offsets = known(histories)
    found = {
        **_of_model(pairs, scores),
        **_of_last_items(pairs, vectors, memory, items, offsets),
        **{name: looked_up(getattr(evidence, name), pairs.users, pairs.items) for name in vars(evidence)},
        "vector": _of_profile(pairs, vectors, items, offsets),
        "popularity": np.log1p(memory.counts)[pairs.items],
        "history": np.log1p(np.diff(offsets))[pairs.users],
        **_of_habit(pairs, items, offsets, scores.shape[1]),
    }
    return {name: np.asarray(column, np.float32) for name, column in found.items()}


def _of_model(pairs: Pairs, scores: Scores) -> dict[str, Column]:
    """The logit, its log share of the whole catalogue, and the place among the candidates."""
    logit = scores[pairs.users, pairs.items]
    highest = scores.max(axis=1, keepdims=True)
    total = (highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))).ravel()
    order = np.lexsort((-logit, pairs.users))
    first = np.searchsorted(pairs.users, pairs.users)
    place = np.empty(len(order), np.float32)
    place[order] = np.arange(len(order)) - first[order]
    return {"logit": logit, "log_share": logit - total[pairs.users], "place": np.log1p(place)}


def _of_last_items(
    pairs: Pairs, vectors: NDArray[np.float32], memory: Memory, items: NDArray[np.int32], offsets: NDArray[np.int64]
) -> dict[str, Column]:
    """The last items one by one, and summed as the untrained graph with text sums them."""
    found: dict[str, Column] = {}
    graph, text = np.zeros(len(pairs.items), np.float32), np.zeros(len(pairs.items), np.float32)
    for place in PLACES:
        last = _from_the_end(items, offsets, place)
        of_pair = last[pairs.users]
        forward, words = looked_up(memory.forward, of_pair, pairs.items), products(memory.words, of_pair, pairs.items)
        found |= {
            f"forward_{place}": forward,
            f"backward_{place}": looked_up(memory.backward, of_pair, pairs.items),
            f"words_{place}": words,
            f"labels_{place}": products(memory.labels, of_pair, pairs.items),
            f"vector_{place}": np.einsum("pd,pd->p", vectors[of_pair], vectors[pairs.items]),
        }
        graph += GRAPH_RECENCY[place] * forward
        text += TEXT_RECENCY[place] * words
    last_popularity = np.log1p(memory.counts)[_from_the_end(items, offsets, 0)][pairs.users]
    return found | {"graph": graph, "graph_text": graph + text, "last_popularity": last_popularity}


def _from_the_end(items: NDArray[np.int32], offsets: NDArray[np.int64], place: int) -> NDArray[np.int64]:
    """Each user's item at a place from the end, `PAD` where the history is shorter."""
    position = offsets[1:] - 1 - place
    there = position >= offsets[:-1]
    found = np.zeros(len(position), np.int64)
    found[there] = items[position[there]]
    return found


def _of_profile(
    pairs: Pairs, vectors: NDArray[np.float32], items: NDArray[np.int32], offsets: NDArray[np.int64]
) -> Column:
    """Cosine-like product with the mean vector of the history, recent items weighing more."""
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    weights = RECENCY_DECAY ** (np.repeat(offsets[1:], lengths) - 1 - np.arange(len(items)))
    profile = np.zeros((len(lengths), vectors.shape[1]))
    np.add.at(profile, users, weights[:, None] * vectors[items])
    profile /= np.maximum(np.bincount(users, weights, len(lengths)), 1e-9)[:, None]
    return np.asarray(np.einsum("pd,pd->p", profile.astype(np.float32)[pairs.users], vectors[pairs.items]))


def _of_habit(pairs: Pairs, items: NDArray[np.int32], offsets: NDArray[np.int64], width: int) -> dict[str, Column]:
    """How often, how lately and how regularly the user had the item; zeros, and an age of -1, for a new one."""
    lengths = np.diff(offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    age = np.repeat(offsets[1:], lengths) - 1 - np.arange(len(items))
    keys, first, place = np.unique(users * np.int64(width) + items, return_index=True, return_inverse=True)
    counts = np.bincount(place, minlength=len(keys))
    fading = np.bincount(place, 0.5 ** (age / HALF_LIFE), len(keys))
    latest, earliest = np.full(len(keys), np.iinfo(np.int64).max), age[first]
    np.minimum.at(latest, place, age)
    wanted = pairs.users * np.int64(width) + pairs.items
    at = np.searchsorted(keys, wanted)
    had = np.append(keys, -1)[at] == wanted

    def where_had(values: NDArray[Any], otherwise: float = 0.0) -> Column:
        return np.where(had, np.append(values, otherwise)[at], otherwise).astype(np.float32)

    gap = (earliest - latest) / np.maximum(counts - 1, 1)
    return {
        "had": where_had(np.log1p(counts)),
        "had_share": where_had(counts / lengths[keys // width]),
        "had_fading": where_had(fading),
        "had_age": where_had(np.log1p(latest), -1.0),
        "had_overdue": where_had(np.where(counts > 1, latest / np.maximum(gap, 1.0), 0.0)),
    }
