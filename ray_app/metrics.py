"""Ranking metrics over the full catalogue, per user, with bootstrap intervals.

Scores are float32 `[users, num_items + 1]`; column `PAD` is never ranked. Lists of different lengths are ragged: flat
values and int64 offsets `[users + 1]`. Ranks and top lists share one order: higher score first, equal scores by lower
index, and an item at -inf is not ranked at all. Metrics give one value per user, so that slices and intervals can be
taken afterwards.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PAD = 0
"""As `schema.PAD`; written again because metrics import numpy and torch alone."""
MISS = int(np.iinfo(np.int32).max)
"""Rank of a target that is not ranked: beyond any cutoff, also in a catalogue of fewer than k items; fits int32."""

Scores = NDArray[np.float32]
PerUser = NDArray[np.float64]
Ragged = tuple[NDArray[Any], NDArray[np.int64]]
Interval = tuple[float, float]


def target_ranks(scores: Scores, targets: Ragged, seen: Ragged | None = None) -> Ragged:
    """The rank of every target, from 1, ragged like `targets`; int64.

    A target that is not ranked (`PAD`, an item in `seen`, a score of -inf) has rank `MISS`.

    Raises:
        ValueError: a score is NaN, or a user's targets repeat an item.
    """
    values, offsets = targets
    ranked = _ranked(scores, seen)
    users = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    pairs = (users * scores.shape[1] + values)[values != PAD]
    if len(np.unique(pairs)) < len(pairs):
        raise ValueError("a user's targets must be distinct items")
    ranks = np.empty(len(values), np.int64)
    for position, (user, target) in enumerate(zip(users.tolist(), values.tolist(), strict=True)):
        row = ranked[user]
        score = row[target]
        if score == -np.inf:
            ranks[position] = MISS
        else:
            ranks[position] = 1 + np.count_nonzero(row > score) + np.count_nonzero(row[:target] == score)
    return ranks, offsets


def top_k(scores: Scores, k: int, seen: Ragged | None = None) -> tuple[NDArray[np.int32], Scores]:
    """The `k` best items of each user and their scores, `[users, k]`; short lists end in `PAD` at -inf.

    Raises:
        ValueError: a score is NaN.
    """
    ranked = _ranked(scores, seen)
    width = min(k, ranked.shape[1])
    # One more than asked for shows whether the last place is tied; torch breaks ties as it likes.
    found = torch.topk(torch.from_numpy(ranked), min(width + 1, ranked.shape[1]), dim=1)
    items, best = found.indices.numpy()[:, :width].copy(), found.values.numpy()
    if best.shape[1] > k and (best[:, 1:] < best[:, :-1]).all():  # no list is short, and nothing is tied
        return items.astype(np.int32), best[:, :k]
    last = best[:, width - 1]
    tied = (best[:, -1] == last) & (last > -np.inf) if best.shape[1] > width else np.zeros(len(best), np.bool_)
    for user in np.flatnonzero(tied):
        above = np.count_nonzero(best[user] > last[user])
        items[user, above:] = np.flatnonzero(ranked[user] == last[user])[: width - above]
    users = np.arange(len(items))[:, None]
    best = ranked[users, items]
    order = np.lexsort((items, -best), axis=1)
    top_items = np.full((len(scores), k), PAD, np.int32)
    top_scores = np.full((len(scores), k), -np.inf, np.float32)
    top_scores[:, :width] = best[users, order]
    top_items[:, :width] = np.where(top_scores[:, :width] > -np.inf, items[users, order], PAD)
    return top_items, top_scores


def _ranked(scores: Scores, seen: Ragged | None) -> Scores:
    """A copy of `scores` in which everything that may not be ranked stands at -inf."""
    ranked = np.array(scores, np.float32, order="C")
    ranked[:, PAD] = -np.inf
    if ranked.size and np.isnan(ranked.min()):
        raise ValueError("scores hold NaN: nothing can be ranked by them")
    if seen is not None:
        values, offsets = seen
        ranked[np.repeat(np.arange(len(scores)), np.diff(offsets)), values] = -np.inf
    return ranked


def hit_rate(ranks: Ragged, k: int) -> PerUser:
    """1 where any target of the user is among the first `k`, else 0; `[users]`."""
    return np.minimum(_per_user(np.add, ranks, ranks[0] <= k), 1.0)


def recall(ranks: Ragged, k: int) -> PerUser:
    """Share of the user's targets among the first `k`; `[users]`."""
    return _per_user(np.add, ranks, ranks[0] <= k) / np.diff(ranks[1])


def ndcg(ranks: Ragged, k: int) -> PerUser:
    """Gain 1 / log2(rank + 1) of the targets among the first `k`, over that of the best possible list; `[users]`.

    The best possible list begins with min(k, number of targets) targets (Järvelin and Kekäläinen, 2002, binary gains).
    """
    values, offsets = ranks
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])
    gained = _per_user(np.add, ranks, np.where(values <= k, 1 / np.log2(values + 1.0), 0.0))
    share: PerUser = gained / ideal[np.minimum(np.diff(offsets), k)]
    return share


def mrr(ranks: Ragged) -> PerUser:
    """1 / rank of the user's best target, without a cutoff, 0 where all are misses; `[users]`."""
    best = _per_user(np.minimum, ranks, ranks[0])
    return np.where(best == MISS, 0.0, 1.0 / best)


def _per_user(reduce: np.ufunc, ragged: Ragged, values: NDArray[Any]) -> PerUser:
    """`values`, which lie like those of `ragged`, reduced over each user's stretch."""
    starts, ends = ragged[1][:-1], ragged[1][1:]
    if (starts == ends).any():
        raise ValueError("every user must have a target; leave users without one out")
    return reduce.reduceat(values.astype(np.float64), starts) if len(starts) else np.empty(0)


def coverage(lists: NDArray[np.int32], num_items: int) -> float:
    """Share of the catalogue that is on anybody's list; `lists` is `[users, k]`, cut to the k that is asked about."""
    return np.count_nonzero(np.unique(lists) != PAD) / num_items


def novelty(lists: NDArray[np.int32], train_counts: NDArray[Any]) -> PerUser:
    """Mean self-information of the items on each list, in bits; `[users]`, 0 for an empty list.

    `train_counts` is `[num_items + 1]`. An item has probability (count + 1) / (all counts + num_items), so that an item
    without a training event has a finite surprise.
    """
    counts = train_counts[1:] + 1.0
    bits = np.concatenate([[0.0], -np.log2(counts / counts.sum())])
    means: PerUser = bits[lists].sum(axis=1) / np.maximum(np.count_nonzero(lists != PAD, axis=1), 1)
    return means


def diversity(lists: NDArray[np.int32], categories: Ragged) -> PerUser:
    """Shannon entropy of the categories on each list, in bits; `[users]`, 0 where no item has any.

    `categories` is ragged over items, `[num_items + 1]` lists of category numbers. An item spreads its weight over its
    categories; a list of k items, each of another category, has log2(k) bits.
    """
    numbers, offsets = categories
    of_item = np.diff(offsets)
    user, place = np.nonzero(of_item[lists])
    items = lists[user, place]
    held = of_item[items]
    position = np.arange(held.sum()) + np.repeat(offsets[items] - np.cumsum(held) + held, held)
    width = int(numbers.max(initial=0)) + 1
    pairs, which = np.unique(np.repeat(user, held) * width + numbers[position], return_inverse=True)
    mass = np.bincount(which, np.repeat(1.0 / held, held), minlength=len(pairs))
    share = mass / np.bincount(user, minlength=len(lists))[pairs // width]
    return np.bincount(pairs // width, -share * np.log2(share), minlength=len(lists)).astype(np.float64)


def mean_popularity(lists: NDArray[np.int32], train_counts: NDArray[Any]) -> PerUser:
    """Mean training events of the items on each list; `[users]`, NaN for an empty list."""
    listed = lists != PAD
    sums = np.where(listed, train_counts[lists], 0).sum(axis=1)
    means: PerUser = np.divide(sums, listed.sum(axis=1), out=np.full(len(lists), np.nan), where=listed.any(axis=1))
    return means


def popularity_lift(lists: PerUser, histories: PerUser) -> float:
    """By how much recommended items are more popular than those that the same users had: 0 is no bias, 1 twice as much.

    Both are `mean_popularity` by user (delta GAP of Abdollahpouri et al., 2019, arXiv 1907.13286, all users as one
    group); users with nothing on either side are left out. NaN if nobody is left.
    """
    both = ~np.isnan(lists) & ~np.isnan(histories)
    had = float(histories[both].sum())
    return float(lists[both].sum()) / had - 1 if had else float("nan")


def bootstrap_interval(
    values: NDArray[Any], samples: int, seed: int, groups: NDArray[np.int64] | None = None
) -> Interval:
    """95% percentile interval of the mean over users (Efron, 1979); same seed, same interval.

    With `groups`, the number of each value's group, whole groups are drawn (the cluster bootstrap, Davison and Hinkley
    1997, section 3.8): what belongs together goes right or wrong together, and says less than as many that do not.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one user")
    values = np.asarray(values, np.float64)
    means = _resampled_means(values, samples, seed) if groups is None else _of_groups(values, groups, samples, seed)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _of_groups(values: PerUser, groups: NDArray[np.int64], samples: int, seed: int) -> PerUser:
    """Means of `samples` resamples of whole groups; `[samples]`."""
    rng = np.random.default_rng(seed)
    _, groups = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(groups, values), np.bincount(groups)
    draws = (rng.integers(len(sizes), size=len(sizes)) for _ in range(samples))
    return np.array([sums[drawn].sum() / sizes[drawn].sum() for drawn in draws])


def _resampled_means(values: PerUser, samples: int, seed: int) -> PerUser:
    """Means of `samples` resamples with replacement; `[samples]`."""
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    # A resample is a multinomial draw over distinct values, and metrics of one target take only a handful of them.
    if len(distinct) <= 1024:
        drawn = rng.multinomial(len(values), counts / len(values), size=samples)
        return np.asarray(drawn @ distinct / len(values), np.float64)
    # One resample at a time: memory stays at a few arrays of the number of users.
    return np.array([values[rng.integers(len(values), size=len(values))].mean() for _ in range(samples)])


def paired_difference(a: NDArray[Any], b: NDArray[Any], samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of `a - b` over the same users, with the low and high end of its 95% bootstrap interval."""
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return (float(difference.mean()), *bootstrap_interval(difference, samples, seed))
