"""The sequence model and its losses against plain re-computations."""

import math

import pytest
import torch
from torch.nn import functional

from ray_app.models.losses import sampled_softmax_loss, softmax_loss
from ray_app.models.repeats import GAIN, HALF_LIVES, Repeats
from ray_app.models.sequence import SequenceModel, SequenceShape

SHAPE = SequenceShape(dim=16, num_layers=2, num_heads=2, feedforward_dim=32, max_history_len=8, repeats=True)


def make(num_items: int = 12, num_known: int = 5, seed: int = 0) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(SHAPE, torch.randperm(num_items), num_known).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_every_parameter_is_backbone_or_head() -> None:
    assert all(name.startswith(("backbone.", "head.")) for name, _ in make().named_parameters())


def test_a_position_does_not_see_what_follows() -> None:
    model = make()
    items = torch.randint(1, 13, (3, 8))
    changed = items.clone()
    changed[:, 5:] = torch.randint(1, 13, (3, 3))
    torch.testing.assert_close(model(items)[:, :5], model(changed)[:, :5])
    assert not torch.allclose(model(items)[:, 5:], model(changed)[:, 5:])


def test_padding_on_the_right_changes_nothing() -> None:
    model = make()
    short, lengths = torch.tensor([[3, 7, 2]]), torch.tensor([3])
    padded = torch.tensor([[3, 7, 2, 0, 0]])
    torch.testing.assert_close(model.scores(short, lengths), model.scores(padded, lengths))


def test_vectors_of_known_and_new_items_come_from_their_tables() -> None:
    model = make()
    every = torch.arange(1, 13)
    torch.testing.assert_close(model.vectors(every), model.table())
    row = int(model.row_of_item[3])
    source = model.backbone.items.weight[row] if row < 5 else model.head.items.weight[row - 5]
    torch.testing.assert_close(model.vectors(torch.tensor([4]))[0], source)


def test_an_empty_history_is_scored_by_the_bias() -> None:
    model = make()
    scores = model.scores(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]))
    torch.testing.assert_close(scores[0, 1:], model.head.bias.detach())
    assert scores[0, 0] == -math.inf


def test_scores_are_query_times_table_plus_bias_plus_repeats() -> None:
    model = make()
    items, lengths = torch.tensor([[3, 7, 3, 9]]), torch.tensor([4])
    expected = model.table() @ model(items)[0, 3] + model.head.bias
    for item in (3, 7, 9):
        features = [
            math.log1p(sum(2 ** (-(3 - place) / h) for place, other in enumerate([3, 7, 3, 9]) if other == item))
            for h in HALF_LIVES
        ]
        expected[item - 1] += GAIN * sum(
            w * f for w, f in zip(model.head.repeats.weights.tolist(), features, strict=True)
        )
    torch.testing.assert_close(model.scores(items, lengths)[0, 1:], expected)


def test_repeats_of_a_sample_and_of_pairs_agree() -> None:
    repeats = Repeats()
    torch.nn.init.normal_(repeats.weights)
    items = torch.randint(1, 6, (4, 7))
    row, place = torch.tensor([0, 0, 2, 3]), torch.tensor([2, 6, 4, 0])
    sample = torch.arange(1, 8)
    table = repeats.of_sample(items, row, place, sample)
    for number in range(7):
        wanted = torch.full((4,), number + 1)
        torch.testing.assert_close(repeats.of_pairs(items, row, place, wanted), table[:, number])
    assert not table[:, 6].any()  # nobody had item 7


def test_a_sample_of_the_whole_catalogue_gives_the_full_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 10)
    query_of_target, targets = torch.tensor([0, 1, 2]), torch.tensor([4, 9, 0])
    weights = torch.tensor([1.0, 0.5, 2.0])
    positive = logits[query_of_target, targets]
    sampled = sampled_softmax_loss(
        positive, logits, query_of_target, targets, torch.arange(10), weights, torch.zeros(10)
    )
    torch.testing.assert_close(sampled, softmax_loss(logits, targets, weights))
    by_hand = (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(sampled, by_hand)


def test_logq_correction_makes_the_sampled_sum_an_estimate_of_the_whole() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 400)
    probabilities = torch.softmax(torch.randn(400), 0)
    target = torch.tensor([7])
    full = softmax_loss(logits, target, torch.ones(1)).item()

    def mean_loss(corrected: bool) -> float:
        losses = []
        for _ in range(300):
            drawn = torch.multinomial(probabilities, 200, replacement=True)
            expected = (probabilities[drawn] * 200).log() if corrected else None
            losses.append(
                sampled_softmax_loss(
                    logits[:, 7], logits[:, drawn], torch.tensor([0]), target, drawn, torch.ones(1), expected
                ).item()
            )
        return sum(losses) / len(losses)

    assert mean_loss(corrected=True) == pytest.approx(full, abs=0.05)
    assert abs(mean_loss(corrected=False) - full) > 0.3


def test_other_targets_of_the_same_query_are_no_negatives() -> None:
    negative = torch.tensor([[5.0, 1.0]])
    loss = sampled_softmax_loss(
        torch.tensor([0.0, 5.0]),
        negative,
        torch.tensor([0, 0]),
        torch.tensor([3, 1]),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 0.0]),
        None,
    )
    assert loss.item() == pytest.approx(math.log(1 + math.e))
