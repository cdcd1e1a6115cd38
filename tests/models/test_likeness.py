"""Likeness to the last items against a computation by hand."""

import pytest
import torch
from torch.nn import functional

from ray_app.models.likeness import PLACES, WEIGHT, likeness_vectors
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape


def alike(num_items: int = 12, seed: int = 3) -> SequenceModel:
    torch.manual_seed(seed)
    shape = SequenceShape(16, 1, 2, 32, 8, repeats=True, likeness_dim=4)
    vectors = functional.normalize(torch.randn(num_items, 4), dim=1).half()
    model = SequenceModel(shape, torch.randperm(num_items), 5, alike=vectors).eval()
    torch.nn.init.normal_(model.head.bias)
    return model


def by_hand(model: SequenceModel, history: list[int], item: int) -> float:
    """Without the gate: what the last items say of one item."""
    vectors = model.alike.float()
    cosines = [float(vectors[one - 1] @ vectors[item - 1]) for one in reversed(history)]
    return WEIGHT * sum(place * cosine for place, cosine in zip(PLACES, cosines, strict=False))


def test_a_score_has_the_cosines_to_the_last_items_in_it() -> None:
    model, history = alike(), [3, 7, 9]
    items, lengths = torch.tensor([history]), torch.tensor([3])
    query = model.queries(items, lengths)[0]
    expected = query[:16] @ model.vectors(torch.tensor([5]))[0]
    found = query @ model.scored(torch.tensor([5]))[0]
    assert (found - expected).item() == pytest.approx(by_hand(model, history, 5), rel=1e-3)


def test_the_gate_is_what_the_network_makes_of_the_history() -> None:
    model, items = alike(), torch.tensor([[3, 7, 9]])
    before = model(items)
    torch.nn.init.normal_(model.head.likeness.gate, std=0.3)
    factor = (before[..., :16] @ model.head.likeness.gate).exp().unsqueeze(-1)
    torch.testing.assert_close(model(items)[..., 16:], before[..., 16:] * factor)


def test_a_query_at_the_end_is_the_one_among_all() -> None:
    model = alike()
    items, lengths = torch.tensor([[3, 7, 9, 0], [1, 2, 3, 3], [0, 0, 0, 0]]), torch.tensor([3, 4, 0])
    among_all = model(items)[torch.arange(3), (lengths - 1).clamp_min(0)] * (lengths > 0).unsqueeze(1)
    torch.testing.assert_close(model.queries(items, lengths), among_all)


def test_the_whole_table_scores_as_items_do_one_by_one_and_flattened() -> None:
    model = alike()
    every, items, lengths = torch.arange(1, 13), torch.tensor([[3, 7, 9, 0], [1, 2, 3, 3]]), torch.tensor([3, 4])
    torch.testing.assert_close(model.table(), model.scored(every))
    scores, flat = model.scores(items, lengths), model.flattened()
    torch.testing.assert_close(flat.scores(items, lengths), scores)
    last = model.queries(items[:1], lengths[:1])
    some = model.scores_of(every, items[:1, :3], lengths[:1], last, model.table())
    torch.testing.assert_close(some, scores[0, 1:])


def test_items_are_alike_as_seen_from_the_centre_and_what_is_not_known_is_like_nothing() -> None:
    torch.manual_seed(0)
    kinds = torch.randn(3, 20)
    content = (5 + kinds.repeat_interleave(4, 0) + 0.1 * torch.randn(12, 20)).half()
    content[11] = 0
    found = likeness_vectors([content], 8).float()
    torch.testing.assert_close(found[:11].norm(dim=1), torch.ones(11), rtol=1e-3, atol=1e-3)
    assert not found[11].any()
    cosines = found[:11] @ found[:11].T
    same = torch.arange(11).unsqueeze(1) // 4 == torch.arange(11) // 4
    assert cosines[same].min() > 0.3 > cosines[~same].max()


def test_two_parts_count_alike() -> None:
    torch.manual_seed(0)
    texts, pictures = torch.randn(12, 20).half(), 100 * torch.randn(12, 30).half()
    found = likeness_vectors([texts, pictures], 8).float()
    assert found.shape == (12, 8)
    torch.testing.assert_close(found[:, :4].norm(dim=1), found[:, 4:].norm(dim=1), rtol=1e-2, atol=1e-2)
