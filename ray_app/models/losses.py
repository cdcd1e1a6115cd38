"""Next-item losses over a large catalogue. Each returns the weighted sum over positions, to be divided by the count."""

import torch
from torch import Tensor
from torch.nn import functional


def softmax_loss(logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the whole catalogue.

    Args:
        logits: `[targets, items]`.
        targets: item index minus one, `[targets]`.
        weights: `[targets]`.
        label_smoothing: share of the target's mass that is spread over all items.
    """
    loss = functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=label_smoothing)
    return (loss * weights).sum()


def sampled_softmax_loss(positive: Tensor, negative: Tensor, query_of_target: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of each target against the negatives of its query.

    Args:
        positive: logit of each target, `[targets]`.
        negative: logits of each query's negatives, `[queries, negatives]`; -inf where there is none. With the log of
            how often each is expected in a sample subtracted, their sum estimates the sum over the catalogue
            (logQ correction: Bengio & Senecal 2008; Yi et al. 2019, RecSys).
        query_of_target: `[targets]`.
        weights: `[targets]`.
    """
    others = torch.logsumexp(negative.float(), dim=1)
    total = torch.logaddexp(positive.float(), others[query_of_target])
    return ((total - positive.float()) * weights).sum()


def without_targets(negative: Tensor, candidates: Tensor, query_of_target: Tensor, targets: Tensor) -> Tensor:
    """`negative` with -inf where a candidate is a target of the same query: a target is nobody's negative.

    Args:
        negative: `[queries, candidates]`.
        candidates: item indices, `[candidates]` that all queries share, or `[queries, candidates]`.
        query_of_target: `[targets]`.
        targets: `[targets]`.
    """
    of_target = candidates if candidates.ndim == 1 else candidates[query_of_target]
    target, place = (targets.unsqueeze(1) == of_target).nonzero(as_tuple=True)
    return negative.index_put((query_of_target[target], place), negative.new_tensor(float("-inf")))
