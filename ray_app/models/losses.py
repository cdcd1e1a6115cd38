"""Next-item losses over a large catalogue. Each returns the weighted sum over positions, to be divided by the count."""

import torch
from torch import Tensor
from torch.nn import functional


def softmax_loss(
    query: Tensor, targets: Tensor, weights: Tensor, table: Tensor, bias: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy over the whole catalogue.

    Args:
        query: `[positions, dim]`.
        targets: item index minus one, `[positions]`.
        weights: `[positions]`.
        table: item vectors `[items, dim]`.
        bias: `[items]`.
        label_smoothing: share of the target's mass that is spread over all items.
    """
    logits = torch.addmm(bias, query, table.T)
    loss = functional.cross_entropy(logits.float(), targets, reduction="none", label_smoothing=label_smoothing)
    return (loss * weights).sum()


def sampled_softmax_loss(
    positive: Tensor, negative: Tensor, targets: Tensor, sampled: Tensor, weights: Tensor, log_expected: Tensor | None
) -> Tensor:
    """Cross-entropy of the target against a sample of negatives that all positions of the batch share.

    With `log_expected` (the log of how often each sampled item is expected in the sample) subtracted, the sum over the
    sample estimates the sum over the catalogue (logQ correction: Bengio & Senecal 2008; Yi et al. 2019, RecSys).
    A negative that is the position's own target is left out.

    Args:
        positive: logit of the target, `[positions]`.
        negative: logits of the sample, `[positions, samples]`.
        targets: `[positions]`.
        sampled: `[samples]`.
        weights: `[positions]`.
        log_expected: `[samples]` or None.
    """
    if log_expected is not None:
        negative = negative - log_expected
    negative = negative.masked_fill(targets.unsqueeze(1) == sampled, float("-inf"))
    total = torch.logaddexp(positive.float(), torch.logsumexp(negative.float(), dim=1))
    return ((total - positive.float()) * weights).sum()
