"""The sequence model and its losses against plain re-computations."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from ray_app.models.content import NORM
from ray_app.models.items import LabelRows
from ray_app.models.losses import sampled_softmax_loss, softmax_loss, without_targets
from ray_app.models.repeats import GAIN, HALF_LIVES, last_places, without_had
from ray_app.models.sequence import SequenceModel
from ray_app.models.transformer import SequenceShape

SHAPE = SequenceShape(dim=16, num_layers=2, num_heads=2, feedforward_dim=32, max_history_len=8, repeats=True)


def make(num_items: int = 12, num_known: int = 5, seed: int = 0, shape: SequenceShape = SHAPE) -> SequenceModel:
    torch.manual_seed(seed)
    model = SequenceModel(shape, torch.randperm(num_items), num_known).eval()
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


def test_the_last_position_alone_is_what_it_is_among_all() -> None:
    model = make()
    assert len(model.backbone.blocks) > 1
    items, last = torch.tensor([[3, 7, 3, 9, 0], [5, 5, 1, 2, 5], [4, 0, 0, 0, 0]]), torch.tensor([3, 4, 0])
    among_all = model(items)[torch.arange(3), last]
    torch.testing.assert_close(model.backbone(model.vectors(items), last).squeeze(1), among_all)


def test_clicks_are_told_apart_where_they_are_marked() -> None:
    items, last = torch.tensor([[3, 7, 3, 9, 0], [5, 5, 1, 2, 5]]), torch.tensor([3, 4])
    clicks = torch.tensor([[False, True, False, False, False], [False] * 5])
    plain, marking = make(), make(shape=replace(SHAPE, mark_clicks=True))
    torch.testing.assert_close(plain(items, clicks), plain(items))
    with_clicks, without = marking(items, clicks), marking(items)
    torch.testing.assert_close(with_clicks[0, 0], without[0, 0])
    assert (with_clicks[0, 1:4] - without[0, 1:4]).abs().amax(1).min() > 0.01, "from the click on"
    torch.testing.assert_close(with_clicks[1], without[1])
    for model in (marking, marking.flattened()):
        torch.testing.assert_close(model.queries(items, last + 1, clicks), with_clicks[torch.arange(2), last])
        scores = model.scores(items, last + 1, clicks=clicks)
        assert not torch.allclose(scores[0, 1:], model.scores(items, last + 1)[0, 1:])


@pytest.mark.parametrize("repeats", [False, True])
def test_with_a_temperature_a_score_is_a_cosine(repeats: bool) -> None:
    """However long vectors are: 0.05 makes 20 of two that are alike, beside the bias and the habit."""
    model = make(shape=replace(SHAPE, temperature=0.05, repeats=repeats))
    items, lengths, every = torch.tensor([[3, 7, 3, 9, 0], [5, 5, 1, 2, 5]]), torch.tensor([4, 5]), torch.arange(1, 13)
    expected = model.backbone(model.vectors(items), lengths - 1).squeeze(1)
    cosines = functional.cosine_similarity(expected.unsqueeze(1), model.vectors(every).unsqueeze(0), dim=2)
    queries, table = model.queries(items, lengths), model.table()
    torch.testing.assert_close(queries @ table.T, 20 * cosines)
    torch.testing.assert_close(model.scored(every), table)
    torch.testing.assert_close(model(items)[torch.arange(2), lengths - 1], queries)
    scores, flat = model.scores(items, lengths), model.flattened()
    if not repeats:
        torch.testing.assert_close(scores[:, 1:], 20 * cosines + model.head.bias)
    torch.testing.assert_close(flat.scores(items, lengths), scores)
    some = flat.scores_of(every, items[1:], lengths[1:], queries[1:], flat.table())
    torch.testing.assert_close(some, scores[1, 1:])


def test_an_empty_history_is_scored_by_the_bias() -> None:
    model = make()
    scores = model.scores(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([0]))
    torch.testing.assert_close(scores[0, 1:], model.head.bias.detach())
    assert scores[0, 0] == -math.inf


def habit_by_hand(model: SequenceModel, history: list[int], item: int) -> float:
    """The formula of `Repeats`, term by term."""
    repeats = model.head.repeats
    assert repeats is not None
    query = model(torch.tensor([history]))[0, -1]
    weights, (power, norm) = (GAIN * repeats.weights).exp().tolist(), (GAIN * repeats.shape).tolist()
    ages = [len(history) - 1 - place for place, other in enumerate(history) if other == item]
    count = sum(w * 2 ** (-age / h) for w, h in zip(weights, HALF_LIVES, strict=True) for age in ages)
    gates = GAIN * repeats.of_item(model.vectors(torch.tensor(item))) + repeats.of_query(query)
    return power * math.log(count) + norm * math.log(len(history)) + gates.item()


def test_scores_are_the_log_of_what_the_network_expects_plus_the_habit() -> None:
    model = make()
    history = [3, 7, 3, 9]
    expected = model.table() @ model(torch.tensor([history]))[0, 3] + model.head.bias
    for item in (3, 7, 9):
        habit = torch.tensor(habit_by_hand(model, history, item))
        expected[item - 1] = torch.logaddexp(expected[item - 1], habit)
    torch.testing.assert_close(model.scores(torch.tensor([history]), torch.tensor([4]))[0, 1:], expected)


def test_habits_while_training_are_those_of_each_shorter_history() -> None:
    model = make()
    assert model.head.repeats is not None
    items = torch.tensor([[3, 7, 3, 9, 0], [5, 5, 1, 2, 5]])
    found = model.head.repeats.evidence(items, model.vectors(items), model(items))
    for row, place in ((0, 0), (0, 3), (1, 1), (1, 4)):
        history = items[row, : place + 1].tolist()
        for position, item in enumerate(items[row].tolist()):
            if item in history and item != 0:
                assert found[row, place, position].item() == pytest.approx(
                    habit_by_hand(model, history, item), rel=1e-4
                )
            else:
                assert found[row, place, position].item() == -math.inf


def test_a_history_names_each_of_its_items_once() -> None:
    items = torch.tensor([[3, 7, 3, 9, 0]])
    found = last_places(items)[0]
    assert found[0].tolist() == [True, False, False, False, False]
    assert found[1].tolist() == [True, True, False, False, False]
    assert found[3].tolist() == [False, True, True, True, False]
    sample = torch.tensor([9, 3, 5])
    row, place = torch.tensor([0, 0]), torch.tensor([2, 3])
    kept = without_had(torch.zeros(2, 3), items, row, place, sample)
    assert kept.isinf().tolist() == [[False, True, False], [True, True, False]]


def test_a_sample_of_the_whole_catalogue_gives_the_full_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 10)
    query_of_target, targets = torch.tensor([0, 1, 2]), torch.tensor([4, 9, 0])
    weights = torch.tensor([1.0, 0.5, 2.0])
    positive = logits[query_of_target, targets]
    negative = without_targets(logits, torch.arange(10), query_of_target, targets)
    sampled = sampled_softmax_loss(positive, negative, query_of_target, weights)
    torch.testing.assert_close(sampled, softmax_loss(logits, targets, weights))
    by_hand = (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()
    torch.testing.assert_close(sampled, by_hand)


def test_logq_correction_makes_the_sampled_sum_an_estimate_of_the_whole() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 400)
    probabilities = torch.softmax(torch.randn(400), 0)
    target, asking = torch.tensor([7]), torch.tensor([0])
    full = softmax_loss(logits, target, torch.ones(1)).item()

    def mean_loss(corrected: bool) -> float:
        losses = []
        for _ in range(300):
            drawn = torch.multinomial(probabilities, 200, replacement=True)
            negative = logits[:, drawn] - (probabilities[drawn] * 200).log() if corrected else logits[:, drawn]
            negative = without_targets(negative, drawn, asking, target)
            losses.append(sampled_softmax_loss(logits[:, 7], negative, asking, torch.ones(1)).item())
        return sum(losses) / len(losses)

    assert mean_loss(corrected=True) == pytest.approx(full, abs=0.05)
    assert abs(mean_loss(corrected=False) - full) > 0.3


def test_targets_of_a_query_are_no_negatives_of_it() -> None:
    negative, asking, targets = torch.zeros(2, 3), torch.tensor([0, 0, 1]), torch.tensor([3, 1, 2])
    shared = without_targets(negative, torch.tensor([1, 2, 4]), asking, targets)
    assert shared.isinf().tolist() == [[True, False, False], [False, True, False]]
    own = without_targets(negative, torch.tensor([[3, 2, 1], [3, 2, 1]]), asking, targets)
    assert own.isinf().tolist() == [[True, False, True], [False, True, False]]


def with_content(id_dropout: float = 0.0, delta_norm: float | None = None, repeats: bool = False) -> SequenceModel:
    """Twelve items, five of them known to the backbone, the third without content."""
    torch.manual_seed(0)
    content = functional.normalize(torch.randn(12, 20), dim=1)
    content[2] = 0
    shape = replace(SHAPE, repeats=repeats, content_dim=20, delta_norm=delta_norm)
    model = SequenceModel(shape, torch.randperm(12), 5, content=content, id_dropout=id_dropout)
    assert model.backbone.content is not None
    assert model.content is not None
    model.backbone.content.fit(model.content)
    for table in (model.backbone.items, model.head.items):
        torch.nn.init.normal_(table.weight)
    return model


LABELS = torch.tensor([[n % 3, 3 + n % 2, 6] if n % 4 else [5, 6, 6] for n in range(12)])
"""Of twelve items; the backbone knows the first two, the sixth stands for none."""


def with_all(parts: str = "content pictures labels", repeats: bool = False) -> SequenceModel:
    """As `with_content`, with pictures of other items and with labels."""
    torch.manual_seed(1)
    content, pictures = functional.normalize(torch.randn(12, 20), dim=1), torch.randn(12, 24)
    content[2], pictures[:2] = 0, 0
    given = {"content": content, "pictures": pictures, "labels": LabelRows(LABELS, 2, 4)}
    given = {name: value for name, value in given.items() if name in parts}
    dims = {"content_dim": 20 if "content" in given else 0, "picture_dim": 24 if "pictures" in given else 0}
    shape = replace(SHAPE, repeats=repeats, labels="labels" in given, **dims)
    model = SequenceModel(shape, torch.randperm(12), 5, **given)
    model.fit_content()
    tables = (model.backbone.items, model.head.items, model.backbone.labels, model.head.labels)
    for table in (table for table in tables if table is not None):
        torch.nn.init.normal_(table.weight)
    return model.eval()


def test_an_item_is_the_sum_of_all_that_is_known_of_it() -> None:
    model = with_all()
    labels = torch.cat([model.backbone.labels.weight, model.head.labels.weight, torch.zeros(1, 16)])[LABELS].sum(1)
    texts, pictures = (
        project.project((vectors.float() - project.center) * vectors.any(1, keepdim=True))
        for project, vectors in (
            (model.backbone.content, model.content),
            (model.backbone.content_image, model.content_image),
        )
    )
    expected = texts + pictures + labels + model.own_table()
    torch.testing.assert_close(model.table(), expected)
    torch.testing.assert_close(
        model.vectors(torch.tensor([[1, 5], [12, 3]])), expected[torch.tensor([[0, 4], [11, 2]])]
    )
    assert all(name.startswith(("backbone.", "head.")) for name, _ in model.named_parameters())


def test_two_projections_are_together_as_long_as_one_and_share_their_strongest_places_with_weak_ones() -> None:
    model = with_all("content pictures")
    texts, pictures = (
        part.project.weight.norm(dim=1) for part in (model.backbone.content, model.backbone.content_image)
    )
    known = (model.content.any(1) & model.content_image.any(1)).nonzero().flatten()
    lengths = [
        project(vectors[known]).pow(2).sum(1).mean()
        for project, vectors in (
            (model.backbone.content, model.content),
            (model.backbone.content_image, model.content_image),
        )
    ]
    assert sum(lengths).sqrt().item() == pytest.approx(NORM, rel=0.2)
    assert texts[:3].min() > texts[-3:].max()
    assert pictures[:3].max() < pictures[-3:].min()


@pytest.mark.parametrize("parts", ["content pictures labels", "pictures", "labels"])
def test_a_model_of_any_parts_is_flattened_and_introduces_items(parts: str) -> None:
    model = with_all(parts, repeats=True)
    histories, lengths = torch.tensor([[3, 7, 3], [12, 0, 0]]), torch.tensor([3, 1])
    with torch.no_grad():
        torch.testing.assert_close(model.flattened().scores(histories, lengths), model.scores(histories, lengths))
    rows = model.row_of_item - model.num_known
    item = next(n + 1 for n in range(12) if rows[n] >= 0 and model.directions(*model._described(slice(n, n + 1))).any())
    model.head.items.weight.data[rows[item - 1]] = 100
    model.introduce(torch.tensor([item]))
    lent = model.own_table()
    others = [n for n in range(12) if n + 1 != item]
    assert lent[item - 1].norm().item() == pytest.approx(lent[others].norm(dim=1).mean().item(), rel=1e-4)


def test_items_are_compared_by_texts_and_pictures_and_by_labels_where_there_are_neither() -> None:
    def cosine(vectors: torch.Tensor) -> torch.Tensor:
        return functional.cosine_similarity(vectors[3].float(), vectors[4].float(), dim=0)

    model = with_all()
    model.backbone.content.center.zero_()
    model.backbone.content_image.center.zero_()
    found = model.directions(*model._described(slice(None)))
    expected = (cosine(model.content) + cosine(model.content_image)) / 2
    assert (found[3] @ found[4]).item() == pytest.approx(expected.item(), abs=1e-3)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    labels = with_all("labels")
    found = labels.directions(*labels._described(slice(None)))
    assert (found[3] @ found[4]).item() == pytest.approx(cosine(labels._label_vectors(LABELS)).item(), abs=1e-3)


def test_an_item_is_its_content_and_what_its_id_adds() -> None:
    model = with_content().eval()
    assert model.content is not None
    vectors = model.vectors(torch.arange(1, 13))
    torch.testing.assert_close(vectors, model.table())
    torch.testing.assert_close(vectors - model.content_vectors(model.content), model.own_table())
    torch.testing.assert_close(vectors[2], model.own_table()[2])


def test_projected_content_is_centred_and_of_the_length_of_item_vectors() -> None:
    model = with_content()
    assert model.content is not None
    projected = model.content_vectors(model.content)
    described = projected[model.content.any(1)]
    torch.testing.assert_close(described.mean(0), torch.zeros(16), atol=1e-3, rtol=0)
    assert described.pow(2).sum(1).mean().sqrt().item() == pytest.approx(NORM, rel=1e-2)
    assert not projected[2].any()


def test_a_bound_holds_what_ids_add() -> None:
    model = with_content(delta_norm=0.25).eval()
    assert model.content is not None
    added = model.table() - model.content_vectors(model.content)
    assert added.norm(dim=1).max().item() == pytest.approx(0.25, rel=1e-3)
    torch.testing.assert_close(functional.cosine_similarity(added, model.own_table()), torch.ones(12))


def test_ids_may_be_left_out() -> None:
    model = with_content(delta_norm=0).eval()
    model.head.items.weight.data[0] = 0
    torch.testing.assert_close(model.table(), model.content_vectors(model.content))
    assert not model.borrowed(model.content)[0].any()


def test_id_dropout_leaves_content_alone_in_training_only() -> None:
    model = with_content(id_dropout=0.5)
    assert model.content is not None
    items = torch.arange(1, 13).repeat(100)
    content = model.content_vectors(model.content).repeat(100, 1)
    dropped = (model.train().vectors(items) - content).norm(dim=1) < 1e-6
    assert 0.4 < dropped.float().mean() < 0.6
    assert ((model.eval().vectors(items) - content).norm(dim=1) > 1e-3).all()


def test_an_item_without_training_is_its_content_and_what_like_items_lend_it() -> None:
    model = with_content().eval()
    assert model.content is not None
    torch.nn.init.normal_(model.head.bias)
    twin = model.content[4:5].repeat(2, 1)
    twin[1] = 0  # nothing is known of it
    lent, bias = model.borrowed(twin)
    own = model.own_table()
    assert lent[0].norm().item() == pytest.approx(own.norm(dim=1).mean().item(), rel=1e-4)
    assert functional.cosine_similarity(lent[:1], own, dim=1).argmax() == 4
    assert not lent[1].any()
    assert bias[1].item() == pytest.approx(model.head.bias.mean().item())


@pytest.mark.parametrize("repeats", [True, False])
def test_a_flattened_model_scores_the_same_all_or_some(repeats: bool) -> None:
    model = with_content(repeats=repeats).eval()
    torch.nn.init.normal_(model.head.bias)
    flat = model.flattened()
    assert {name for name, _ in flat.named_parameters()} == {
        name for name, _ in model.named_parameters() if not name.startswith("backbone.content.")
    }
    histories = torch.tensor([[3, 7, 3], [12, 0, 0], [0, 0, 0]])
    lengths = torch.tensor([3, 1, 0])
    with torch.no_grad():
        scores = model.scores(histories, lengths)
        torch.testing.assert_close(flat.scores(histories, lengths), scores)
        queries, wanted = flat.queries(histories, lengths), torch.tensor([12, 1, 3, 7])
        for row in range(3):
            one = slice(row, row + 1)
            some = flat.scores_of(wanted, histories[one], lengths[one], queries[one], flat.table())
            torch.testing.assert_close(some, scores[row, wanted])


def test_items_that_no_training_saw_lend_nothing() -> None:
    model = with_content().eval()
    rows = model.row_of_item - model.num_known
    unseen = torch.tensor([n + 1 for n in range(12) if rows[n] >= 0][:3])
    before = model.table().clone()
    model.head.items.weight.data[rows[unseen - 1]] = 1e6
    model.introduce(unseen)
    assert model.table().norm(dim=1).max() < 100
    others = [n for n in range(12) if n + 1 not in unseen]
    torch.testing.assert_close(model.table()[others], before[others])
