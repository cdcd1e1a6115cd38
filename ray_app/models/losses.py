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


def sampled_softmax_loss(
    positive: Tensor,
    negative: Tensor,
    query_of_target: Tensor,
    targets: Tensor,
    sampled: Tensor,
    weights: Tensor,
    log_expected: Tensor | None,
) -> Tensor:
    """Cross-entropy of each target against a sample of negatives that all queries of the batch share.

    With `log_expected` (the log of how often each sampled item is expected in the sample) subtracted, the sum over the
    sample estimates the sum over the catalogue (logQ correction: Bengio & Senecal 2008; Yi et al. 2019, RecSys).
    A negative that is a target of the same query is left out.

    Args:
        positive: logit of each target, `[targets]`.
        negative: logits of the sample, `[queries, samples]`.
        query_of_target: `[targets]`.
        targets: `[targets]`.
        sampled: `[samples]`.
        weights: `[targets]`.
        log_expected: `[samples]` or None.
    """
    if log_expected is not None:
        negative = negative - log_expected
    target, draw = (targets.unsqueeze(1) == sampled).nonzero(as_tuple=True)
    hit = torch.zeros_like(negative, dtype=torch.bool)
    hit[query_of_target[target], draw] = True
    others = torch.logsumexp(negative.float().masked_fill(hit, float("-inf")), dim=1)
    total = torch.logaddexp(positive.float(), others[query_of_target])
    return ((total - positive.float()) * weights).sum()
